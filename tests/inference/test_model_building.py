"""A detector for inference has its checkpoint's weights, and wrong input is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from builders import batch, small_config, small_detector
from sparse_detr.engine.errors import UserError
from sparse_detr.inference import OptimizedDetector, build_model_for_inference


def saved(path: Path, content: dict) -> Path:
    torch.save(content, path)
    return path


def test_the_model_has_the_weights_of_the_checkpoint_and_is_in_evaluation_mode(
    tmp_path: Path,
) -> None:
    source = small_detector()
    weights = saved(tmp_path / "model.pth", {"model": source.state_dict()})
    model = build_model_for_inference(small_config(), weights, "cpu")
    assert not model.training
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in source.state_dict().items())


def test_the_moving_average_is_preferred_where_there_is_one(tmp_path: Path) -> None:
    plain = small_detector().state_dict()
    average = {
        name: value + 1 if value.is_floating_point() else value for name, value in plain.items()
    }
    content = {"model": plain, "ema": {"average": average}}
    model = build_model_for_inference(small_config(), saved(tmp_path / "m.pth", content), "cpu")
    assert all(torch.equal(value, average[name]) for name, value in model.state_dict().items())


def test_keep_ratio_replaces_that_of_the_config() -> None:
    model = build_model_for_inference(small_config(), None, "cpu", keep_ratio=0.9)
    assert model.keep_ratio == 0.9


def test_an_optimised_detector_has_the_weights_and_the_keep_ratio_that_were_asked_for(
    tmp_path: Path,
) -> None:
    weights = saved(tmp_path / "model.pth", {"model": small_detector().state_dict()})
    plain = build_model_for_inference(small_config(), weights, "cpu", keep_ratio=0.9)
    model = build_model_for_inference(
        small_config(), weights, "cpu", keep_ratio=0.9, optimize="exact"
    )
    assert isinstance(model, OptimizedDetector) and not isinstance(plain, OptimizedDetector)
    assert model.keep_ratio == 0.9
    inputs = batch([(64, 96)])
    with torch.no_grad():
        (expected,) = plain(inputs)
    (found,) = model(inputs)
    torch.testing.assert_close(found["instances"].scores, expected["instances"].scores)


def test_an_unknown_precision_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"optimize: precision must be one of exact, .* 'fast'"):
        build_model_for_inference(small_config(), None, "cpu", optimize="fast")


@pytest.mark.parametrize(
    ("system", "ratio"), [("sparse_detr", 0.0), ("sparse_detr", 1.1), ("deformable_detr", 0.5)]
)
def test_a_keep_ratio_that_does_not_fit_is_a_user_error(system: str, ratio: float) -> None:
    with pytest.raises(UserError, match="keep_ratio"):
        build_model_for_inference(small_config(system), None, "cpu", keep_ratio=ratio)


def test_weights_of_another_model_are_a_user_error(tmp_path: Path) -> None:
    other = small_detector(num_classes=9)
    weights = saved(tmp_path / "other.pth", {"model": other.state_dict()})
    with pytest.raises(UserError, match=r"file \[9"):
        build_model_for_inference(small_config(), weights, "cpu")


def test_missing_weights_are_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        build_model_for_inference(small_config(), tmp_path / "absent.pth", "cpu")


def test_a_config_without_a_model_is_a_user_error() -> None:
    config = small_config()
    del config["model"]
    with pytest.raises(UserError, match="no key 'model'"):
        build_model_for_inference(config, None, "cpu")
