"""Builds the detector that a golden case was made with, from the project's own configs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import LazyCall, instantiate
from torch import nn

from ..checkpoint.released_keys import from_released
from ..config.loading import load_config
from ..meta_arch import TransformerDetector

# Class logits by the released code's data set names: a hard-coded choice there.
_NUM_CLASSES = {"coco": 91, "twenty": 20}


def released_flags(flags: str) -> argparse.Namespace:
    """The released command-line flags of a case.

    Args:
        flags: For example ``--with_box_refine --two_stage --rho 0.3``.

    Raises:
        ValueError: A flag that this project knows nothing of.
    """
    parser = argparse.ArgumentParser(exit_on_error=False)
    for name in ("with_box_refine", "two_stage", "eff_query_init", "eff_specific_head"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--use_enc_aux_loss", action="store_true")
    parser.add_argument("--rho", type=float, default=0.0)
    known, unknown = parser.parse_known_args(flags.split())
    if unknown:
        raise ValueError(f"flags of the case must be known, got {unknown}")
    return known


def model_config(flags: argparse.Namespace, refinement_attached: bool) -> Any:
    """The model config that equals a set of released flags.

    Args:
        flags: Of :func:`released_flags`.
        refinement_attached: Whether box refinement without two stages works, as in Deformable
            DETR; the released Sparse DETR code builds the heads but never refines.

    Raises:
        ValueError: A combination that the released code cannot run.
    """
    if flags.rho and not flags.two_stage:
        raise ValueError("flags must have --two_stage where --rho is given")
    if flags.rho:
        name = "sparse_detr"
    elif flags.two_stage:
        name = "deformable_detr_two_stage"
    elif flags.with_box_refine:
        name = "deformable_detr_box_refinement"
    else:
        name = "deformable_detr"
    config = load_config(f"models/{name}")
    model = config.model
    model.released_behaviour = True
    model.heads.encoder_auxiliary = flags.use_enc_aux_loss
    model.heads.individual = flags.with_box_refine or flags.use_enc_aux_loss
    if flags.rho:
        model.keep_ratio = flags.rho
    if flags.two_stage:
        model.query_selection.class_specific = flags.eff_specific_head
        model.query_selection.content_from_memory = flags.eff_query_init
    elif flags.with_box_refine:
        model.decoder.refine_boxes = refinement_attached
    return config


def small_model(meta: Mapping[str, Any]) -> TransformerDetector:
    """The detector of a small case, without backbone, in float64 and training mode.

    Args:
        meta: Entry of ``cases.json``: flags, channels, refine_fix and sizes ``kw``.
    """
    config = model_config(released_flags(meta["flags"]), bool(meta["refine_fix"]))
    model, sizes = config.model, meta["kw"]
    model.backbone = LazyCall(nn.Identity)()
    model.feature_projection.in_channels = {
        f"feat{i}": channels for i, channels in enumerate(meta["channels"])
    }
    model.hidden_dim = sizes["hidden_dim"]
    model.num_classes = _NUM_CLASSES[sizes["dataset_file"]]
    model.encoder.num_heads = sizes["nheads"]
    model.encoder.num_layers = sizes["enc_layers"]
    model.encoder.num_points = sizes.get("enc_n_points", 4)
    model.encoder.feedforward_dim = sizes["dim_feedforward"]
    model.encoder.dropout = 0.0
    model.decoder.num_layers = sizes["dec_layers"]
    model.decoder.num_points = sizes.get("dec_n_points", 4)
    model.query_selection.num_queries = sizes["num_queries"]
    detector: TransformerDetector = instantiate(model)
    return detector.double().train()


def load_released(model: nn.Module, weights: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, str]:
    """Loads transformer weights that are given under released keys; every parameter must get one.

    Args:
        model: A :class:`TransformerDetector`; its backbone is left alone.
        weights: Arrays by released key.

    Returns:
        Released key of each parameter, by the parameter's name here.

    Raises:
        ValueError: A key without parameter, or a parameter without key.
    """
    parameters = dict(model.named_parameters())
    names: dict[str, str] = {}
    for key, array in weights.items():
        name = from_released(key)
        if name is None or name not in parameters:
            raise ValueError(f"weights must belong to the model, got {key!r} (here: {name!r})")
        with torch.no_grad():
            parameters[name].copy_(torch.from_numpy(np.asarray(array)))
        names[name] = key
    missing = [n for n in parameters if n not in names and not n.startswith("backbone.")]
    if missing:
        raise ValueError(f"weights must cover the whole model, missing {_first(missing)}")
    return names


def _first(names: Sequence[str], count: int = 5) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
