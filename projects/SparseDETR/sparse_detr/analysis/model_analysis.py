"""A detector's parameters and GFLOPs as a report, and the report as text or Markdown.

Role: what ``tools/analyze_model.py`` prints. The report is plain data; the tables are made from it,
so a report that was kept as JSON holds all that is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..benchmarking.tables import table
from ..meta_arch import TransformerDetector
from ..structures import Size
from ..token_selection import KeepRatio
from .conventions import FlopConvention
from .flop_count import PARTS
from .image_sizes import size_text
from .parameter_count import count_parameters
from .size_set_cost import SizeSetCost, SizeSetCounter

_ENCODER_PARTS = ("encoder attention", "encoder feed-forward")
_ORDERS = {None: "as each attention chooses", True: "sample first", False: "project first"}
# Columns of their own up to this number of sizes; the mean alone beyond.
_MOST_SIZES = 4


def analyze(
    model: TransformerDetector,
    sizes: Sequence[Size],
    ratios: Sequence[KeepRatio | None],
    conventions: Sequence[FlopConvention],
    project_after_sampling: bool | None = None,
) -> dict[str, Any]:
    """Gives the report of a detector: plain data for JSON.

    Args:
        model: The detector, in evaluation mode.
        sizes: (height, width) of the network's input, one for each image.
        ratios: Keeping ratios to count; None for a dense encoder.
        conventions: What is counted.
        project_after_sampling: Order of deformable attention, as :func:`count_flops` takes it. The
            release's conventions count the same in both orders.
    """
    parameters = count_parameters(model)
    counts: list[dict[str, Any]] = []
    uncounted: set[str] = set()
    for convention in conventions:
        counter = SizeSetCounter(model, convention, project_after_sampling)
        for ratio, cost in zip(ratios, counter(sizes, ratios), strict=True):
            counts.append(_count_entry(convention, ratio, cost, len(model.encoder.layers)))
        uncounted |= counter.uncounted
    return {
        "num_classes": model.num_classes,
        "order": _ORDERS[project_after_sampling],
        "parameters": {
            "all": parameters.total,
            "trainable": parameters.trainable,
            "trainable_backbone": parameters.trainable_backbone,
            "as_the_release_counts": parameters.as_released,
            "by_part": {
                part: {"all": every, "trainable": trainable}
                for part, (every, trainable) in parameters.by_part.items()
            },
        },
        "flops": counts,
        "uncounted_operators": sorted(uncounted),
    }


def _count_entry(
    convention: FlopConvention, ratio: KeepRatio | None, cost: SizeSetCost, layers: int
) -> dict[str, Any]:
    return {
        "convention": convention.name,
        "keep_ratio": None if ratio is None else str(ratio),
        "mean": cost.mean,
        "mean_by_part": cost.mean_by_part,
        "encoder_layers": layers,
        "sizes": [
            {
                "size": size_text(size),
                "images": images,
                "tokens": cost.tokens[size],
                "kept": list(cost.kept[size]),
                "total": cost.total(size),
                "by_part": cost.by_size[size],
            }
            for size, images in cost.images.items()
        ],
    }


def report_text(report: Mapping[str, Any], markdown: bool) -> str:
    """Gives the tables of a report.

    Args:
        report: Of :func:`analyze`.
        markdown: Markdown tables instead of aligned columns.
    """
    first = report["flops"][0]
    images = sum(entry["images"] for entry in first["sizes"])
    over = f"{first['sizes'][0]['size']}" if images == 1 else f"mean over {images} images"
    conventions = list(dict.fromkeys(entry["convention"] for entry in report["flops"]))
    sections = [
        f"Parameters, millions ({report['num_classes']} classes)",
        parameters_table(report["parameters"], markdown),
        f"GFLOPs of one image, 1e9 multiply-adds (deformable attention: {report['order']})",
        totals_table(report["flops"], markdown),
    ]
    for convention in conventions:
        entries = [entry for entry in report["flops"] if entry["convention"] == convention]
        sections += [
            f"GFLOPs by part, {convention}, {over}",
            parts_table(
                [_title(entry) for entry in entries],
                [entry["mean_by_part"] for entry in entries],
                first["encoder_layers"],
                markdown,
            ),
        ]
    if report["uncounted_operators"]:
        names = ", ".join(report["uncounted_operators"])
        sections.append(f"Not counted, although they may compute: {names}")
    return "\n\n".join(sections) + "\n"


def parameters_table(parameters: Mapping[str, Any], markdown: bool) -> str:
    """Gives the table of parameters by part.

    Args:
        parameters: Those of a report.
        markdown: Markdown instead of aligned columns.
    """
    rows = [
        [part, _millions(counts["all"]), _millions(counts["trainable"])]
        for part, counts in parameters["by_part"].items()
    ]
    trainable, backbone = parameters["trainable"], parameters["trainable_backbone"]
    rows += [
        [_bold("all", markdown), _millions(parameters["all"]), _millions(trainable)],
        ["all but the backbone", "", _millions(trainable - backbone)],
        ["as the release counts", "", _millions(parameters["as_the_release_counts"])],
    ]
    return table(["part", "all", "trainable"], rows, markdown)


def totals_table(entries: Sequence[Mapping[str, Any]], markdown: bool) -> str:
    """Gives the table of totals: a row for each convention and keeping ratio.

    Args:
        entries: Counts of a report.
        markdown: Markdown instead of aligned columns.
    """
    sizes = entries[0]["sizes"]
    images = sum(size["images"] for size in sizes)
    shown = sizes if len(sizes) <= _MOST_SIZES else []
    header = ["keeping ratio", "convention", *(size["size"] for size in shown)]
    if images > 1:
        header.append(f"mean of {images} images")
        if not shown:
            header += ["least", "most"]
    rows = []
    for entry in entries:
        totals = [size["total"] for size in entry["sizes"]]
        cells = totals[: len(shown)]
        if images > 1:
            cells = [*cells, entry["mean"]]
            if not shown:
                cells += [min(totals), max(totals)]
        rows.append([_title(entry), entry["convention"], *(giga(cell, 2) for cell in cells)])
    return table(header, rows, markdown)


def parts_table(
    titles: Sequence[str],
    columns: Sequence[Mapping[str, float]],
    encoder_layers: int,
    markdown: bool,
) -> str:
    """Gives a table of GFLOPs by part of the flow.

    Args:
        titles: Of the columns.
        columns: Multiply-adds by part.
        encoder_layers: Layers E of the encoder, for the share of one of them.
        markdown: Markdown instead of aligned columns.
    """
    rows = []
    for part in PARTS:
        if any(column.get(part) for column in columns):
            rows.append([part, *(giga(column.get(part, 0), 3) for column in columns)])
        if part == _ENCODER_PARTS[-1]:
            sums = (sum(column.get(name, 0) for name in _ENCODER_PARTS) for column in columns)
            rows.append(["(one encoder layer, mean)", *(giga(s / encoder_layers, 3) for s in sums)])
    totals = [giga(sum(column.values()), 3) for column in columns]
    rows.append([_bold("total", markdown), *totals])
    return table(["part", *titles], rows, markdown)


def giga(count: float, digits: int) -> str:
    """Gives 1e9 as a text with some decimals."""
    return f"{count / 1e9:.{digits}f}"


def _title(entry: Mapping[str, Any]) -> str:
    return "dense" if entry["keep_ratio"] is None else f"rho {entry['keep_ratio']}"


def _bold(text: str, markdown: bool) -> str:
    return f"**{text}**" if markdown else text


def _millions(count: int) -> str:
    return f"{count / 1e6:.3f}"
