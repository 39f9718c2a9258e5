"""The program prints what was counted, keeps it as JSON, and says what the user has to correct."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import analyze_model

QUICK = ["--config-file", "quickstart", "model.num_classes=4"]
SMALL = ["--sizes", "128x160"]


def test_tables_and_json_hold_the_same_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "analysis.json"
    ratios = ["--keep-ratios", "0.1", "layers:0.5,0.3,0.1"]
    conventions = ["--convention", "honest", "released"]
    assert analyze_model.main([*QUICK, *SMALL, *ratios, *conventions, "--json", str(file)]) == 0
    text = capsys.readouterr().out
    report = json.loads(file.read_text("utf-8"))
    assert [(e["convention"], e["keep_ratio"]) for e in report["flops"]] == [
        ("honest", "0.1"), ("honest", "layers:0.5,0.3,0.1"),
        ("released", "0.1"), ("released", "layers:0.5,0.3,0.1"),
    ]  # fmt: skip
    for entry in report["flops"]:
        [size] = entry["sizes"]
        assert size["size"] == "128x160" and size["total"] == sum(size["by_part"].values())
        line = next(
            line for line in text.splitlines()
            if line.startswith(f"rho {entry['keep_ratio']} ") and f" {entry['convention']} " in line
        )  # fmt: skip
        assert line.split()[-1] == f"{size['total'] / 1e9:.2f}"
    assert f"{report['parameters']['all'] / 1e6:.3f}" in text
    assert "(one encoder layer, mean)" in text


def test_a_file_of_image_sizes_gives_means_of_resized_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes, file = tmp_path / "sizes.csv", tmp_path / "analysis.json"
    sizes.write_text("height,width\n120,160\n120,160\n150,150\n")
    assert (
        analyze_model.main([*QUICK, "--sizes", str(sizes), "--json", str(file), "--markdown"]) == 0
    )
    assert "mean of 3 images" in capsys.readouterr().out
    [entry] = json.loads(file.read_text("utf-8"))["flops"]
    first, second = entry["sizes"]
    assert (first["images"], second["images"]) == (2, 1)
    assert first["size"] != "120x160"  # resized
    assert entry["mean"] == pytest.approx((2 * first["total"] + second["total"]) / 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sizes", "800"], "HEIGHTxWIDTH"),
        (["--sizes", "missing.csv"], "missing.csv"),
        (["--keep-ratios", "1.5"], "must be a number in (0, 1]"),
        (["--keep-ratios", "mass:0.9"], "depends on the image"),
        (["--keep-ratios", "layers:0.5,0.2"], "layers"),
        (["model.no_such_key=1"], "no_such_key"),
    ],
)
def test_wrong_input_ends_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analyze_model.main([*QUICK, *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[0].startswith("error: ") and message in lines[0]


def test_a_keeping_ratio_for_a_dense_detector_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    dense = "deformable_detr/deformable_detr_r50_base_50ep"
    assert analyze_model.main(["--config-file", dense, "--keep-ratios", "0.1"]) == 2
    assert "does not score tokens" in capsys.readouterr().err
