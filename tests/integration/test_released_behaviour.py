"""The preset sets every switch, and each switch does what it says in the whole detector."""

import pytest
import torch

from builders import batch, small_detector

SIZES = [(96, 128), (160, 200)]
# Switch by its place in the detector; all of them off is the correct behaviour.
SWITCHES = (
    "pad_before_backbone",
    "position_embedding.encode_padding",
    "token_scoring.average_over_padding",
    "token_selection.padding_competes",
    "token_selection.edge_tokens_compete",
    "query_selection.any_token_competes",
    "criterion.supervise_all_rows",
    "criterion.token_scoring.include_padding",
    "criterion.token_scoring.surplus_counts",
    "postprocess.keep_boxes_outside",
)


def value_of(model, switch):
    for name in switch.split("."):
        model = getattr(model, name)
    return model


@pytest.mark.parametrize("released", [False, True])
def test_the_preset_sets_every_switch(released):
    model = small_detector("sparse_detr", released_behaviour=released)
    assert {s: value_of(model, s) for s in SWITCHES} == dict.fromkeys(SWITCHES, released)


@pytest.mark.parametrize("released", [False, True])
def test_the_shift_that_released_weights_rest_on_is_not_part_of_the_preset(released):
    model = small_detector("sparse_detr", released_behaviour=released)
    assert model.criterion.token_scoring.half_cell_shift is True


@pytest.mark.parametrize("switch", SWITCHES)
def test_one_switch_can_be_set_against_the_preset(switch):
    model = small_detector("sparse_detr", **{switch.replace(".", "__"): True})
    assert [s for s in SWITCHES if value_of(model, s)] == [switch]


@torch.no_grad()
def tokens_of(pad_before_backbone, sizes):
    model = small_detector("sparse_detr", pad_before_backbone=pad_before_backbone).double()
    return model.extract_tokens(model.preprocess(batch(sizes)))


def test_pad_before_backbone_shows_the_padding_to_convolutions_and_norms():
    apart, padded = tokens_of(False, SIZES), tokens_of(True, SIZES)
    assert not torch.allclose(apart.features[0, :20], padded.features[0, :20])
    assert (apart.features[apart.padding_mask] == 0).all()
    assert (padded.features[padded.padding_mask] != 0).any()


def test_pad_before_backbone_changes_nothing_for_images_of_one_size():
    apart, padded = tokens_of(False, SIZES[:1] * 2), tokens_of(True, SIZES[:1] * 2)
    assert torch.equal(apart.features, padded.features)
    assert torch.equal(apart.padding_mask, padded.padding_mask)


@pytest.mark.parametrize("switch", SWITCHES)
def test_no_switch_changes_the_scores_of_a_single_small_image(switch):
    """Without padding and edge tokens there is nothing to differ on."""
    inputs = batch([(96, 128)])
    found = []
    for flag in (False, True):
        model = small_detector("sparse_detr", **{switch.replace(".", "__"): flag}).double()
        with torch.no_grad():
            found.append(model(inputs)[0]["instances"])
    torch.testing.assert_close(found[0].scores, found[1].scores, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "switch",
    [
        "pad_before_backbone",
        "token_scoring.average_over_padding",
        "criterion.supervise_all_rows",
        "criterion.token_scoring.include_padding",
    ],
)
def test_a_switch_about_padding_changes_the_losses_of_a_padded_batch(switch):
    inputs = batch(SIZES, [2, 2])
    totals = []
    for flag in (False, True):
        model = small_detector("sparse_detr", **{switch.replace(".", "__"): flag}).train()
        totals.append(float(sum(model(inputs).values()).detach()))
    assert abs(totals[0] - totals[1]) > 1e-4
