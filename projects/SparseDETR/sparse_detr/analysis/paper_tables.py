"""The page that puts paper, release and this project side by side.

Role: ``tools/make_paper_tables.py`` counts the figures, keeps them as JSON and writes the page from
them. All text and every number of the page comes from here and from those figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..benchmarking.tables import markdown_table
from .conventions import HONEST, RELEASED, RELEASED_AS_BUILT
from .encoder_layer_cost import EncoderLayerSize, encoder_layer_flops
from .image_sizes import size_text
from .model_analysis import giga, parts_table
from .released_models import (
    BACKBONES,
    DENSE_SIZE,
    RELEASED_MODELS,
    SCRL_AVERAGE_PRECISION,
    SPARSE_SIZE,
    ReleasedModel,
)

Figures = Mapping[str, Any]
_SMALL, _LARGE = size_text(SPARSE_SIZE), size_text(DENSE_SIZE)
# The released models' encoder layers, and the tokens of 800x1066.
_LAYER = EncoderLayerSize(256, 8, 4, 4, 1024)
_TOKENS = 17821

_TOP = """# The paper's tables

Made by

```sh
python tools/make_paper_tables.py --sizes sizes.csv
```

where `sizes.csv` has the columns `height` and `width` of images: here of the first 100 images of
COCO val2017. It counts for minutes and keeps what it counted in `paper_tables.json`;
`--from-figures` writes the page again from that file. Any other detector:
`python tools/analyze_model.py --config-file CONFIG`.

**Release** is what the README of the released code prints (it names the paper's Table 1 for more);
models of the run configs, with 91 classes as released, are counted here. 1 multiply-add is 1 FLOP
throughout.
"""

_ACCURACY = """## Accuracy and parameters

No model of this project has been trained on COCO yet, hence "not trained". Parameters count as the
release counts them: trainable ones, without the encoder's auxiliary heads (only training needs
those). Images per second are the release's own, four images at a time on its GPU; nothing here was
measured on such a machine.
"""

_SCRL = """ResNet-50 with a backbone that starts from SCRL's weights instead of ImageNet's, AP:
"""

_CONVENTIONS = """## GFLOPs

- **release way**: what the released code computes, by its convention: 4 per sampled value, no
  frozen batch norms, predictions of all decoder layers, first-stage boxes of all tokens, box heads
  twice, every token projected in every attention; without the encoder's auxiliary heads.
- **as built**: the same with those heads, which the released code also runs at inference.
- **this project**: what this project runs at inference, every multiply-add of the sampling included
  ([performance.md](performance.md#gflops) says how operators count).
"""


def render_page(figures: Figures) -> str:
    """Gives the page.

    Args:
        figures: Of :func:`count_released_models`.
    """
    sections = [
        _TOP,
        _ACCURACY,
        *(_titled(BACKBONES[b], accuracy_table(b, figures)) for b in BACKBONES),
        _SCRL + "\n" + scrl_table(),
        _CONVENTIONS,
        *(_titled(BACKBONES[b], gflops_table(b, figures)) for b in BACKBONES),
        _two_sizes(figures),
        _savings(figures),
        _one_layer(),
        _parts(figures),
    ]
    return "\n\n".join(section.strip("\n") for section in sections) + "\n"


def _titled(title: str, text: str) -> str:
    return f"{title}:\n\n{text}"


def _rows_of(backbone: str, figures: Figures) -> list[tuple[ReleasedModel, Figures]]:
    pairs = zip(RELEASED_MODELS, figures["models"], strict=True)
    return [(row, model) for row, model in pairs if row.backbone == backbone]


def accuracy_table(backbone: str, figures: Figures) -> str:
    """Gives AP and parameters, release and here.

    Args:
        backbone: Key of :data:`BACKBONES`.
        figures: Of :func:`count_released_models`.
    """
    header = ["model", "AP, release", "AP, here", "images/s, release", "images/s, here",
              "parameters, release", "parameters, here",
              "with all heads and frozen ones"]  # fmt: skip
    rows = []
    for row, model in _rows_of(backbone, figures):
        own = model["parameters"]
        rows.append(
            [row.title, f"{row.average_precision}", "not trained", f"{row.images_per_second}",
             "not measured", f"{row.megaparameters} M", f"{own['as_released'] / 1e6:.3f} M",
             f"{own['all'] / 1e6:.3f} M"]
        )  # fmt: skip
    return markdown_table(header, rows)


def scrl_table() -> str:
    """Gives the release's AP with SCRL's backbone weights."""
    rows = [row for row in RELEASED_MODELS if row.backbone == "r50" and row.keep_ratio is not None]
    return markdown_table(
        ["model", "ImageNet, release", "SCRL, release", "here"],
        [
            [row.title, f"{row.average_precision}", f"{scrl}", "not trained"]
            for row, scrl in zip(rows, SCRL_AVERAGE_PRECISION, strict=True)
        ],
    )


def gflops_table(backbone: str, figures: Figures) -> str:
    """Gives GFLOPs as printed, as counted where they were counted, and like for like.

    Args:
        backbone: Key of :data:`BACKBONES`.
        figures: Of :func:`count_released_models`.
    """
    mean = f"mean of {figures['images']}"
    header = ["model", "release prints", "release way, at the size it was counted at"]
    header += [f"release way, {size}" for size in (_SMALL, _LARGE, mean)]
    header += [f"as built, {_LARGE}", *(f"this project, {s}" for s in (_SMALL, _LARGE, mean))]
    rows = []
    for row, model in _rows_of(backbone, figures):
        released, as_built, own = (
            model[convention.name] for convention in (RELEASED, RELEASED_AS_BUILT, HONEST)
        )
        at = size_text(row.counted_at)
        totals = [*(released[key] for key in (_SMALL, _LARGE, "mean")), as_built[_LARGE]]
        totals += [own[key] for key in (_SMALL, _LARGE, "mean")]
        cells = [row.title, f"{row.gigaflops:.1f}", f"{giga(released[at], 1)} at {at}"]
        rows.append([*cells, *(giga(total, 2) for total in totals)])
    return markdown_table(header, rows)


def _two_sizes(figures: Figures) -> str:
    height, width = figures["mean_size"]
    return f"""## The release's table mixes two image sizes

Counted at its own size each of the {len(RELEASED_MODELS)} rows comes out as printed, to the
digit: the dense rows at {_LARGE}, the sparse rows at {_SMALL} and without the encoder's auxiliary
heads. {_SMALL} is what an image of 480x640 becomes; {_LARGE} is close to {height:.0f}x{width:.0f},
the mean of the {figures["images"]} images. So the sparse rows are printed about 4 % too low to
stand beside the dense ones. The likely cause, not proven: the released counting function prints the
mean over images and returns the value of the last one."""


def _savings(figures: Figures) -> str:
    """What keeping few tokens saves, by each way of counting."""
    header = ["", "as printed", f"release way, {_SMALL}", f"release way, {_LARGE}",
              f"release way, mean of {figures['images']}", f"as built, {_LARGE}",
              f"this project, {_SMALL}", f"this project, mean of {figures['images']}"]  # fmt: skip
    ways: list[Callable[[ReleasedModel, Figures], float]] = [
        lambda row, model: row.gigaflops,
        *(_figure(RELEASED.name, key) for key in (_SMALL, _LARGE, "mean")),
        _figure(RELEASED_AS_BUILT.name, _LARGE),
        *(_figure(HONEST.name, key) for key in (_SMALL, "mean")),
    ]
    rows = []
    for backbone, name in BACKBONES.items():
        _, dense, *sparse = _rows_of(backbone, figures)
        for row, model in sparse:
            cells = (f"{100 * (way(row, model) / way(*dense) - 1):.1f} %" for way in ways)
            rows.append([f"{name}, {row.title}", *cells])
    table = markdown_table(header, rows)
    return f"""## What the keeping ratio saves

GFLOPs against the dense model with top-k queries. The paper's abstract gives 38 % less computation
(and 42 % more images per second) for 10 % of the tokens: the like-for-like figure of ResNet-50.

{table}"""


def _figure(convention: str, key: str) -> Callable[[ReleasedModel, Figures], float]:
    def of_row(row: ReleasedModel, model: Figures) -> float:
        return float(model[convention][key])

    return of_row


def _one_layer() -> str:
    rows = []
    for ratio in (0.1, 0.2, 0.3, 0.5, 1.0):
        kept = min(int(_TOKENS * ratio) + 1, _TOKENS)
        both = [encoder_layer_flops(kept, _TOKENS, _LAYER, first) for first in (False, True)]
        rows.append([f"{ratio}", f"{kept:,}", *(giga(count, 3) for count in both)])
    table = markdown_table(["keeping ratio", "K", "projects first", "samples first"], rows)
    return f"""## One encoder layer by hand

A layer that updates K of N tokens, with C channels, H heads, L levels, P points and F channels
between the two linear layers, counts

- K (3 H L P C + C²) for offsets, attention logits and the output projection,
- N C² + K H L P (4 C/H + 12) for reading, if all tokens are projected first, or
  K H L P (4 C + 12) + K C (C + 1), if tokens are sampled first and what was read is projected,
- K (2 C F + 10 C) for the feed-forward network and two norms.

`sparse_detr.analysis.encoder_layer_flops` is this formula; the traced count equals it exactly. The
first term of the usual order, N C², is the floor that keeping fewer tokens does not lower; sampling
first has none. GFLOPs of one layer of the released models at {_SMALL} (N = {_TOKENS:,}):

{table}

`sparse_detr.analysis.DetectorCost(model).flops(image_size, kept)` is the same for a whole detector,
and `.kept_within(image_size, budget)` the number of tokens that a budget allows."""


def _parts(figures: Figures) -> str:
    sections = ["## By part"]
    for backbone, name in BACKBONES.items():
        rows = _rows_of(backbone, figures)
        for convention, way in ((HONEST, "this project"), (RELEASED, "release way")):
            columns = [model[convention.name]["by_part"] for _, model in rows]
            sections.append(
                _titled(
                    f"GFLOPs, {name}, {_SMALL}, {way}",
                    parts_table([row.title for row, _ in rows], columns, 6, markdown=True),
                )
            )
    return "\n\n".join(sections)


def check_figures(figures: Figures) -> Sequence[str]:
    """Gives the rows whose parameters or GFLOPs are not as the release prints them.

    Args:
        figures: Of :func:`count_released_models`.
    """
    wrong = []
    for row, model in zip(RELEASED_MODELS, figures["models"], strict=True):
        got = model[RELEASED.name][size_text(row.counted_at)]
        parameters = model["parameters"]["as_released"]
        printed = (f"{row.gigaflops:.1f}", f"{row.megaparameters:.1f}")
        if (giga(got, 1), f"{parameters / 1e6:.1f}") != printed:
            wrong.append(f"{row.backbone} {row.title}")
    return wrong
