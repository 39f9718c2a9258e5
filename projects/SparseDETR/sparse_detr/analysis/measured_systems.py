"""Latency and training memory of all systems: what is measured, and its part of the page.

Role: ``tools/make_comparison.py`` measures, keeps the records as JSON and writes the page from
them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from ..benchmarking.compared_systems import COMPARED_WAYS
from ..benchmarking.machine import machine_sentence
from ..benchmarking.model_tables import blocks_text
from ..benchmarking.model_ways import Setting
from ..benchmarking.tables import markdown_table, megabytes, spread_text
from ..config.loading import load_config
from ..structures import Size
from .compared_models import COMPARED_MODELS, ComparedModel, distinct_models

LATENCY_SIZE: Size = (480, 640)
TRAINING_SIZE: Size = (640, 640)
TRAINING_BATCH = 2
REFERENCE = "Deformable DETR, top-k queries"
NOT_MEASURED = "Not measured yet."
# Each training step of PnP-DETR draws its ratio, and with it the memory.
_DRAWN_RATIOS = "training_ratios"
_BLOCKS = ("rejected_blocks", "disturbed_blocks")
_WIDTH = 100

Record = Mapping[str, Any]


def latency_settings(rows: Iterable[ComparedModel] = COMPARED_MODELS) -> dict[str, Setting]:
    """Gives what latency is measured of, by title: each model once.

    Args:
        rows: Rows of the table.
    """
    return {
        row.title: Setting(*LATENCY_SIZE, 1, row.keep_ratio, system=row.config)
        for row in distinct_models(rows)
    }


def training_settings(rows: Iterable[ComparedModel] = COMPARED_MODELS) -> dict[str, Setting]:
    """Gives what training memory is measured of, by title: each model once, at its row's ratio.

    Args:
        rows: Rows of the table.
    """
    settings = {}
    for row in distinct_models(rows):
        selection = load_config(row.config).model.token_selection
        drawn = selection is not None and _DRAWN_RATIOS in selection
        overrides = [f"model.token_selection.{_DRAWN_RATIOS}=null"] if drawn else []
        settings[row.title] = Setting(
            *TRAINING_SIZE, TRAINING_BATCH, row.keep_ratio, system=row.config, overrides=overrides
        )
    return settings


def latency_section(record: Record | None) -> str:
    """Gives the page's part on latency.

    Args:
        record: What :func:`..benchmarking.compared_systems.measure_latency` gave; None where
            nothing has been measured.
    """
    heading = "## Latency"
    if record is None:
        return f"{heading}\n\n{NOT_MEASURED}"
    reference, note = record["reference"], record["note"]
    text = (
        "All systems in one process, in one interleaved run: a round runs one block of each, "
        f"{record['rounds']} rounds count. From the uint8 image to Instances, {_images(record)}, "
        "float32, random weights, 80 classes; milliseconds, median (smallest to largest of the "
        "rounds). *As built*: the detector as it is trained. *Optimised*: after "
        "`optimize_for_inference`, exact. *Faster*: how many times faster than "
        f"{reference} in the same round and way. A model that serves several rows of the first "
        f"table, which differ in training alone, stands here once. {note[0].upper()}{note[1:]}."
    )
    header = ["model", "as built, ms", "optimised, ms", "as built, faster", "optimised, faster",
              "blocks"]  # fmt: skip
    rows = []
    for model in record["models"]:
        ways = [model["ways"][way] for way in COMPARED_WAYS]
        rows.append([
            model["title"],
            *(spread_text(way["ms"]) for way in ways),
            *(spread_text(way["faster_than_reference"], "x") for way in ways),
            blocks_text({key: sum(way[key] for way in ways) for key in _BLOCKS}),
        ])  # fmt: skip
    measured_on = f"{machine_sentence(record['machine'])}."
    return section(heading, text, measured_on, table=markdown_table(header, rows))


def training_memory_section(record: Record | None) -> str:
    """Gives the page's part on the memory of a training step.

    Args:
        record: What :func:`..benchmarking.compared_systems.measure_training_memory` gave; None
            where nothing has been measured.
    """
    heading = "## Memory of a training step"
    if record is None:
        return f"{heading}\n\n{NOT_MEASURED}"
    text = (
        "The most that is alive at once during a step with AdamW (its state, the weights and the "
        f"images do not count; gradients do), {_images(record)}, 12 objects each, 80 classes, "
        "float32, no activation checkpointing; each model in a fresh process "
        "([performance.md](performance.md#method) says how). Sparse DETR's rows have the "
        "encoder's auxiliary heads, DINO's line its denoising queries. PnP-DETR draws the ratio "
        "of each step; here the row's own is held."
    )
    rows = [
        [model["title"], megabytes(model["peak_bytes"]), megabytes(model["gradient_bytes"])]
        for model in record["models"]
    ]
    measured_on = f"{machine_sentence(record['machine'])}."
    table = markdown_table(["model", "peak, MB", "of which gradients, MB"], rows)
    return section(heading, text, measured_on, table=table)


def section(heading: str, *paragraphs: str, table: str) -> str:
    """Gives a part of a page, its paragraphs in lines of the usual length.

    Args:
        heading: With its signs.
        paragraphs: Each one line.
        table: Markdown.
    """
    return "\n\n".join((heading, *map(paragraph, paragraphs), table))


def paragraph(text: str) -> str:
    """Gives a text in lines of the usual length."""
    return textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _images(record: Record) -> str:
    images = record["images"]
    count = "one image" if images["batch"] == 1 else f"{images['batch']} images"
    return f"{count} of {images['height']} x {images['width']}"
