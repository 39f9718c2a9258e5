"""The figures of images and their means, against sums written out."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sparse_detr.evaluation.image_sparsity import (
    ImageSparsity,
    dataset_figures,
    each_once,
    mean,
    plain_id,
    without_repetitions,
)
from sparse_detr.evaluation.objects import NO_OBJECTS, ObjectBoxes
from sparse_detr.evaluation.token_use import TokenUse

LEVELS = ((2, 3), (1, 2))


def use(kept: list[list[int]] | None, attention: list[float]) -> TokenUse:
    mask = None if kept is None else torch.tensor(kept, dtype=torch.bool)
    return TokenUse(LEVELS, mask, torch.tensor(attention), (16, 24), (20, 30))


def figures(*images: ImageSparsity) -> dict[str, float]:
    return dataset_figures(images)


def test_corr_kept_tokens_and_shares_are_means_over_the_images() -> None:
    one = ImageSparsity.of(1, use([[1, 1, 0, 0, 0, 0, 1, 0]], [4, 2, 2, 0, 0, 0, 1, 1]), NO_OBJECTS)
    two = ImageSparsity.of(2, use([[1, 0, 0, 0, 0, 0, 0, 0]], [1, 1, 1, 1, 0, 0, 0, 0]), NO_OBJECTS)
    found = figures(one, two)
    assert found["corr"] == pytest.approx((7 / 10 + 1 / 4) / 2)
    assert found["corr_level0"] == pytest.approx((6 / 8 + 1 / 4) / 2)
    assert found["corr_level1"] == pytest.approx(1 / 2), "the second received nothing there"
    assert found["kept_tokens"] == 2 and found["keep_ratio"] == pytest.approx((3 / 8 + 1 / 8) / 2)
    assert found["kept_tokens_level0"] == 1.5 and found["kept_tokens_level1"] == 0.5
    assert found["keep_ratio_level0"] == pytest.approx((2 / 6 + 1 / 6) / 2)
    assert found["keep_ratio_level1"] == pytest.approx((1 / 2 + 0) / 2)
    assert found["attention_level0"] == pytest.approx((0.8 + 1) / 2)
    assert not any(name.startswith("keep_ratio_layer") for name in found)


def test_corr_is_one_where_every_token_is_kept() -> None:
    found = figures(ImageSparsity.of(1, use([[1] * 8], [0.1] * 8), NO_OBJECTS))
    assert found["corr"] == found["corr_level0"] == found["corr_level1"] == 1
    assert found["keep_ratio"] == 1


def test_layers_have_keeping_ratios_of_their_own_and_corr_counts_what_any_keeps() -> None:
    kept = [[1, 1, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 1]]
    found = figures(ImageSparsity.of(1, use(kept, [1] * 8), NO_OBJECTS))
    assert (found["keep_ratio_layer0"], found["keep_ratio_layer1"]) == (2 / 8, 2 / 8)
    assert found["corr"] == pytest.approx(3 / 8) and found["kept_tokens"] == 3


def test_objects_count_one_by_one_and_by_size() -> None:
    # Cells of the first level are 10 x 10 pixels: the first object has two of them and the second
    # level's first one, the second object one cell.
    objects = ObjectBoxes.of([([0, 0, 20, 15], 300.0), ([20, 0, 10, 10], 5000.0)])
    image = ImageSparsity.of(1, use([[1, 0, 0, 0, 0, 0, 1, 0]], [1] * 8), objects)
    found = figures(image)
    assert found["objects_with_kept_tokens"] == 0.5
    assert found["objects_with_kept_tokens_small"] == 1
    assert found["objects_with_kept_tokens_medium"] == 0
    assert math.isnan(found["objects_with_kept_tokens_large"])
    assert found["object_tokens_kept_small"] == pytest.approx(2 / 3)
    assert found["object_tokens_kept"] == pytest.approx(1 / 3)


def test_without_token_selection_only_the_attention_is_told() -> None:
    found = figures(ImageSparsity.of(1, use(None, [3, 0, 0, 0, 0, 0, 1, 0]), NO_OBJECTS))
    assert found == {"attention_level0": 0.75, "attention_level1": 0.25}


def test_an_image_without_attention_or_tokens_spoils_no_mean() -> None:
    silent = ImageSparsity.of(1, use([[1] + [0] * 7], [0.0] * 8), NO_OBJECTS)
    other = ImageSparsity.of(2, use([[1] + [0] * 7], [1.0] + [0.0] * 7), NO_OBJECTS)
    found = figures(silent, other)
    assert found["corr"] == 1 and found["attention_level0"] == 1
    assert math.isnan(found["corr_level1"]) and math.isnan(found["objects_with_kept_tokens"])


def test_the_mean_does_not_depend_on_the_order_and_leaves_nan_out() -> None:
    values = [0.1, 1e9, -1e9, 0.3, math.nan, 0.7]
    assert mean(values) == mean(reversed(values)) == pytest.approx(1.1 / 5)
    assert math.isnan(mean([math.nan])) and math.isnan(mean([]))


def test_an_image_that_two_processes_had_counts_once() -> None:
    image = ImageSparsity.of(1, use([[1] * 8], [1.0] * 8), NO_OBJECTS)
    other = ImageSparsity.of("1", use([[1] * 8], [1.0] * 8), NO_OBJECTS)
    assert without_repetitions([image, other, image]) == without_repetitions([other, image])
    assert len(without_repetitions([image, other, image])) == 2


def test_ids_of_numpy_are_those_of_python_and_text_is_another() -> None:
    entries = [SimpleNamespace(image_id=i) for i in (7, np.int64(7), torch.tensor(7), "7", "a")]
    assert [plain_id(entry.image_id) for entry in each_once(entries)] == ["7", "a", 7]
