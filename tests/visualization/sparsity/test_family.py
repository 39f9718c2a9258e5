"""The relatives of Sparse DETR are shown as what they are: priors, pooled rows, dense attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from views import drawn_view, view_of

from builders import batch, small_detector
from sparse_detr.inference import inspect_image
from sparse_detr.inference.inspection import LayerPriors
from sparse_detr.layers.gaussian_attention import GaussianPrior
from sparse_detr.visualization.kept_tokens import draw_kept_tokens, kept_levels, num_pooled
from sparse_detr.visualization.sparsity import BoxOptions, overview, page_data, single_panels
from sparse_detr.visualization.sparsity.overview import summary
from sparse_detr.visualization.sparsity.prior_panels import draw_prior
from sparse_detr.visualization.sparsity.query_prior import QueryPrior, query_prior
from sparse_detr.visualization.sparsity.token_panels import Frame, pooling_panels


def names(system: str) -> set[str]:
    return {name for name, _ in single_panels(view_of(system), BoxOptions())}


def legend(system: str) -> str:
    return "\n".join(summary(view_of(system), with_truth=False)[1])


def test_a_prior_lies_where_its_numbers_say() -> None:
    # Two heads on a map of 4 x 8 cells of 10 pixels: precision 1/8 is a sigma of two cells.
    prior = GaussianPrior(
        torch.tensor([[[[9.0, 9.0], [9.0, 9.0]], [[2.0, 1.0], [5.0, 3.0]]]]),
        torch.tensor([[[[0.125, 0.5], [0.125, 0.125]]]]),
    )
    weights = torch.tensor([[[1.0], [0.5]]])
    found = query_prior(LayerPriors((prior,), ((4, 8),), weights), 1, (40, 80))
    np.testing.assert_allclose(found.centres, [[25, 15], [55, 35]])
    np.testing.assert_allclose(found.sigmas, [[20, 10], [20, 20]])
    (cells,) = found.maps
    assert cells.shape == (4, 8)
    # At the first head's centre: itself, and the other one 3 columns and 2 rows away.
    assert cells[1, 2] == pytest.approx(0.5 * (1 + np.exp(-0.125 * (9 + 4))))


def test_the_map_is_the_priors_own_with_and_without_a_product_term() -> None:
    centres, precisions = torch.rand(1, 3, 2, 2) * 4, torch.rand(1, 3, 2, 2)
    for product in (None, torch.rand(1, 3, 2)):
        prior = GaussianPrior(centres, precisions, product)
        (cells,) = query_prior(LayerPriors((prior,), ((5, 6),)), 2, (50, 60)).maps
        expected = prior.log_map((5, 6)).exp()[0, :, 2].sum(0).view(5, 6)
        np.testing.assert_allclose(cells, expected.numpy(), rtol=1e-5)


def test_the_panel_is_brightest_at_the_prior_and_draws_an_ellipse_of_one_sigma() -> None:
    view = drawn_view()
    frame = Frame.of(view, (160, 320), ground_truth=False)
    cells = np.zeros((4, 8))
    cells[1, 2] = 1.0
    prior = QueryPrior(
        np.array([[50.0, 30.0]]), np.array([[20.0, 10.0]]), np.array([0]), (cells,)
    )  # fmt: skip
    drawn = draw_prior(frame, prior, np.array([2.0, 2.0]), None).astype(int)
    yellow = np.abs(drawn - (255, 196, 0)).sum(-1) < 200
    # Around (100, 60) of the panel: 40 pixels across, 20 down, and the dot in the middle.
    for row, column in ((60, 60), (60, 140), (40, 100), (80, 100), (60, 100)):
        assert yellow[row - 1 : row + 2, column - 1 : column + 2].any(), (row, column)
    assert not yellow[100:].any()
    assert drawn[45, 85].sum() > 2 * drawn[130, 250].sum(), "the heat of the cell"


@pytest.mark.parametrize(
    ("system", "levels"), [("smca", 1), ("smca_multi_scale", 4), ("smca_multi_scale_separate", 4)]
)
def test_every_layer_of_smca_has_a_prior_for_each_head_and_level(system: str, levels: int) -> None:
    view = view_of(system)
    assert {f"query{query.index}_layer1_prior" for query in view.queries} <= names(system)
    for query in view.queries:
        assert len(query.layers) == 2
        for layer in query.layers:
            assert layer.prior is not None
            assert len(layer.prior.maps) == levels
            assert layer.prior.levels.tolist() == [lv for lv in range(levels) for _ in range(4)]
    held = page_data(view, BoxOptions())["queries"][0]["layers"][0]["prior"]
    assert [gaussian[4] for gaussian in held] == view.queries[0].layers[0].prior.levels.tolist()
    x = view.queries[0].layers[0].prior.centres[:, 0] / view.image_size[1]
    np.testing.assert_allclose([gaussian[0] for gaussian in held], x, atol=1e-4)


def test_priors_are_kept_only_on_request_and_change_nothing() -> None:
    model, (sample,) = small_detector("smca"), batch([(70, 100)])
    plain, watched = (inspect_image(model, sample, with_sampling=w) for w in (False, True))
    assert plain.gaussian_priors == ()
    assert len(watched.gaussian_priors) == 2
    assert torch.equal(plain.instances.scores, watched.instances.scores)
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("system", ["detr", "smca", "deformable_detr"])
def test_dense_detectors_have_panels_of_attention_and_queries_alone(system: str) -> None:
    found = names(system)
    assert any(name.startswith("attention_") for name in found)
    assert any(name.startswith("query") for name in found)
    assert not any(n.startswith(("kept", "scores", "target", "difference", "pool")) for n in found)
    text = legend(system)
    assert "dense: all" in text
    assert "Kept" not in text
    assert "Corr" not in text
    assert ("sampling points" in text) == (system == "deformable_detr")
    assert ("Prior" in text) == (system == "smca")


def test_the_overview_of_smca_has_a_row_of_priors_that_detr_has_not() -> None:
    heights = [
        overview(view_of(system), BoxOptions()).shape[0] for system in ("smca", "detr")
    ]  # fmt: skip
    assert heights[0] > heights[1]


def test_pooling_weights_are_those_that_made_the_rows() -> None:
    model, (sample,) = small_detector("pnp_detr"), batch([(70, 100)])
    view = view_of("pnp_detr")
    assert view.pooling is not None
    assert view.pooling.shape == (4, len(view.attention))
    np.testing.assert_allclose(view.pooling.sum(1), 1, rtol=1e-5)
    assert not view.pooling[:, view.kept_by_any].any()
    # The rows' positions are the weighted positions of the tokens.
    output = inspect_image(model, sample, with_sampling=True).output
    assert output.selection is not None and output.selection.sequence is not None
    rows = output.selection.sequence.position[0, -4:].numpy()
    mixed = view.pooling @ output.tokens.position[0].numpy()
    np.testing.assert_allclose(mixed, rows, atol=1e-5)


def test_pnp_detr_says_polled_and_pooled() -> None:
    text = legend("pnp_detr")
    assert "all grey tokens are pooled into 4 rows" in text
    assert "Polled: " in text
    assert "passed on" not in text
    assert "DAM's target" not in text
    assert {"pooling_all", "pooling_row0", "pooling_row3"} <= names("pnp_detr")
    assert page_data(view_of("pnp_detr"), BoxOptions())["pooledRows"] == 4


def test_pooled_tokens_are_bright_by_their_weight_and_polled_ones_dark() -> None:
    pooling = np.zeros((2, 10), dtype=np.float32)
    pooling[0, 0], pooling[1, 3], pooling[1, 4] = 1.0, 0.2, 0.8
    view = drawn_view(pooling=pooling)
    frame = Frame.of(view, (80, 160), ground_truth=False)
    panels = {p.name: p.picture.astype(int).sum(-1) for p in pooling_panels(view, frame)}
    assert panels.keys() == {"pooling_all", "pooling_row0", "pooling_row1"}
    total = panels["pooling_all"]
    assert total[20, 20] > total[60, 20] > total[20, 140] > total[20, 60] == total[20, 100]
    assert panels["pooling_row1"][20, 20] == panels["pooling_row1"][20, 60]


def test_the_picture_of_kept_tokens_says_that_the_others_are_pooled() -> None:
    model, (sample,) = small_detector("pnp_detr"), batch([(70, 100)])
    inspected = inspect_image(model, sample)
    assert inspected.output.selection is not None
    assert num_pooled(inspected.output.selection) == 4
    image, levels = np.zeros((70, 100, 3), dtype=np.uint8), kept_levels(inspected)
    pictures = [draw_kept_tokens(image, levels, (70, 100), None, rows) for rows in (0, 4)]
    assert not np.array_equal(*pictures)


def test_focus_detr_has_foreground_scores_and_layers_of_their_own() -> None:
    view = view_of("focus_detr")
    assert view.score_name == "foreground scores"
    counts = [int(kept.sum()) for kept in view.kept]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]
    text = legend("focus_detr")
    assert "among the most attended" in text
    assert "DAM's target" not in text
    assert "Kept by encoder layer: " + " ".join(map(str, counts)) in text
    assert {"kept_layer0", "kept_layer2"} <= names("focus_detr")
    assert page_data(view, BoxOptions())["scoreName"] == "foreground scores"


def test_sparse_detr_keeps_its_words() -> None:
    text = legend("sparse_detr")
    assert "grey tokens are passed on as they came" in text
    assert "in the DAM's target" in text
    assert view_of().score_name == "token scores"
    assert view_of().pooling is None


@pytest.mark.parametrize(
    ("system", "learns"), [("sparse_detr", True), ("focus_detr", False), ("pnp_detr", False)]
)
def test_the_page_knows_whether_scores_are_trained_towards_the_attention(
    system: str, learns: bool
) -> None:
    assert page_data(view_of(system), BoxOptions())["learnsAttention"] is learns
