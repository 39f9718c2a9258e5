"""The page that puts all systems side by side.

Role: ``tools/make_comparison.py`` counts the figures, keeps them as JSON and writes the page from
them. All text and every number of the page comes from here and from those figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..benchmarking.tables import markdown_table
from .compared_models import COMPARED_MODELS, COMPARED_SIZE, ComparedModel
from .image_sizes import size_text
from .measured_systems import latency_section, paragraph, training_memory_section
from .model_analysis import giga
from .small_budget import small_budget_section

Figures = Mapping[str, Any]
MODELS, LATENCY = "models", "latency"
TRAINING_MEMORY, SMALL_BUDGET = "training_memory", "small_budget"
_SIZE = size_text(COMPARED_SIZE)

_TOP = f"""# All systems side by side

Made by `python tools/make_comparison.py`, which counts for minutes and keeps what it counted in
`comparison.json`; `--latency`, `--training-memory` and `--small-budget FOLDER` put in what they
measure or read, `--from-figures` writes the page again from that file. Backbone: ResNet-50, small
budget aside.

- **AP**, COCO val2017, is what was published; no model of this project has been trained on COCO
  yet. Sources print AP after training for unequal numbers of epochs.
- **Published** parameters and GFLOPs are as their sources print them, each counted its own way and
  at its own image sizes: they do not compare. "-" where no source could be read.
- **Counted here**: all and trainable parameters, with as many classes as released (DETR's line and
  Deformable DETR's 91, SMCA 92, DINO's line 80), and GFLOPs of one image of {_SIZE}, 1
  multiply-add as 1 FLOP: what this project runs at inference, and what the released code computes,
  by its convention ([performance.md](performance.md#gflops) says how operators count).
- Sparse DETR's rows have the encoder's auxiliary heads among the parameters, which only training
  needs; what was published leaves them out."""

# Key of the figures, what it is, and its part of the page.
_MEASURED: tuple[tuple[str, str, Callable[[Figures | None], str]], ...] = (
    (LATENCY, "latency of all systems in one interleaved run", latency_section),
    (TRAINING_MEMORY, "memory of a training step", training_memory_section),
    (SMALL_BUDGET, "AP after an equal small budget on the drawn shapes", small_budget_section),
)

_CHECKED = """## Against counts of the released codes

fvcore has been run on the released codes themselves (on a reconstruction for the paper's
multi-scale SMCA, whose code was not published); the same sizes counted here, GFLOPs. For the
Deformable DETR and Sparse DETR rows it is what the release prints, at the size it was counted at
([paper_tables.md](paper_tables.md))."""

_DIFFERENCES = """## Where the two ways of counting differ

- **Frozen batch norms.** DETR, SMCA, PnP-DETR and Sparse DETR write them out as element-wise
  arithmetic, which fvcore does not see: not counted. DINO and Focus-DETR run them as one operator,
  which fvcore counts 2 per element: counted in their rows of the released way. This project counts
  them.
- **Predictions.** The released codes predict after every decoder layer; this project at inference
  after the last, but for the boxes that refine the next layer's. Released two-stage code predicts
  first-stage boxes for all tokens and runs each box head twice.
- **Sampling.** fvcore counts 4 per value that `grid_sample` gives; this project also the arithmetic
  of locations and weights, and attentions with few queries sample first and then project.
- **SMCA's prior** is element-wise arithmetic in the released code and not counted; here it is four
  more channels of queries and keys, and counted.
- **PnP-DETR's pooling** reads the tokens that were not polled in the released code; here all of
  them, masked, so that the batch may hold different sizes.
- Softmax, activations, additions count nothing either way. The published 86 (DETR) and 187
  (DETR-DC5) are means over images by a counter whose other copies count such operators too; that
  this is the gap to the counts here is likely, not proven.
- DINO's published 279 comes from another counter than the 154 beside it: the same counter gives
  DINO {dino} and Focus-DETR {focus} at {size}, {saving} less instead of 45 %."""


def render_comparison(figures: Figures) -> str:
    """Gives the page.

    Args:
        figures: ``{"models": ...}`` with what :func:`count_compared_models` gives; what has been
            measured under keys of its own.

    Raises:
        ValueError: The models have not been counted.
    """
    if MODELS not in figures:
        raise ValueError("the models have not been counted: run make_comparison.py without options")
    pairs = list(zip(COMPARED_MODELS, figures[MODELS], strict=True))
    measured = [part(figures.get(key)) for key, _, part in _MEASURED]
    return "\n\n".join(
        (_TOP, *_missing(figures), _table(pairs), *measured, _CHECKED, _checked(pairs),
         _differences(pairs))
    ) + "\n"  # fmt: skip


def _missing(figures: Figures) -> list[str]:
    """A paragraph on what has not been measured; none where all has."""
    missing = [what for key, what, _ in _MEASURED if key not in figures]
    return [paragraph(f"**Not measured yet**: {'; '.join(missing)}.")] if missing else []


def _table(pairs: Sequence[tuple[ComparedModel, Figures]]) -> str:
    header = ["model", "epochs", "AP", "parameters, published", "parameters, all",
              "parameters, trainable", "GFLOPs, published", f"GFLOPs, this project, {_SIZE}",
              f"GFLOPs, released way, {_SIZE}", "source of what was published"]  # fmt: skip
    rows = []
    for row, model in pairs:
        every, trainable = model["parameters"]
        rows.append([
            row.title, _or_dash(row.epochs), _or_dash(row.average_precision),
            _or_dash(row.megaparameters, " M"), f"{every:,}", f"{trainable:,}",
            _or_dash(row.gigaflops), giga(model["honest"], 2),
            giga(model["released"][_SIZE], 2), row.source,
        ])  # fmt: skip
    return markdown_table(header, rows)


def _checked(pairs: Sequence[tuple[ComparedModel, Figures]]) -> str:
    rows = []
    for row, model in pairs:
        for size, released in row.released_counts:
            here = model["released"][size_text(size)]
            rows.append(
                [_name(row), size_text(size), released, giga(here, 3), _gap(here, released)]
            )
    header = ["model", "size", "released code", "released way, here", "difference"]
    return markdown_table(header, rows)


def _differences(pairs: Sequence[tuple[ComparedModel, Figures]]) -> str:
    size = "800x1101"
    dino, focus = (
        next(float(m["released"][size]) for r, m in pairs if r.title.startswith(title))
        for title in ("DINO", "Focus-DETR")
    )
    saving = f"{100 * (1 - focus / dino):.0f} %"
    return _DIFFERENCES.format(
        dino=giga(dino, 1), focus=giga(focus, 1), size=size, saving=saving
    )  # fmt: skip


def _name(row: ComparedModel) -> str:
    return f"{row.title}, {row.epochs} epochs" if row.title == "DETR" else row.title


def _or_dash(value: float | None, unit: str = "") -> str:
    return "-" if value is None else f"{value}{unit}"


def _gap(here: float, released: str) -> str:
    """Difference in the digits of the released count; "none" where none shows."""
    digits = len(released.partition(".")[2])
    gap = round(float(giga(here, digits)) - float(released), digits)
    return f"{gap:+.{digits}f}" if gap else "none"


def differing_rows(figures: Figures) -> list[str]:
    """Gives the rows whose parameters or GFLOPs are not those of the released code.

    Args:
        figures: ``{"models": ...}`` with what :func:`count_compared_models` gives.
    """
    wrong = []
    for row, model in zip(COMPARED_MODELS, figures["models"], strict=True):
        as_counted = row.parameters in (None, tuple(model["parameters"]))
        for size, released in row.released_counts:
            as_counted &= _gap(model["released"][size_text(size)], released) == "none"
        if not as_counted:
            wrong.append(_name(row))
    return wrong
