"""A backbone alone: files of its pre-training to this project's names, and back.

The result serves ``train.backbone_weights``. Such a file is known by its names alone (see
:mod:`sparse_detr.backbone.pretrained_keys`).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from detectron2.config import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from ..backbone.pretrained_keys import RESNET, BackboneSource
from ..backbone.resnet_keys import detectron2_to_released
from ..backbone.swin_keys import project_to_released
from ..config.loading import load_config
from .conversion_errors import (
    ConversionError,
    require_all,
    require_finite,
    require_no_leftover,
    require_shapes,
)
from .report import ConversionReport

PREFIX = "backbone."

_CONFIGS = {RESNET: "sparse_detr/sparse_detr_r50_rho10_50ep"}
_SWIN_CONFIG = "sparse_detr/sparse_detr_swint_rho10_50ep"
_BLOCKS = {6: 50, 23: 101}


def backbone_from_file(source: BackboneSource) -> tuple[dict[str, Tensor], ConversionReport]:
    """Gives the weights of a backbone this project's names.

    Args:
        source: Where they are in the file.

    Returns:
        Tensors by name, ``backbone.`` before each, and what became of every key.

    Raises:
        ConversionError: A key is left over or missing, or a tensor is not what it has to be.
    """
    names = {key: source.name_here(key) for key in source.tensors}
    renamed = {name: source.tensors[key] for key, name in names.items() if name is not None}
    keys = {name: key for key, name in names.items() if name is not None}
    depth = _resnet_depth(renamed) if source.naming.family == RESNET else 0
    config = _CONFIGS.get(source.naming.family, _SWIN_CONFIG)
    expected = _shapes(config, depth)
    title = f"backbone, {f'ResNet-{depth}' if depth else 'Swin-T'} ({source.place})"
    report = ConversionReport(title, "from a file of pre-training")
    left: list[str] = []
    for key, name in names.items():
        if name in expected:
            report.mapped(key, PREFIX + name)
        elif (reason := source.ignored_reason(key) or _unused_norm(name)) is not None:
            report.ignored(key, reason)
        else:
            left.append(key)
    known = [source.prefix + key for key in _names_elsewhere(source, expected)]
    require_no_leftover(left, known)
    found = {name: tensor for name, tensor in renamed.items() if name in expected}
    missing = [name for name in expected if name not in found]
    norms = [name for name in missing if _unused_norm(name)]
    require_all([name for name in missing if name not in norms], "the backbone")
    for name in norms:
        report.reinitialised(PREFIX + name, "output norms, which no pre-training has")
    require_shapes(found, expected, keys)
    require_finite({keys[name]: tensor for name, tensor in found.items()})
    if depth not in (0, 50):
        report.remarks.append(f"the model needs model.backbone.stages.depth={depth}")
    return {PREFIX + name: tensor for name, tensor in found.items()}, report


def backbone_to_released(
    weights: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], ConversionReport]:
    """Gives a backbone of this project torchvision's (ResNet) or the Swin authors' names.

    Args:
        weights: Tensors by name, ``backbone.`` before each.

    Raises:
        ConversionError: A weight has no such name.
    """
    resnet = f"{PREFIX}stem.conv1.weight" in weights
    rename = detectron2_to_released if resnet else project_to_released
    layout = "torchvision's names" if resnet else "the Swin authors' names"
    report = ConversionReport(f"backbone of this project ({layout})", "to released")
    converted: dict[str, Tensor] = {}
    left: list[str] = []
    for name, tensor in weights.items():
        key = rename(name.removeprefix(PREFIX), prefix="") if name.startswith(PREFIX) else None
        if key is None:
            left.append(name)
        else:
            converted[key] = tensor
            report.mapped(name, key)
    require_no_leftover(left, [])
    require_finite(converted)
    return converted, report


def _resnet_depth(renamed: Mapping[str, Tensor]) -> int:
    blocks = len({name.split(".")[1] for name in renamed if name.startswith("res4.")})
    if blocks not in _BLOCKS or "res2.0.conv3.weight" not in renamed:
        raise ConversionError(
            f"the backbone is a ResNet with {blocks} blocks in its third stage; known are "
            "ResNet-50 (6 blocks of three convolutions) and ResNet-101 (23)"
        )
    return _BLOCKS[blocks]


def _shapes(config: str, depth: int) -> dict[str, list[int]]:
    tree = load_config(config)
    if depth:
        OmegaConf.update(tree, "model.backbone.stages.depth", depth)
    with torch.device("meta"):
        backbone = instantiate(tree.model.backbone)
    return {name: list(tensor.shape) for name, tensor in backbone.state_dict().items()}


def _unused_norm(name: str | None) -> str | None:
    """Why an output norm of Swin may lack its counterpart; None for other weights."""
    is_norm = name is not None and name.startswith("norm") and name[4:5].isdigit()
    return "output norm of a stage that is not returned" if is_norm else None


def _names_elsewhere(source: BackboneSource, expected: Mapping[str, list[int]]) -> list[str]:
    """Names of the expected weights in the source's own layout, as far as it is a plain one."""
    rename = detectron2_to_released if source.naming.family == RESNET else project_to_released
    return [key for name in expected if (key := rename(name, prefix="")) is not None]
