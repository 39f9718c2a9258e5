"""Predictions that are not finite stop with the stage and the images named."""

import pytest
import torch

from sparse_detr.criterion import NonFinitePredictionError, check_finite


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
