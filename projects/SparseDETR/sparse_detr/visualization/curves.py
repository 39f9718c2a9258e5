"""Loss and AP curves of a run, from the `metrics.json` that Detectron2's writer leaves.

Role in the flow: after training; needs the log only, no model and no data.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Curve = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""Iterations, ascending, and the value at each; NaN where it was not a number."""

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LOSS_TERMS = {
    "loss_class": "class",
    "loss_bbox": "box L1",
    "loss_giou": "box GIoU",
    "loss_decoder_attention_map": "token scoring loss",
}
_ENOUGH_POINTS_FOR_A_LINE = 30


def read_metrics(path: str | os.PathLike[str]) -> dict[str, Curve]:
    """Gives every logged scalar of a run.

    Lines of a run that was resumed from an earlier iteration replace those that followed it; a last
    line cut short by a kill is left out.

    Args:
        path: `metrics.json`: one json object per line, each with "iteration".

    Returns:
        Curve by name.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no scalar with an iteration.
    """
    values: dict[str, dict[int, float]] = {}
    last = -1
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
            iteration = int(entry.pop("iteration"))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        if iteration < last:
            _forget_after(values, iteration)
        last = iteration
        for name, value in entry.items():
            if value is None or isinstance(value, int | float):
                values.setdefault(name, {})[iteration] = math.nan if value is None else float(value)
    if not values:
        raise ValueError(f"{os.fspath(path)} holds no line with an iteration and a scalar")
    return {name: _as_curve(points) for name, points in values.items()}


def _forget_after(values: Mapping[str, dict[int, float]], iteration: int) -> None:
    for points in values.values():
        for late in [i for i in points if i >= iteration]:
            del points[late]


def _as_curve(points: Mapping[int, float]) -> Curve:
    iterations = sorted(points)
    return np.array(iterations, dtype=np.int64), np.array([points[i] for i in iterations])


def draw_curves(metrics: str | os.PathLike[str], output: str | os.PathLike[str]) -> Path:
    """Writes a PNG with total loss, its main terms, AP and what the token selection did.

    Args:
        metrics: `metrics.json` of a run.
        output: The file to write; its folder must exist.

    Returns:
        ``output`` as a path.

    Raises:
        FileNotFoundError: There is no such log.
        ValueError: It holds no scalars.
    """
    curves = read_metrics(metrics)
    figure = Figure(figsize=(11, 7), dpi=110, layout="constrained")
    ((total, terms), (precision, selection)) = figure.subplots(2, 2, sharex=True)
    _plot(total, "Loss, all heads together", {"total_loss": "total"}, curves)
    _plot(terms, "Loss terms of the last decoder layer", _LOSS_TERMS, curves)
    _plot_precision(precision, curves)
    _plot_selection(selection, curves)
    for axes in (precision, selection):
        axes.set_xlabel("iteration")
    figure.savefig(output)
    return Path(output)


def prepare_axes(axes: Axes, title: str) -> None:
    """Gives axes the title and the look of all plots here."""
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _plot(
    axes: Axes, title: str, names: Mapping[str, str], curves: Mapping[str, Curve], empty: str = ""
) -> None:
    """Draws the curves that there are; ``names`` maps a logged name to its label."""
    prepare_axes(axes, title)
    found = {label: curves[name] for name, label in names.items() if _has_numbers(curves, name)}
    for (label, (iterations, values)), colour in zip(found.items(), COLOURS, strict=False):
        marker = "o" if len(iterations) < _ENOUGH_POINTS_FOR_A_LINE else None
        axes.plot(iterations, values, color=colour, label=label, lw=1.6, marker=marker, ms=3.5)
    if len(found) > 1:
        axes.legend(frameon=False, fontsize=9)
    if not found:
        note = empty or "not logged"
        axes.set_yticks([])
        axes.text(0.5, 0.5, note, ha="center", va="center", transform=axes.transAxes, color="0.4")


def _has_numbers(curves: Mapping[str, Curve], name: str) -> bool:
    return name in curves and bool(np.isfinite(curves[name][1]).any())


def _plot_precision(axes: Axes, curves: Mapping[str, Curve]) -> None:
    names = {"bbox/AP": "AP", "bbox/AP50": "AP50", "bbox/AP75": "AP75"}
    _plot(axes, "AP on the evaluation images", names, curves, "no evaluation was logged")
    if not _has_numbers(curves, "bbox/AP"):
        return
    axes.set_ylim(0, 100)
    iterations, values = curves["bbox/AP"]
    known = np.isfinite(values)
    iteration, value = iterations[known][-1], values[known][-1]
    axes.annotate(
        f"{value:.1f}",
        (float(iteration), float(value)),
        xytext=(-4, -14),
        textcoords="offset points",
        ha="right",
        color=COLOURS[0],
    )


def _plot_selection(axes: Axes, curves: Mapping[str, Curve]) -> None:
    """Draws Corr on the left axis and kept tokens on the right one."""
    empty = "no token selection was logged"
    _plot(axes, "Token selection", {"corr": "Corr"}, curves, empty)
    if _has_numbers(curves, "corr"):
        axes.set_ylim(0, 1)
        axes.set_ylabel("Corr", color=COLOURS[0])
    if _has_numbers(curves, "kept_tokens"):
        twin = axes.twinx()
        twin.spines["top"].set_visible(False)
        iterations, values = curves["kept_tokens"]
        twin.plot(iterations, values, color=COLOURS[1], lw=1.2, ls="--")
        twin.set_ylim(0, 1.15 * float(np.nanmax(values)))
        twin.set_ylabel("kept tokens per image", color=COLOURS[1])
