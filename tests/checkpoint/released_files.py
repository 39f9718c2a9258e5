"""Files in the released format, drawn from seeds."""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from torch import Tensor

from sparse_detr.checkpoint.detector_conversion import detector_to_released
from sparse_detr.checkpoint.released_keys import is_alias
from sparse_detr.checkpoint.stored_config import StoredConfig
from sparse_detr.testing.seed_recipe import seeded_tensor

SPARSE_ARGUMENTS = {
    "lr": 2e-4,
    "lr_backbone_names": ["backbone.0"],
    "with_box_refine": True,
    "two_stage": True,
    "eff_query_init": True,
    "eff_specific_head": True,
    "use_enc_aux_loss": True,
    "rho": 0.1,
    "num_queries": 300,
    "position_embedding_scale": 6.283185307179586,
    "dataset_file": "coco",
    "device": "cuda",
}


def window_index() -> Tensor:
    """(49, 49) offsets of all pairs of tokens of a window, written out pair by pair."""
    return torch.tensor(
        [[13 * (a // 7 - b // 7 + 6) + (a % 7 - b % 7 + 6) for b in range(49)] for a in range(49)]
    )


def seeded_state(listing: Path, seed: int = 0) -> dict[str, Tensor]:
    """The state dict of a list of names and shapes; heads under all their names."""
    entry = json.loads(listing.read_text())
    state: dict[str, Tensor] = {}
    for key, shape in entry["keys"].items():
        if key.endswith("relative_position_index"):
            state[key] = window_index()
        else:
            name = head_name(key, entry)
            state[key] = torch.from_numpy(seeded_tensor(name, shape, seed)).float()
    return state


def head_name(key: str, entry: dict[str, Any]) -> str:
    """The top-level name of a head, of which the same tensor may have several."""
    group = {key, entry["alias"].get(key, key)}
    group |= {other for other, source in entry["alias"].items() if source in group}
    heads = sorted(k for k in group if not is_alias(k))
    return heads[0] if heads else key


def save_released(state: dict[str, Tensor], path: Path, **arguments: Any) -> Path:
    """Writes a checkpoint as the released training does."""
    content = {
        "model": state,
        "optimizer": {"state": {0: {"step": 1}}, "param_groups": [{"lr": 2e-4, "params": [0]}]},
        "lr_scheduler": {"step_size": 40, "last_epoch": 50},
        "epoch": 49,
        "args": argparse.Namespace(**arguments),
    }
    torch.save(content, path)
    return path


# Config and changes of every kind of detector that was released, or that a released program makes.
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "sparse": ("sparse_detr/sparse_detr_r50_rho10_50ep", ()),
    "sparse, ratio of no config": (
        "sparse_detr/sparse_detr_r50_rho20_50ep",
        ("model.keep_ratio=0.23",),
    ),
    "sparse without auxiliary heads": (
        "sparse_detr/sparse_detr_r50_rho30_50ep",
        ("model.heads.encoder_auxiliary=False",),
    ),
    "sparse, Swin-T": ("sparse_detr/sparse_detr_swint_rho50_50ep", ()),
    "sparse, ResNet-101": (
        "sparse_detr/sparse_detr_r50_rho10_50ep",
        ("model.backbone.stages.depth=101",),
    ),
    "sparse, 12 encoder layers": (
        "sparse_detr/sparse_detr_r50_rho10_50ep",
        ("model.encoder.num_layers=12",),
    ),
    "single stage": ("deformable_detr/deformable_detr_r50_base_50ep", ()),
    "single stage, Swin-T": ("deformable_detr/deformable_detr_swint_base_50ep", ()),
    "box refinement": ("deformable_detr/deformable_detr_r50_box_refinement_50ep", ()),
    "box refinement without effect": (
        "deformable_detr/deformable_detr_r50_base_50ep",
        ("model.heads.individual=True",),
    ),
    "two-stage": ("deformable_detr/deformable_detr_r50_two_stage_50ep", ()),
    "two-stage, one head": (
        "deformable_detr/deformable_detr_r50_topk_queries_50ep",
        ("model.heads.individual=False",),
    ),
    "top-k": ("deformable_detr/deformable_detr_r50_topk_queries_50ep", ()),
    "top-k, 100 queries, 20 classes": (
        "deformable_detr/deformable_detr_r50_topk_queries_50ep",
        ("model.query_selection.num_queries=100", "model.num_classes=20"),
    ),
    "single scale": ("deformable_detr/deformable_detr_r50_single_scale_50ep", ()),
    "single scale, dilated": ("deformable_detr/deformable_detr_r50_single_scale_dc5_50ep", ()),
}


def variant_config(name: str) -> StoredConfig:
    """The config of a variant with the released behaviour and, unless it says so, 91 logits."""
    config, changes = VARIANTS[name]
    usual = ("model.num_classes=91", "model.released_behaviour=True")
    return StoredConfig(config, usual + changes)


def variant_arguments(name: str) -> dict[str, Any]:
    """What the released training of a variant would have said of itself."""
    model = variant_config(name).load().model
    two_stage = bool(model.heads.two_stage)
    return {
        "rho": model.keep_ratio or 0.0,
        "num_queries": model.query_selection.num_queries,
        "with_box_refine": bool(model.heads.individual),
        "use_enc_aux_loss": bool(model.heads.encoder_auxiliary),
        "eff_specific_head": two_stage and bool(model.query_selection.class_specific),
        "dilation": "dc5" in VARIANTS[name][0],
    }


@functools.cache
def plain_weights(config: StoredConfig) -> dict[str, Tensor]:
    """Weights of the model by their names here: a number of its own for each, rows apart.

    They share one value's memory along all axes but the first, so that full size costs nothing.
    """
    with torch.device("meta"):
        model = instantiate(config.load().model)
    weights: dict[str, Tensor] = {}
    for number, (name, tensor) in enumerate(model.state_dict().items()):
        rows = number + torch.arange(tensor.shape[0]) / 4096
        weights[name] = rows.view(-1, *[1] * (tensor.dim() - 1)).expand(tensor.shape)
    return weights


@functools.cache
def released_variant(name: str) -> dict[str, Tensor]:
    """A variant under its released names, heads under all of theirs, rows as category ids."""
    config = variant_config(name)
    return detector_to_released(plain_weights(config), config, {}, classes_sorted=False).weights
