"""What loading weights accepts, refuses and reports."""

from pathlib import Path

import pytest
import torch
from torch import nn

from sparse_detr.engine.checkpoint_file import UnreadableCheckpointError
from sparse_detr.engine.errors import UserError
from sparse_detr.engine.weights import load_weights, weights_of


def model(classes: int = 3) -> nn.Module:
    torch.manual_seed(classes)
    return nn.ModuleDict({"body": nn.Linear(4, 4), "head": nn.Linear(4, classes)})


def save(path: Path, weights: dict) -> Path:
    torch.save({"model": weights}, path)
    return path


def test_equal_models_load_completely(tmp_path: Path) -> None:
    source, target = model(), model()
    with torch.no_grad():
        source["body"].weight.add_(1.0)
    report = load_weights(target, save(tmp_path / "a.pth", source.state_dict()))
    assert len(report.loaded) == 4 and report.missing_fraction == 0
    assert torch.equal(target["body"].weight, source["body"].weight)


def test_a_bare_state_dict_and_a_common_prefix_are_understood(tmp_path: Path) -> None:
    torch.save(
        {f"module.{name}": value for name, value in model().state_dict().items()},
        tmp_path / "a.pth",
    )
    assert len(load_weights(model(), tmp_path / "a.pth").loaded) == 4


def test_another_shape_is_an_error_that_names_both_and_changes_nothing(tmp_path: Path) -> None:
    target = model(classes=7)
    before = target["body"].weight.clone()
    with torch.no_grad():
        target["body"].weight.add_(1.0)
    with pytest.raises(UserError, match=r"head.weight \(file \[3, 4\], model \[7, 4\]\)"):
        load_weights(target, save(tmp_path / "a.pth", model().state_dict()))
    assert torch.equal(target["body"].weight, before + 1.0)


def test_fine_tuning_loads_what_fits_and_lists_the_rest(tmp_path: Path) -> None:
    source, target = model(), model(classes=7)
    report = load_weights(target, save(tmp_path / "a.pth", source.state_dict()), allow_partial=True)
    assert torch.equal(target["body"].weight, source["body"].weight)
    assert [name for name, _, _ in report.mismatched] == ["head.weight", "head.bias"]
    assert "another shape" in str(report)


def test_missing_entries_above_the_threshold_are_an_error(tmp_path: Path) -> None:
    weights = {name: value for name, value in model().state_dict().items() if name != "head.bias"}
    path = save(tmp_path / "a.pth", {**weights, "extra": torch.zeros(1)})
    with pytest.raises(UserError, match="allow_partial_init"):
        load_weights(model(), path)
    report = load_weights(model(), path, max_missing=0.25)
    assert report.missing == ("head.bias",) and report.unexpected == ("extra",)


def test_a_checkpoint_of_something_else_is_refused_even_when_partial(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing of this checkpoint fits"):
        load_weights(
            model(), save(tmp_path / "a.pth", {"other": torch.zeros(1)}), allow_partial=True
        )
    with pytest.raises(UnreadableCheckpointError, match="not tensors"):
        torch.save({"epoch": 1}, tmp_path / "b.pth")
        load_weights(model(), tmp_path / "b.pth")
    with pytest.raises(UnreadableCheckpointError, match="no weights"):
        load_weights(model(), save(tmp_path / "c.pth", {}))


def test_the_moving_average_is_taken_where_asked(tmp_path: Path) -> None:
    weights = model().state_dict()
    average = {name: value + 1 for name, value in weights.items()}
    torch.save({"model": weights, "ema": {"average": average, "updates": 5}}, tmp_path / "a.pth")
    target = model()
    load_weights(target, tmp_path / "a.pth", use_average=True)
    assert torch.equal(target["body"].bias, average["body.bias"])


def test_a_released_detector_is_pointed_to_the_converter(tmp_path: Path) -> None:
    names = ("transformer.level_embed", "class_embed.0.bias")
    torch.save({"model": {name: torch.zeros(2) for name in names}}, tmp_path / "released.pth")
    with pytest.raises(UserError, match=r"released detector: convert it with .*convert_checkpoint"):
        load_weights(nn.Linear(2, 2), tmp_path / "released.pth")


def test_a_foreign_moving_average_is_refused_with_a_message() -> None:
    content = {"model": {"w": torch.ones(1)}, "ema": {"shadow": {"w": torch.ones(1)}}}
    with pytest.raises(UnreadableCheckpointError, match=r"a\.pth.*'shadow'.*expected 'average'"):
        weights_of(content, "a.pth", use_average=True)
    assert list(weights_of(content, "a.pth")) == ["w"]
