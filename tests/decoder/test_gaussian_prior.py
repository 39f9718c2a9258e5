"""Priors that SMCA's queries predict."""

import pytest
import torch

from small_tokens import tokens_of
from sparse_detr.decoder.gaussian_prior import (
    GaussianPriorNetwork,
    InitialCentres,
    PriorForm,
    image_extents,
)


def network(**form):
    torch.manual_seed(0)
    alpha = form.pop("alpha_of_first_image", False)
    return GaussianPriorNetwork(8, 2, PriorForm(**form), alpha).double()


def run(net, levels=1):
    torch.manual_seed(1)
    queries, centres = torch.randn(2, 3, 8).double(), torch.rand(2, 3, 2).double()
    extents = [torch.tensor([[[6.0, 4.0]], [[5.0, 3.0]]]).double() / 2**i for i in range(levels)]
    return net(queries, centres, extents), centres


@pytest.mark.parametrize("scale", ["fixed", "isotropic", "axes", "axes_and_product"])
def test_a_prior_starts_two_cells_wide_at_its_centre_and_offset(scale):
    ((prior,), level_weights), centres = run(network(scale=scale))
    expected = torch.full_like(prior.precisions, 1 / 8)
    torch.testing.assert_close(prior.precisions, expected)
    assert level_weights is None
    assert (prior.product_precision is None) == (scale != "axes_and_product")
    extents = torch.tensor([[[6.0, 4.0]], [[5.0, 3.0]]]).double()
    assert prior.centres.shape == (2, 3, 2, 2)
    assert (prior.centres != (centres * extents)[:, :, None]).all()  # each head has its offset


def test_heads_that_share_a_prior_have_one_without_offset():
    net = network(heads_share=True)
    ((prior,), _), centres = run(net)
    assert net.offset is None and prior.precisions.shape == (2, 3, 1, 2)
    extents = torch.tensor([[[6.0, 4.0]], [[5.0, 3.0]]]).double()
    torch.testing.assert_close(prior.centres[:, :, 0], centres * extents)


def test_one_scale_serves_both_axes():
    net = network(scale="isotropic")
    torch.nn.init.normal_(net.scale.weight)
    ((prior,), _), _ = run(net)
    torch.testing.assert_close(prior.precisions[..., 0], prior.precisions[..., 1])
    assert prior.precisions.std() > 0.01


def test_every_image_weighs_the_levels_by_its_own_queries_unless_released():
    (_, own), _ = run(network(level_factors=(0.5, 1.0)), 2)
    (_, released), _ = run(network(level_factors=(0.5, 1.0), alpha_of_first_image=True), 2)
    assert own.shape == (2, 3, 2)
    torch.testing.assert_close(own.sum(-1), torch.ones(2, 3).double())
    assert not torch.allclose(own[0], own[1])
    assert torch.equal(released[1], own[0]) and torch.equal(released[0], own[0])


def test_factors_of_the_levels_scale_their_priors():
    (priors, _), _ = run(network(level_factors=(0.5, 2.0)), 2)
    torch.testing.assert_close(priors[1].precisions, 4 * priors[0].precisions)


def test_without_selection_no_level_has_a_weight():
    net = network(level_factors=(0.5, 2.0), select_scales=False)
    (_, weights), _ = run(net, 2)
    assert net.level_weight is None and weights is None


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"scale": "type3"}, "scale must be one of fixed, isotropic, axes"),
        ({"smooth": 0}, "smooth must be above 0"),
        ({"level_factors": ()}, "level_factors must be above 0, at least one"),
        ({"level_factors": (1.0, -1.0)}, "level_factors must be above 0"),
    ],
)
def test_a_form_that_makes_no_sense_is_refused(form, message):
    with pytest.raises(ValueError, match=message):
        PriorForm(**form)


def test_tokens_of_no_image_are_refused_by_name():
    with pytest.raises(ValueError, match="tokens must know image_sizes and the strides of 1 level"):
        image_extents(tokens_of([(3, 4)]), 1)


def test_centres_are_computed_in_full_precision_whatever_the_precision_around():
    centres, features = InitialCentres(8), torch.randn(1, 3, 8)
    with torch.autocast("cpu", torch.bfloat16):
        got = centres(features)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, centres(features), rtol=0, atol=0)
