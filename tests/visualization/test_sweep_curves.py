"""A sweep is drawn whatever it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sparse_detr.visualization.sweep_curves import draw_sweep


def point(text: str, share: float, precision: float | None, corr: float | None) -> dict[str, Any]:
    return {
        "keep_ratio": text,
        "bbox": {"AP": precision} if precision is not None else {},
        "sparsity": {"keep_ratio": share, "corr": corr},
        "gflops": {"mean": 10 * share + 1},
    }


def coloured(file: Path, colour: tuple[int, int, int]) -> int:
    """Pixels of a colour."""
    return int((np.asarray(Image.open(file).convert("RGB")) == colour).all(-1).sum())


def test_precision_and_corr_are_drawn(tmp_path: Path) -> None:
    points = [point("0.3", 0.3, 40.0, 0.7), point("0.1", 0.1, 38.0, 0.4), point("1", 1, 41.0, 1.0)]
    with_both = draw_sweep(points, tmp_path / "both.png")
    blue, orange = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)
    assert coloured(with_both, blue) > 300 and coloured(with_both, orange) > 150
    without = [{**p, "sparsity": {**p["sparsity"], "corr": None}} for p in points]
    assert coloured(draw_sweep(without, tmp_path / "one.png"), orange) < coloured(with_both, orange)


def test_other_forms_and_missing_figures_do_not_stop_it(tmp_path: Path) -> None:
    points = [point("mass:0.9", 0.2, 39.0, 0.6), point("0.1", 0.1, None, 0.4)]
    assert draw_sweep(points, tmp_path / "few.png").is_file()
    assert draw_sweep([], tmp_path / "none.png").is_file()
