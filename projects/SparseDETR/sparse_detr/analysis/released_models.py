"""The release's table, and the same models counted here.

Source: README of the released code, which refers to Table 1 of the paper for more; the sizes that
its GFLOPs were counted at are not stated there and were found by counting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import instantiate

from ..config.loading import load_config
from ..meta_arch import TransformerDetector
from ..structures import Size
from ..token_selection import Uniform
from .conventions import HONEST, RELEASED, RELEASED_AS_BUILT
from .image_sizes import size_text
from .parameter_count import count_parameters
from .size_set_cost import SizeSetCounter

RELEASED_CLASSES = 91
SPARSE_SIZE, DENSE_SIZE = (800, 1066), (850, 1040)
SIZES: tuple[Size, ...] = (SPARSE_SIZE, DENSE_SIZE)
BACKBONES = {"r50": "ResNet-50", "swint": "Swin-T"}
CONVENTIONS = (HONEST, RELEASED, RELEASED_AS_BUILT)


@dataclass(frozen=True)
class ReleasedModel:
    """A row of the release's table.

    Attributes:
        backbone: Key of :data:`BACKBONES`.
        title: As printed in tables here.
        config: Run config of the model.
        keep_ratio: Keeping ratio; None for a dense encoder.
        average_precision: AP that the release prints.
        megaparameters: Parameters that it prints, millions.
        gigaflops: GFLOPs that it prints.
        images_per_second: That it prints, four images at a time on a GPU.
        counted_at: (height, width), pixels, that its GFLOPs were counted at.
    """

    backbone: str
    title: str
    config: str
    keep_ratio: float | None
    average_precision: float
    megaparameters: float
    gigaflops: float
    images_per_second: float
    counted_at: Size


def _rows(backbone: str, printed: Sequence[tuple[float, ...]]) -> Iterator[ReleasedModel]:
    dense = f"deformable_detr/deformable_detr_{backbone}"
    kinds: list[tuple[str, str, float | None]] = [
        ("Deformable DETR", f"{dense}_base_50ep", None),
        ("dense, top-k queries", f"{dense}_topk_queries_50ep", None),
    ]
    for tenths in range(1, 6):
        config = f"sparse_detr/sparse_detr_{backbone}_rho{tenths}0_50ep"
        kinds.append((f"rho {tenths / 10}", config, tenths / 10))
    for (title, config, ratio), (ap, mega, giga, fps) in zip(kinds, printed, strict=True):
        size = DENSE_SIZE if ratio is None else SPARSE_SIZE
        yield ReleasedModel(backbone, title, config, ratio, ap, mega, giga, fps, size)


# AP, parameters, GFLOPs, images per second: as printed.
RELEASED_MODELS: tuple[ReleasedModel, ...] = (
    *_rows("r50", (
        (43.9, 39.8, 172.9, 19.1), (46.0, 40.8, 177.3, 18.2),
        (45.3, 40.9, 105.4, 26.5), (45.6, 40.9, 112.9, 24.8), (46.0, 40.9, 120.5, 23.2),
        (46.2, 40.9, 128.0, 21.8), (46.3, 40.9, 135.6, 20.5),
    )),
    *_rows("swint", (
        (45.7, 40.3, 180.4, 15.9), (48.0, 41.3, 184.8, 15.4),
        (48.2, 41.4, 113.4, 21.2), (48.8, 41.4, 121.0, 20.0), (49.1, 41.4, 128.5, 18.9),
        (49.2, 41.4, 136.1, 18.0), (49.3, 41.4, 143.7, 17.2),
    )),
)  # fmt: skip

# AP of ResNet-50 rows, keeping ratios 0.1 to 0.5, whose backbone started from SCRL's weights.
SCRL_AVERAGE_PRECISION = (46.9, 47.2, 47.4, 47.7, 47.9)


def build_released_model(config: str, device: str = "cpu") -> TransformerDetector:
    """Gives the model of a run config with as many classes as the released ones, untrained.

    Args:
        config: Name of the run config.
        device: "meta" gives names and shapes without values, which parameters are counted from.
    """
    tree = load_config(config).model
    tree.num_classes = RELEASED_CLASSES
    with torch.device(device):
        model: TransformerDetector = instantiate(tree)
    return model.eval()


def parameter_figures(row: ReleasedModel) -> dict[str, int]:
    """Gives the parameters of a row's model: all, trainable, and as the release counts.

    Args:
        row: Row of the table.
    """
    count = count_parameters(build_released_model(row.config, "meta"))
    return {
        "all": count.total,
        "trainable": count.trainable,
        "as_released": count.as_released,
        "trainable_backbone": count.trainable_backbone,
    }


def count_released_models(
    images: Sequence[Size], tell: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Gives the figures of all rows: plain data, in single parameters and multiply-adds.

    Args:
        images: Sizes of the network's input for some images, over which means are taken.
        tell: Is told what is being counted; it takes minutes.
    """
    models = []
    model, counters = "", {}
    for row in RELEASED_MODELS:
        figures: dict[str, Any] = {"config": row.config, "parameters": parameter_figures(row)}
        # Sparse rows differ in their keeping ratio alone: what was found for one serves all.
        name = row.config if row.keep_ratio is None else f"{row.backbone} sparse"
        if name != model:
            model, counters = name, _counters(row)
        for convention in CONVENTIONS:
            tell(f"{row.backbone}, {row.title}, {convention.name}")
            figures[convention.name] = _figures(counters[convention.name], row, images)
        models.append(figures)
    return {
        "images": len(images),
        "distinct_sizes": len(set(images)),
        "mean_size": [round(sum(side) / len(images), 1) for side in zip(*images, strict=True)],
        "models": models,
    }


def _counters(row: ReleasedModel) -> dict[str, SizeSetCounter]:
    """What counts a row's model, by name of the convention."""
    model = build_released_model(row.config)
    counters = {c.name: SizeSetCounter(model, c) for c in CONVENTIONS}
    if row.keep_ratio is None:  # no auxiliary heads
        counters[RELEASED_AS_BUILT.name] = counters[RELEASED.name]
    return counters


def _figures(counter: SizeSetCounter, row: ReleasedModel, images: Sequence[Size]) -> dict[str, Any]:
    """Figures of a row by one convention."""
    ratio = None if row.keep_ratio is None else Uniform(row.keep_ratio)
    [mean] = counter(images, [ratio])
    [fixed] = counter(SIZES, [ratio])
    return {
        "mean": mean.mean,
        **{size_text(size): fixed.total(size) for size in SIZES},
        "by_part": fixed.by_size[SPARSE_SIZE],
    }
