"""The program that prints the tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import small_detector
from sparse_detr.analysis import HONEST, RELEASED, count_flops, flop_table
from sparse_detr.config.loading import load_config


@pytest.fixture
def small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small detectors in place of the released ones."""

    def build(config: str) -> object:
        sparse = config.startswith("sparse_detr/")
        detector = small_detector("sparse_detr" if sparse else "deformable_detr")
        if sparse:
            detector.keep_ratio = load_config(config).model.keep_ratio
        return detector

    monkeypatch.setattr(flop_table, "build", build)


def test_every_row_names_a_config_with_its_backbone_and_keeping_ratio() -> None:
    for backbone, rows in flop_table.RELEASED_MODELS.items():
        for row in rows:
            model = load_config(row.config).model
            assert model.keep_ratio == row.keep_ratio
            assert ("swin" in str(model.backbone).lower()) == (backbone == "swint")


@pytest.mark.usefixtures("small_models")
def test_the_tables_hold_the_counts(tmp_path: Path) -> None:
    file = tmp_path / "gflops.md"
    sizes = ["--sizes", "320x480", "256x384"]
    rows = ["--backbones", "r50", "--keep-ratios", "0.1", "0.3"]
    flop_table.main([*rows, *sizes, "--order", "project-first", "--output", str(file)])
    lines = [line for line in file.read_text("utf-8").splitlines() if line.startswith("| rho 0.3")]
    assert len(lines) == 1
    cells = [cell.strip() for cell in lines[0].strip("|").split("|")]
    detector = small_detector()
    expected = [
        f"{count_flops(detector, size, 0.3, convention, False).total / 1e9:.2f}"
        for convention in (RELEASED, HONEST)
        for size in ((320, 480), (256, 384))
    ]
    assert cells[:3] == ["rho 0.3", "120.5", "800x1066"]
    assert cells[3:7] == expected
    assert float(expected[0]) > 0


@pytest.mark.usefixtures("small_models")
def test_the_parts_of_a_model_add_up_to_its_total(capsys: pytest.CaptureFixture[str]) -> None:
    flop_table.main(["--backbones", "swint", "--keep-ratios", "0.1", "--sizes", "320x480"])
    text = capsys.readouterr().out.split("By part")[1]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    *parts, total = [float(cells[1]) for cells in rows[2:]]
    assert sum(parts) == pytest.approx(total, abs=0.0005 * len(parts))
    assert total > 0


@pytest.mark.parametrize("text", ["800", "800x0", "-1x5", "axb", "800x1066x3"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SystemExit):
        flop_table.main(["--sizes", text])
