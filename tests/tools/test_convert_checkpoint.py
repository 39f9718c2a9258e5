"""The program prints what it did, and ends with 2 and one line where it could not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision

import convert_checkpoint


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.device("meta"):
        names = torchvision.models.resnet50(weights=None).state_dict()
    state = {key: torch.ones(()).expand(tensor.shape) for key, tensor in names.items()}
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save(state, path)
    return path


def test_the_summary_says_what_the_file_is_and_how_to_use_the_result(
    resnet_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, report = tmp_path / "out.pth", tmp_path / "report.json"
    assert convert_checkpoint.main([str(resnet_file), str(out), "--report", str(report)]) == 0
    printed = capsys.readouterr().out
    assert "Recognised: backbone, ResNet-50" in printed
    assert "265 keys mapped" in printed and "55 keys ignored" in printed
    assert f"train.backbone_weights={out}" in printed
    assert '"counts"' in report.read_text()


def test_wrong_input_is_one_line_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert_checkpoint.main([str(tmp_path / "none.pth"), str(tmp_path / "out.pth")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "does not exist" in error


@pytest.mark.parametrize(
    "options",
    [
        ["--keep-ratio", "0"],
        ["--keep-ratio", "1.5"],
        ["--keep-91", "--keep-class-ids"],
        ["--to", "released", "--keep-91"],
        ["--to", "elsewhere"],
    ],
)
def test_wrong_options_end_with_code_2(options: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        convert_checkpoint.parse_arguments(["in.pth", "out.pth", *options])
    assert ended.value.code == 2
