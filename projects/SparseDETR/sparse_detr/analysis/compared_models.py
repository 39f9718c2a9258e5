"""All systems with what was published about them, and the same models counted here.

Source: READMEs and logs of the released codes, the papers' tables where they could be read. A
figure without a source that could be read again is left out (None).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig, OmegaConf

from ..config.loading import load_config
from ..meta_arch import TransformerDetector
from ..structures import Size
from .conventions import HONEST, RELEASED, RELEASED_WITH_NORMS, FlopConvention
from .flop_count import count_flops
from .image_sizes import size_text
from .parameter_count import count_parameters
from .released_models import DENSE_SIZE, RELEASED_CLASSES, RELEASED_MODELS, SPARSE_SIZE

COMPARED_SIZE = SPARSE_SIZE
DINO_SIZES: tuple[Size, ...] = ((800, 1333), (800, 1101))
_README, _DINO_README = "Sparse DETR's README", "DINO's README; paper of Focus-DETR, table 1"
_FOCUS, _LOG = "paper of Focus-DETR, table 1", "SMCA's release, log"

# Epochs, AP, parameters in millions, GFLOPs, source.
Published = tuple[int | None, float | None, float | None, float | None, str]


@dataclass(frozen=True)
class ComparedModel:
    """A row of the comparison.

    Attributes:
        title: As printed in tables here.
        config: Run config of the model.
        epochs: Of the published training; None where none was published.
        average_precision: Published, COCO val2017.
        megaparameters: Published, millions.
        gigaflops: Published.
        source: Of the published figures.
        parameters: (all, trainable) of the model as released; None where nobody has counted it.
        keep_ratio: None takes the config's own.
        num_classes: As released.
        convention: Counts what the released code's counter would.
        released_counts: GFLOPs that fvcore gives for the released code, in the digits noted, by
            size of the network's input.
    """

    title: str
    config: str
    epochs: int | None
    average_precision: float | None
    megaparameters: float | None
    gigaflops: float | None
    source: str
    parameters: tuple[int, int] | None = None
    keep_ratio: float | None = None
    num_classes: int = RELEASED_CLASSES
    convention: FlopConvention = RELEASED
    released_counts: tuple[tuple[Size, str], ...] = ()

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Sizes to count at, the compared one first."""
        return tuple(dict.fromkeys((COMPARED_SIZE, *(size for size, _ in self.released_counts))))


def _detr(
    title: str, config: str, trainable: int, published: Published, *counts: str, **more: Any
) -> ComparedModel:
    """A row of DETR's line, whose stem and first stage are frozen."""
    found = tuple(zip((DENSE_SIZE, COMPARED_SIZE), counts, strict=False))
    parameters = (trainable + 222_400, trainable)
    return ComparedModel(
        title, config, *published, parameters=parameters, released_counts=found, **more
    )


def _smca(
    title: str, config: str, trainable: int, published: Published, *counts: str
) -> ComparedModel:
    return _detr(title, f"smca/{config}", trainable, published, *counts, num_classes=92)


def _dino(
    title: str, config: str, trainable: int | None, published: Published, *counts: str
) -> ComparedModel:
    """A row of DINO's line, whose stem is frozen."""
    found = tuple(zip((COMPARED_SIZE, *DINO_SIZES), counts, strict=False))
    parameters = None if trainable is None else (trainable + 9_408, trainable)
    return ComparedModel(
        title, config, *published, parameters=parameters, released_counts=found,
        num_classes=80, convention=RELEASED_WITH_NORMS,
    )  # fmt: skip


def _sparse_detr_rows() -> Iterable[ComparedModel]:
    for row in RELEASED_MODELS:
        if row.backbone == "r50":
            title = row.title if "DETR" in row.title else f"Sparse DETR, {row.title}"
            if row.keep_ratio is None and title != row.title:
                title = f"Deformable DETR, {row.title.removeprefix('dense, ')}"
            yield ComparedModel(
                title, row.config, 50, row.average_precision, row.megaparameters, row.gigaflops,
                _README, keep_ratio=row.keep_ratio,
                released_counts=((row.counted_at, f"{row.gigaflops}"),),
            )  # fmt: skip


# Trainable parameters, what was published, then GFLOPs of the released code.
COMPARED_MODELS: tuple[ComparedModel, ...] = (
    _detr("DETR", "detr/detr_r50_500ep", 41_302_368, (500, 42.0, 41, 86, _README),
          "84.88", "81.26"),
    _detr("DETR", "detr/detr_r50_50ep", 41_302_368, (50, 35.0, 41, 86, _README),
          "84.88", "81.26"),
    _detr("DETR-DC5", "detr/detr_r50_dc5_500ep", 41_302_368, (500, 43.3, 41, 187, _FOCUS),
          "182.93", "173.31"),
    _detr("PnP-DETR, ratio 0.333", "pnp_detr/pnp_detr_r50_500ep", 41_441_919,
          (500, 41.1, None, None, _README), "77.81", keep_ratio=0.333),
    _detr("PnP-DETR, ratio 0.5", "pnp_detr/pnp_detr_r50_500ep", 41_441_919,
          (500, 41.8, None, None, _README), "79.51", keep_ratio=0.5),
    _detr("PnP-DETR-DC5, ratio 0.333", "pnp_detr/pnp_detr_r50_dc5_500ep", 41_459_909,
          (500, 42.7, None, None, _README), "130.47", keep_ratio=0.333),
    _detr("PnP-DETR-DC5, ratio 0.5", "pnp_detr/pnp_detr_r50_dc5_500ep", 41_459_909,
          (500, 43.1, None, None, _README), "141.29", keep_ratio=0.5),
    _smca("SMCA, single scale", "smca_r50_50ep", 41_538_082,
          (50, 41.0, None, None, "SMCA's README"), "87.66", "84.01"),
    _smca("SMCA, single scale, fixed prior", "smca_r50_fixed_scale_50ep", 41_513_410,
          (50, 38.5, None, None, "paper of SMCA, ablation"), "87.65", "84.00"),
    _smca("SMCA, convolutions", "smca_multi_scale_r50_50ep", 40_763_514,
          (50, 44.4, 40.76, None, _LOG), "171.06", "164.13"),
    _smca("SMCA, convolutions, none of 1x1", "smca_multi_scale_no_pointwise_r50_50ep", 39_974_010,
          (50, 43.71, 39.97, None, _LOG)),
    _smca("SMCA, separate convolutions", "smca_multi_scale_separate_r50_50ep", 39_977_338,
          (None, None, None, None, "SMCA's release, code"), "157.64", "151.24"),
    _smca("SMCA, separate convolutions of 7x7", "smca_multi_scale_separate_7x7_r50_50ep",
          41_070_714, (50, 44.26, 41.07, None, _LOG)),
    _smca("SMCA, reconstruction of the paper", "smca_multi_scale_reconstruction_r50_50ep",
          39_529_908, (50, 43.7, 40, 152, "paper of SMCA"), "142.0", "134.2"),
    *_sparse_detr_rows(),
    _dino("DINO, 4 scales", "dino/dino_r50_4scale_36ep", 47_640_908,
          (36, 50.9, 47, 279, _DINO_README), "237.3", "292.7", "244.1"),
    _dino("Sparse DETR on DINO, rho 0.3", "dino/sparse_dino_r50_4scale_rho30_36ep", None,
          (36, 48.2, 47, 152, _FOCUS)),
    _dino("Focus-DETR on DINO, 4 scales", "focus_detr/focus_detr_r50_36ep", 49_330_512,
          (36, 50.4, 48, 154, _FOCUS), "149.6", "183.2", "153.8"),
)  # fmt: skip


def build_compared_model(row: ComparedModel, device: str = "cpu") -> TransformerDetector:
    """Gives the untrained model of a row, with as many classes as the released one.

    Args:
        row: Row of the table.
        device: "meta" gives names and shapes without values, which parameters are counted from.
    """
    tree = load_config(row.config).model
    tree.num_classes = row.num_classes
    return untrained_model(tree, device)


def untrained_model(tree: DictConfig, device: str = "cpu") -> TransformerDetector:
    """Gives the untrained model of a config's key ``model``, in evaluation mode.

    Args:
        tree: What stands below the key.
        device: As :func:`build_compared_model` takes it.
    """
    with torch.device(device):
        model: TransformerDetector = instantiate(tree)
    return model.eval()


def distinct_models(rows: Iterable[ComparedModel] = COMPARED_MODELS) -> list[ComparedModel]:
    """Gives the first row of each model: what differs in the training alone shares one.

    Args:
        rows: Rows of the table.
    """
    found: dict[str, ComparedModel] = {}
    for row in rows:
        tree = load_config(row.config).model
        if row.keep_ratio is not None:
            tree.keep_ratio = row.keep_ratio
        found.setdefault(OmegaConf.to_yaml(tree), row)
    return list(found.values())


def compared_parameters(row: ComparedModel) -> list[int]:
    """Gives all and the trainable parameters of a row's model.

    Args:
        row: Row of the table.
    """
    count = count_parameters(build_compared_model(row, "meta"))
    return [count.total, count.trainable]


def count_compared_models(
    rows: Iterable[ComparedModel] = COMPARED_MODELS,
    tell: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Gives the figures of rows: plain data, in single parameters and multiply-adds.

    Args:
        rows: Rows of the table.
        tell: Is told what is being counted; it takes minutes.
    """
    figures = []
    for row in rows:
        tell(row.title)
        model = build_compared_model(row)
        counts = {
            size_text(size): count_flops(model, size, row.keep_ratio, row.convention).total
            for size in row.sizes
        }
        own = count_flops(model, COMPARED_SIZE, row.keep_ratio, HONEST).total
        figures.append({
            "title": row.title,
            "config": row.config,
            "parameters": compared_parameters(row),
            "released": counts,
            "honest": own,
        })  # fmt: skip
    return figures
