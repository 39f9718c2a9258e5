"""A sweep over keeping ratios as a table and as a page.

Role in the flow: reads the JSON content that :class:`~.keep_ratio_sweep.KeepRatioSweep` stores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..benchmarking.machine import machine_lines
from ..benchmarking.tables import significant, spread_text, table

DENSE_TEXT = "1"

_HEADER = (
    *("keeping ratio", "tokens kept", "share", "AP", "APs", "APm", "APl", "Corr"),
    *("objects with kept tokens", "GFLOPs", "ms (min to max)"),
)


def sweep_table(report: Mapping[str, Any], markdown: bool) -> str:
    """Gives one row per keeping ratio, the dense one last.

    Args:
        report: Content of the sweep's file.
        markdown: A table in Markdown instead of aligned text.
    """
    points = ordered_points(report)
    times = (report["latency"] or {}).get("milliseconds", {})
    rows = []
    for point in points:
        name, sparsity, precision = point["keep_ratio"], point["sparsity"], point["bbox"]
        # Poll and pool leaves some tokens to the pool at any ratio.
        keeps_all = name == DENSE_TEXT and sparsity.get("keep_ratio", 1) == 1
        rows.append(
            (
                f"{name} (all tokens)" if keeps_all else name,
                _number(sparsity.get("kept_tokens"), 1),
                _number(sparsity.get("keep_ratio"), 3),
                *(_number(precision.get(key), 1) for key in ("AP", "APs", "APm", "APl")),
                _number(sparsity.get("corr"), 3),
                _number(sparsity.get("objects_with_kept_tokens"), 3),
                significant(point["gflops"]["mean"], 4) if point["gflops"] else "-",
                spread_text(times[name]) if name in times else "-",
            )
        )
    return table(_HEADER, rows, markdown)


def ordered_points(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Gives the points in the order in which they were measured, the dense one last."""
    points = list(report["points"].values())
    return sorted(points, key=lambda point: point["keep_ratio"] == DENSE_TEXT)


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def sweep_page(report: Mapping[str, Any], picture: str) -> str:
    """Gives the sweep as a Markdown page.

    Args:
        report: Content of the sweep's file.
        picture: File of the plot, relative to the page.
    """
    settings, latency = report["settings"], report["latency"]
    lines = ["# One checkpoint over keeping ratios", "", sweep_table(report, markdown=True), ""]
    lines += [f"![AP, Corr and GFLOPs over the keeping ratio]({picture})", ""]
    lines += [f"- {name.replace('_', ' ')}: {value}" for name, value in settings.items()]
    lines += [f"- {line}" for line in machine_lines(report["machine"])]
    if latency is not None:
        machine = latency.get("machine", report["machine"])
        lines.append(
            f"- ms: one image per call, median over {latency['num_images']} images with the fastest"
            f" and the slowest image, all ratios in turn; {latency['threads']} threads, "
            f"{machine.get('device')}, {machine.get('processor')}; "
            f"{latency['note']}; {latency['disturbed_blocks']} disturbed blocks were taken"
        )
    lines += [
        "- GFLOPs: multiply-adds, 1e9, of an image with the tokens that it kept; mean",
        "- Corr: share of the decoder's attention that falls on kept tokens",
    ]
    return "\n".join(lines) + "\n"
