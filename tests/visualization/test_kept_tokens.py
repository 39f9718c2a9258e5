"""Kept tokens are shown where their cells are, level by level."""

from __future__ import annotations

import numpy as np
import pytest

from builders import batch, small_detector
from sparse_detr.inference import inspect_image
from sparse_detr.visualization import KeptLevel, draw_kept_tokens, kept_levels
from sparse_detr.visualization.cells import cell_edges, cells_as_pixels
from sparse_detr.visualization.panels import CAPTION_HEIGHT, MARGIN, Picture

WHITE = 255


def one_kept(shape: tuple[int, int], row: int, column: int) -> np.ndarray:
    kept = np.zeros(shape, dtype=bool)
    kept[row, column] = True
    return kept


def panel(picture: Picture, row: int, column: int, size: tuple[int, int]) -> Picture:
    """The image of a panel of the grid, without caption and margin."""
    top = MARGIN + CAPTION_HEIGHT + row * (size[0] + CAPTION_HEIGHT + MARGIN)
    left = MARGIN + column * (size[1] + MARGIN)
    return picture[top : top + size[0], left : left + size[1]]


@pytest.mark.parametrize(
    ("cells", "length", "expected"),
    [
        (4, 32, [0, 8, 16, 24, 32]),
        (3, 10, [0, 3, 7, 10]),
        (1, 5, [0, 5]),
        (4, 2, [0, 1, 1, 2, 2]),
        (2, 7.5, [0, 4, 8]),
    ],
)
def test_edges_divide_the_padded_length_evenly(
    cells: int, length: float, expected: list[int]
) -> None:
    assert cell_edges(cells, length).tolist() == expected


def test_a_cell_covers_exactly_its_rows_and_columns() -> None:
    # Cell (1, 2) of a 3 x 4 map over 30 x 80 pixels: rows 10..19, columns 40..59.
    covered = cells_as_pixels(one_kept((3, 4), 1, 2), (30, 80), (30, 80))
    expected = np.zeros((30, 80), dtype=bool)
    expected[10:20, 40:60] = True
    assert np.array_equal(covered, expected)


def test_cells_are_placed_in_the_padded_image_and_cut_at_the_image() -> None:
    # 3 x 4 cells over 36 x 80 padded pixels of which 25 x 50 are the image: cell (2, 2) covers
    # rows 24..35 and columns 40..59, of which row 24 and columns 40..49 are to be seen.
    covered = cells_as_pixels(one_kept((3, 4), 2, 2), (36, 80), (25, 50))
    expected = np.zeros((25, 50), dtype=bool)
    expected[24:, 40:] = True
    assert np.array_equal(covered, expected)


def test_levels_hold_each_images_own_kept_tokens_and_nothing_else() -> None:
    model = small_detector(keep_ratio=0.3)
    inspected = inspect_image(model, batch([(70, 100)])[0])
    selection = inspected.output.selection
    assert selection is not None
    levels = kept_levels(inspected)

    assert [level.kept.shape for level in levels] == list(inspected.output.tokens.spatial_shapes)
    assert [level.stride for level in levels] == [8, 16, 32, 64]
    flat = np.concatenate([level.kept.reshape(-1) for level in levels])
    own = selection.layers[0].kept_indices[0, : selection.layers[0].kept_counts[0]]
    assert sorted(own.tolist()) == np.flatnonzero(flat).tolist()
    assert sum(level.num_tokens for level in levels) == inspected.output.tokens.valid_counts[0]


def test_keeping_every_token_lights_every_level_fully() -> None:
    levels = kept_levels(inspect_image(small_detector(keep_ratio=1.0), batch([(64, 64)])[0]))
    assert all(level.kept.all() for level in levels)
    assert all(level.num_kept == level.num_tokens for level in levels)


def test_a_dense_detector_is_refused() -> None:
    inspected = inspect_image(small_detector("deformable_detr"), batch([(64, 64)])[0])
    with pytest.raises(ValueError, match="no token selection"):
        kept_levels(inspected)


def test_the_picture_has_the_image_one_panel_per_level_and_a_table() -> None:
    image = np.full((260, 520, 3), 200, dtype=np.uint8)
    levels = [KeptLevel(8 << i, one_kept((4, 8), i, i), 32) for i in range(4)]
    picture = draw_kept_tokens(image, levels, (260, 520))
    assert picture.shape == (2 * (260 + CAPTION_HEIGHT) + 3 * MARGIN, 3 * 520 + 4 * MARGIN, 3)
    assert (panel(picture, 0, 0, (260, 520)) == 200).all(), "the first panel is the image itself"


def test_kept_cells_stay_bright_and_the_rest_is_dimmed() -> None:
    image = np.full((260, 520, 3), 200, dtype=np.uint8)
    levels = [KeptLevel(8, one_kept((4, 8), 1, 2), 32), KeptLevel(16, one_kept((2, 4), 0, 0), 8)]
    picture = draw_kept_tokens(image, levels, (260, 520))
    first = panel(picture, 0, 1, (260, 520))
    # Cell (1, 2) of 4 x 8: rows 65..129, columns 130..194; its outermost pixels are the outline.
    assert (first[66:129, 131:194] == 200).all()
    outside = np.ones((260, 520), dtype=bool)
    outside[65:130, 130:195] = False
    assert (first[outside] < 80).all()
    second = panel(picture, 1, 0, (260, 520))
    assert (second[:129, :129] == 200).all()
    assert (second[130:, 130:] < 80).all()


def test_boxes_are_framed_in_every_panel() -> None:
    image = np.full((260, 520, 3), 100, dtype=np.uint8)
    levels = [KeptLevel(8, np.zeros((4, 8), dtype=bool), 32)]
    boxes = np.array([[50.0, 40.0, 150.0, 140.0]])
    picture = draw_kept_tokens(image, levels, (260, 520), boxes)
    for place in ((0, 0), (0, 1)):
        shown = panel(picture, *place, (260, 520))
        assert (shown[40, 50:151] == WHITE).all()
        assert (shown[40:141, 150] == WHITE).all()
        assert (shown[41:140, 51:150] != WHITE).all()


def test_small_images_are_enlarged_with_their_cells() -> None:
    image = np.full((26, 52, 3), 200, dtype=np.uint8)
    picture = draw_kept_tokens(image, [KeptLevel(8, one_kept((4, 8), 1, 2), 32)], (26, 52))
    shown = panel(picture, 0, 1, (260, 520))
    assert (shown[66:129, 131:194] == 200).all()
    assert (shown[140:, 210:] < 80).all()
