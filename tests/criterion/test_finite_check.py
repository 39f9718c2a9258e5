"""Predictions that are not finite stop with the stage and the images named."""

import pytest
import torch

from sparse_detr.criterion import NonFinitePredictionError, check_finite
from sparse_detr.criterion.finite_check import CheckedValues, check_all_finite


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_the_error_names_the_stage_and_the_images_concerned_only(bad):
    values = torch.zeros(3, 4, 2)
    values[1, 2, 1] = bad
    with pytest.raises(NonFinitePredictionError) as error:
        check_finite("decoder layer 3", "class logits", values, ["a", 17, "c"])
    assert error.value.stage == "decoder layer 3"
    assert error.value.image_ids == (17,)
    assert "decoder layer 3 gave class logits that are not finite" in str(error.value)


def test_it_is_a_floating_point_error():
    assert issubclass(NonFinitePredictionError, FloatingPointError)


def test_finite_values_pass_however_large():
    check_finite("a", "b", torch.full((2, 3), 3e38), [0, 1])


def test_of_several_stages_the_first_one_concerned_is_named():
    good, bad = torch.zeros(2, 3), torch.zeros(2, 3)
    bad[0, 0] = float("inf")
    worse = torch.full((2, 5, 7), float("nan"))
    stages = [("a", good), ("b", bad), ("c", worse)]
    checked = [CheckedValues(stage, "boxes", values) for stage, values in stages]
    with pytest.raises(NonFinitePredictionError) as error:
        check_all_finite(checked, ["left", "right"])
    assert (error.value.stage, error.value.image_ids) == ("b", ("left",))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_dtype_is_checked_in_its_own_range(dtype):
    values = torch.full((1, 4), torch.finfo(dtype).max, dtype=dtype)
    mixed = [CheckedValues("a", "b", values), CheckedValues("c", "d", torch.zeros(1, 2))]
    check_all_finite(mixed, [0])
    values[0, 3] = float("nan")
    with pytest.raises(NonFinitePredictionError, match="a gave b"):
        check_all_finite(mixed, [0])


def test_values_without_entries_are_finite():
    check_finite("a", "b", torch.zeros(2, 0, 4), [0, 1])
