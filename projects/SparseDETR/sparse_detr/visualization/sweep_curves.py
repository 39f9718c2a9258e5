"""AP, Corr and GFLOPs over the keeping ratio: what a sweep found, as a picture.

Role in the flow: after :mod:`sparse_detr.evaluation.keep_ratio_sweep`; needs its file only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .curves import COLOURS, prepare_axes

Point = Mapping[str, Any]
Reading = Callable[[Point], float | None]

_MARKERS = ("^", "s", "D", "v", "P", "X")


def draw_sweep(points: Sequence[Point], output: str | os.PathLike[str]) -> Path:
    """Writes a PNG: AP and Corr against the share of kept tokens, and AP against GFLOPs.

    Plain keeping ratios are joined by a line; other forms have markers of their own.

    Args:
        points: As the sweep stores them.
        output: The file to write; its folder must exist.

    Returns:
        ``output`` as a path.

    Source: Sparse DETR, Figure 7.
    """
    figure = Figure(figsize=(11, 4), dpi=110, layout="constrained")
    by_ratio, by_cost = figure.subplots(1, 2)
    prepare_axes(by_ratio, "AP and Corr over the keeping ratio")
    prepare_axes(by_cost, "AP over cost")
    corr = by_ratio.twinx()
    corr.spines["top"].set_visible(False)
    _draw(by_ratio, points, _share, _precision, COLOURS[0])
    _draw(corr, points, _share, _corr, COLOURS[1])
    _draw(by_cost, points, _gflops, _precision, COLOURS[0])
    _write_ratios(by_cost, points)
    by_ratio.set_xlabel("share of tokens that the encoder updates")
    by_ratio.set_xlim(0, 1.04)
    by_ratio.set_ylabel("AP", color=COLOURS[0])
    corr.set_ylabel("Corr", color=COLOURS[1])
    corr.set_ylim(0, 1.04)
    by_cost.set_xlabel("GFLOPs per image (multiply-adds)")
    by_cost.set_ylabel("AP", color=COLOURS[0])
    for axes in (by_ratio, by_cost):
        axes.margins(y=0.12)
    if not all(_is_plain(point) for point in points):
        by_cost.legend(frameon=False, fontsize=9, loc="lower right")
    figure.savefig(output)
    return Path(output)


def _share(point: Point) -> float | None:
    share: float | None = point["sparsity"].get("keep_ratio")
    return share


def _corr(point: Point) -> float | None:
    corr: float | None = point["sparsity"].get("corr")
    return corr


def _precision(point: Point) -> float | None:
    precision: float | None = point["bbox"].get("AP")
    return precision


def _gflops(point: Point) -> float | None:
    gflops: float | None = (point["gflops"] or {}).get("mean")
    return gflops


def _is_plain(point: Point) -> bool:
    return ":" not in point["keep_ratio"]


def _draw(axes: Axes, points: Sequence[Point], x_of: Reading, y_of: Reading, colour: str) -> None:
    """Draws one curve; points without a number are left out."""
    known = [p for p in points if x_of(p) is not None and y_of(p) is not None]
    plain = sorted((p for p in known if _is_plain(p)), key=lambda p: x_of(p) or 0.0)
    xs, ys = [_number(x_of(p)) for p in plain], [_number(y_of(p)) for p in plain]
    axes.plot(xs, ys, "o-", color=colour, lw=1.6, ms=4)
    others = [p["keep_ratio"] for p in points if not _is_plain(p)]
    for point in (p for p in known if not _is_plain(p)):
        text = point["keep_ratio"]
        marker = _MARKERS[others.index(text) % len(_MARKERS)]
        # White edges keep markers apart from the line and from each other.
        axes.plot(
            [_number(x_of(point))],
            [_number(y_of(point))],
            marker,
            color=colour,
            ms=8,
            mec="white",
            label=text,
        )


def _write_ratios(axes: Axes, points: Sequence[Point]) -> None:
    """Writes the plain ratios beside their points of AP over cost."""
    known = [p for p in points if _precision(p) is not None and _gflops(p) is not None]
    for point in filter(_is_plain, known):
        text = point["keep_ratio"]
        axes.annotate(
            "all" if text == "1" else text,
            (_number(_gflops(point)), _number(_precision(point))),
            xytext=(4, -12),
            textcoords="offset points",
            fontsize=8,
            color="0.35",
        )


def _number(value: float | None) -> float:
    assert value is not None
    return value
