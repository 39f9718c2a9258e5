"""Panels colour the pixels of the right tokens."""

from __future__ import annotations

import numpy as np
import pytest
from views import drawn_view, view_of

from sparse_detr.visualization.panels import CAPTION_HEIGHT
from sparse_detr.visualization.sparsity import BoxOptions, overview, single_panels
from sparse_detr.visualization.sparsity.chosen_queries import LayerSampling
from sparse_detr.visualization.sparsity.overview import summary
from sparse_detr.visualization.sparsity.query_panels import draw_sampling
from sparse_detr.visualization.sparsity.sparsity_view import ShownBoxes, SparsityView
from sparse_detr.visualization.sparsity.token_panels import (
    ATTENDED_ONLY,
    BOTH,
    KEPT_ONLY,
    Frame,
    layer_panels,
    target_panels,
    token_panels,
)

CENTRES = {token: (20 + 40 * (token // 4), 20 + 40 * (token % 4)) for token in range(8)}
"""(row, column) of the middle of each cell of level 0."""


def pictures(view: SparsityView, ground_truth: bool = False) -> dict[str, np.ndarray]:
    frame = Frame.of(view, (80, 160), ground_truth)
    panels = [panel for row in token_panels(view, frame) for panel in row]
    panels += target_panels(view, frame) + layer_panels(view, frame)
    return {panel.name: panel.picture.astype(int) for panel in panels}


def test_kept_cells_are_bright_and_the_others_dark() -> None:
    picture = pictures(drawn_view())["kept_level0"]
    for token, centre in CENTRES.items():
        if token in (1, 2):
            assert (picture[centre] == 200).all()
        else:
            assert (picture[centre] < 80).all()


def test_all_levels_together_are_lit_by_the_share_that_keeps_a_place() -> None:
    picture = pictures(drawn_view())["kept_all"]
    # Level 1 keeps the left half: with token 1 both levels, below it one, right of it token 2.
    both, one, also_one, none = (picture[CENTRES[t]][0] for t in (1, 5, 2, 7))
    assert both == 200
    assert one == also_one == pytest.approx((200 + none) / 2, abs=1)
    assert none < 80


def test_the_target_is_shown_like_the_kept_tokens() -> None:
    picture = pictures(drawn_view())["target_level0"]
    assert (picture[CENTRES[3]] == 200).all()
    assert (picture[CENTRES[1]] < 80).all()


def test_kept_and_attended_tokens_have_three_colours() -> None:
    picture = pictures(drawn_view())["difference_level0"]

    def nearest(token: int) -> tuple[int, ...] | None:
        pixel = picture[CENTRES[token]]
        if np.ptp(pixel) < 20:
            return None
        colours = (BOTH, KEPT_ONLY, ATTENDED_ONLY)
        return min(colours, key=lambda colour: np.abs(pixel - np.array(colour)).sum())

    assert [nearest(token) for token in range(8)] == [
        None, KEPT_ONLY, BOTH, ATTENDED_ONLY, None, None, None, None
    ]  # fmt: skip


def test_heat_rises_with_score_and_attention() -> None:
    found = pictures(drawn_view())
    scores = [found["scores_level0"][CENTRES[token]].sum() for token in range(8)]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1]
    attention = [found["attention_level0"][CENTRES[token]].sum() for token in range(8)]
    assert attention[2] > attention[3] > attention[0] == attention[7]


def test_scores_that_say_nothing_are_dark_and_do_not_set_the_scale() -> None:
    view = drawn_view()
    scores, counted = view.scores.copy(), view.counted.copy()
    scores[7], counted[7] = 50.0, False
    found = pictures(drawn_view(scores=scores, counted=counted))["scores_level0"]
    assert found[CENTRES[7]].sum() < found[CENTRES[1]].sum() < found[CENTRES[6]].sum()


def test_ground_truth_is_outlined_only_where_asked() -> None:
    truth = ShownBoxes(np.array([[10.0, 10.0, 70.0, 70.0]]), np.array([0]))
    view = drawn_view(truth=truth)
    assert (pictures(view, True)["attention_level1"][10, 10:71] == 255).all()
    assert not (pictures(view)["attention_level1"][10, 10:71] == 255).any()


def test_layers_get_a_panel_each_only_where_they_differ() -> None:
    view = drawn_view()
    assert not any(name.startswith("kept_layer") for name in pictures(view))
    second = np.zeros(10, dtype=bool)
    second[[1, 8]] = True
    found = pictures(drawn_view(kept=(view.kept[0], second)))
    assert found["kept_layer0"][CENTRES[2]][0] > found["kept_layer1"][CENTRES[2]][0]
    assert (found["kept_layer1"][CENTRES[1]] == 200).all()


def test_sampling_points_lie_at_their_places_with_area_by_weight() -> None:
    image = np.full((300, 600, 3), 100, dtype=np.uint8)
    layer = LayerSampling(
        np.array([20.0, 20.0, 130.0, 130.0]),
        np.array([[50.0, 50.0], [200.0, 100.0]]),
        np.array([1.0, 0.25]),
        np.array([0, 1]),
    )
    drawn = draw_sampling(image, layer, (2.0, 2.0)).astype(int)
    assert (drawn[100, 100] == (255, 196, 0)).all()
    assert (drawn[200, 400] == (0, 229, 255)).all()
    yellow = (np.abs(drawn - (255, 196, 0)).sum(-1) < 60).sum()
    blue = (np.abs(drawn - (0, 229, 255)).sum(-1) < 60).sum()
    assert 3 < yellow / blue < 6
    assert (drawn[41, 100:240] > 200).all(), "the frame of the box"


def test_the_overview_and_the_panels_come_out_alike_each_time() -> None:
    options = BoxOptions(["cat", "$dog$"])
    first, second = (overview(drawn_view(), options) for _ in range(2))
    assert np.array_equal(first, second)
    names = [name for name, _ in single_panels(drawn_view(), options)]
    assert len(names) == len(set(names))
    assert {"detections", "kept_all", "scores_level1", "target_level0", "query5_layer0"} <= {*names}
    for _, picture in single_panels(drawn_view(), options):
        assert picture.shape == (280 + CAPTION_HEIGHT, 560, 3)


@pytest.mark.parametrize("system", ["sparse_detr", "deformable_detr"])
def test_every_kind_of_detector_has_an_overview(system: str) -> None:
    picture = overview(view_of(system), BoxOptions(score_threshold=0.0))
    assert picture.dtype == np.uint8
    names = {name for name, _ in single_panels(view_of(system), BoxOptions())}
    assert ("scores_all" in names) == (system == "sparse_detr")


def test_the_summary_counts_tokens_and_attention() -> None:
    title, rows = summary(drawn_view(), with_truth=False)
    text = "\n".join(rows)
    assert title == "scene.png"
    assert "Kept: 3 of 10 tokens (30.0%)" in text
    assert "Corr: 75.0%" in text
    assert "Level 0: 2 of 8 kept, 75% of the attention, Corr 66.7%" in text
    assert "ground truth" not in text
