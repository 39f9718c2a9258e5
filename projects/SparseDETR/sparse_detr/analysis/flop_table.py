"""Prints the GFLOPs of the released models beside those of this project, as Markdown.

    python -m sparse_detr.analysis.flop_table --output gflops.md

Run configs give the models, with 91 classes as the released ones have. The first table has a row
per model: what the release prints, the same counted here by its convention, and what this project
runs. The second splits this project's count by part. See :mod:`.conventions` for what is counted.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import instantiate

from ..config.loading import load_config
from ..layers.backend import describe_backend
from ..meta_arch import TransformerDetector
from ..structures import Size
from .conventions import HONEST, RELEASED, FlopConvention
from .flop_count import PARTS, FlopCount, count_flops

RELEASED_CLASSES = 91
ORDERS: dict[str, bool | None] = {
    "automatic": None,
    "sample-first": True,
    "project-first": False,
}


@dataclass(frozen=True)
class ReleasedModel:
    """A row of the release's table.

    Attributes:
        title: As printed in tables here.
        config: Run config of the model.
        keep_ratio: Keeping ratio; None for a dense encoder.
        printed: GFLOPs that the release prints.
        counted_at: (height, width), pixels, that this figure was counted at: the release's table
            mixes two sizes.
    """

    title: str
    config: str
    keep_ratio: float | None
    printed: float
    counted_at: Size


_SPARSE_SIZE, _DENSE_SIZE = (800, 1066), (850, 1040)


def _models_of(
    backbone: str, dense: Sequence[float], sparse: Sequence[float]
) -> tuple[ReleasedModel, ...]:
    folder = "deformable_detr/deformable_detr"
    titles = (("Deformable DETR", "base"), ("dense, top-k queries", "topk_queries"))
    rows = [
        ReleasedModel(title, f"{folder}_{backbone}_{name}_50ep", None, gflops, _DENSE_SIZE)
        for (title, name), gflops in zip(titles, dense, strict=True)
    ]
    for tenths, gflops in enumerate(sparse, start=1):
        ratio = tenths / 10
        config = f"sparse_detr/sparse_detr_{backbone}_rho{tenths}0_50ep"
        rows.append(ReleasedModel(f"rho {ratio}", config, ratio, gflops, _SPARSE_SIZE))
    return tuple(rows)


RELEASED_MODELS = {
    "r50": _models_of("r50", (172.9, 177.3), (105.4, 112.9, 120.5, 128.0, 135.6)),
    "swint": _models_of("swint", (180.4, 184.8), (113.4, 121.0, 128.5, 136.1, 143.7)),
}


def build(config: str) -> TransformerDetector:
    """Gives the model of a run config with as many classes as the released ones, untrained.

    Args:
        config: Name of the run config.
    """
    tree = load_config(config).model
    tree.num_classes = RELEASED_CLASSES
    model: TransformerDetector = instantiate(tree)
    return model.eval()


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Gives a Markdown table.

    Args:
        header: Titles of the columns.
        rows: Cells, as many as there are titles.
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def totals_table(backbone: str, counts: Counts, sizes: Sequence[Size]) -> str:
    """Gives the table of totals of one backbone.

    Args:
        backbone: Key of :data:`RELEASED_MODELS`.
        counts: Counts by row, convention and size.
        sizes: Sizes of the columns.
    """
    header = ["model", "release prints", "counted at"]
    for title in ("released way", "this project"):
        header += [f"{title}, {_size(size)}" for size in sizes]
    header.append(f"saved at {_size(sizes[0])}")
    rows = []
    for row in RELEASED_MODELS[backbone]:
        if (row.title, HONEST.name, sizes[0]) not in counts:
            continue
        cells = [row.title, f"{row.printed:.1f}", _size(row.counted_at)]
        released, honest = (
            [counts[row.title, convention.name, size].total for size in sizes]
            for convention in (RELEASED, HONEST)
        )
        cells += [_giga(total, 2) for total in (*released, *honest)]
        cells.append(f"{100 * (1 - honest[0] / released[0]):.1f} %")
        rows.append(cells)
    return table(header, rows)


def parts_table(backbone: str, counts: Counts, size: Size, convention: FlopConvention) -> str:
    """Gives the table of parts of one backbone at one size.

    Args:
        backbone: Key of :data:`RELEASED_MODELS`.
        counts: Counts by row, convention and size.
        size: (height, width), pixels.
        convention: Which of the counts.
    """
    titles = [row.title for row in RELEASED_MODELS[backbone]]
    columns = {
        title: counts[title, convention.name, size]
        for title in titles
        if (title, convention.name, size) in counts
    }
    rows = [
        [part, *(_giga(count.by_part.get(part, 0), 3) for count in columns.values())]
        for part in PARTS
        if any(part in count.by_part for count in columns.values())
    ]
    rows.append(["**total**", *(_giga(count.total, 3) for count in columns.values())])
    return table(["part", *columns], rows)


Counts = dict[tuple[str, str, Size], FlopCount]


def count_models(
    backbone: str, sizes: Sequence[Size], ratios: Sequence[float] | None, order: bool | None
) -> Counts:
    """Gives the counts of the models of one backbone, by row, convention and size.

    Args:
        backbone: Key of :data:`RELEASED_MODELS`.
        sizes: (height, width) of the images, pixels.
        ratios: Keeping ratios to count; None counts all rows, dense ones too.
        order: Order of the deformable attention in this project's count; None is automatic.
    """
    counts: Counts = {}
    for row in RELEASED_MODELS[backbone]:
        if ratios is not None and row.keep_ratio not in ratios:
            continue
        model = build(row.config)
        for convention in (RELEASED, HONEST):
            forced = order if convention is HONEST else False
            for size in sizes:
                count = count_flops(
                    model, size, convention=convention, project_after_sampling=forced
                )
                counts[row.title, convention.name, size] = count
                note = f" (not counted: {count.uncounted})" if count.uncounted else ""
                print(
                    f"{backbone} {row.title}, {convention.name}, {_size(size)}: "
                    f"{_giga(count.total, 2)}{note}",
                    file=sys.stderr,
                )
    return counts


def main(arguments: Sequence[str] | None = None) -> None:
    """Counts and prints.

    Args:
        arguments: Of the command line; None takes the program's own.
    """
    options = _parser().parse_args(arguments)
    print(describe_backend("cpu"), file=sys.stderr)
    sections = []
    for backbone in options.backbones:
        counts = count_models(backbone, options.sizes, options.keep_ratios, ORDERS[options.order])
        sections += [
            f"GFLOPs, {backbone}:",
            totals_table(backbone, counts, options.sizes),
            f"By part, {backbone}, {_size(options.sizes[0])}, this project:",
            parts_table(backbone, counts, options.sizes[0], HONEST),
        ]
        if options.released_parts:
            sections += [
                f"By part, {backbone}, {_size(options.sizes[0])}, the released way:",
                parts_table(backbone, counts, options.sizes[0], RELEASED),
            ]
    text = "\n\n".join(sections) + "\n"
    if options.output is None:
        sys.stdout.write(text)
    else:
        options.output.write_text(text, encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sparse_detr.analysis.flop_table",
        description="GFLOPs of the released models and of this project, as Markdown tables.",
    )
    parser.add_argument(
        "--backbones", nargs="+", choices=tuple(RELEASED_MODELS), default=list(RELEASED_MODELS)
    )
    parser.add_argument(
        "--keep-ratios",
        nargs="+",
        type=float,
        metavar="RHO",
        help="only these rows (default: all, dense ones too)",
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=image_size,
        metavar="HxW",
        default=[_SPARSE_SIZE, _DENSE_SIZE],
        help="sizes of the network's input, pixels (default: 800x1066 850x1040)",
    )
    parser.add_argument(
        "--order",
        choices=tuple(ORDERS),
        default="automatic",
        help="whether deformable attention samples or projects first (default: its own choice)",
    )
    parser.add_argument(
        "--released-parts", action="store_true", help="also split the released way by part"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write there, not to the screen"
    )
    return parser


def image_size(text: str) -> Size:
    """Gives (height, width) from a text like "800x1066".

    Raises:
        argparse.ArgumentTypeError: It is not two positive integers.
    """
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected HEIGHTxWIDTH such as 800x1066")
    return int(match[1]), int(match[2])


def _size(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def _giga(count: int, digits: int) -> str:
    return f"{count / 1e9:.{digits}f}"


if __name__ == "__main__":
    main()
