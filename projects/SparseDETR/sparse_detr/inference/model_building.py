"""A detector with its weights, ready to predict.

Role in the flow: the start of every program that uses a trained model.
"""

from __future__ import annotations

import os

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig

from ..config.loading import load_config
from ..data.datasets import resolve_num_classes
from ..engine.devices import resolve_device
from ..engine.errors import UserError, user_errors
from ..engine.weights import load_weights
from ..meta_arch import TransformerDetector
from ..token_selection import KeepRatioLike
from .optimization import Precision, optimize_for_inference

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def build_model_for_inference(
    config: DictConfig | str | os.PathLike[str],
    weights: str | os.PathLike[str] | None,
    device: str = "auto",
    keep_ratio: KeepRatioLike | None = None,
    optimize: Precision | None = None,
    dtype: torch.dtype | str | None = None,
) -> TransformerDetector:
    """Gives the detector of a config in evaluation mode, with the weights of a checkpoint.

    The checkpoint is read as plain tensors; code in it is never run. Where it holds a moving
    average of the weights, that is used, as evaluation during training does.

    Args:
        config: A config tree, or what :func:`sparse_detr.config.loading.load_config` takes.
            ``model.num_classes`` is set in it where that is "auto".
        weights: A ``.pth`` file; None or an empty name keeps the initial weights.
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".
        keep_ratio: Keeping ratio in place of the config's, a number in (0, 1] or another form (see
            :func:`sparse_detr.token_selection.as_keep_ratio`); None leaves that.
        optimize: "exact", "bfloat16-backbone" or "bfloat16" makes the detector faster, as
            :func:`sparse_detr.inference.optimize_for_inference` does; None leaves it trainable.
        dtype: "float32" or "float64", or torch's own; None leaves the weights as they are built,
            float32.

    Returns:
        The detector. Its ``keep_ratio`` can be set again, and given per call.

    Raises:
        ConfigError: The config cannot be found or read.
        UserError: Class count, device, keeping ratio, weights, type or precision do not fit.
    """
    tree = config if isinstance(config, DictConfig) else load_config(config)
    if "model" not in tree:
        raise UserError("the config has no key 'model', so there is nothing to build")
    place = resolve_device(device, key="device")
    kind = _resolve_dtype(dtype)
    with user_errors("class count", ValueError, FileNotFoundError):
        tree.model.num_classes = resolve_num_classes(tree)
    with user_errors("model", ValueError, FileNotFoundError):
        model: TransformerDetector = instantiate(tree.model)
    if keep_ratio is not None:
        with user_errors("model", ValueError, TypeError):
            model.keep_ratio = keep_ratio
    if weights:
        load_weights(model, weights, use_average=True)
    model = model.eval().to(place, kind)
    if optimize is None:
        return model
    with user_errors("optimize", TypeError, ValueError):
        return optimize_for_inference(model, optimize)


def _resolve_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    if dtype is None:
        return None
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise UserError(
            f"dtype is {name!r}, expected {' or '.join(DTYPES)}; half precision is what "
            "optimize='bfloat16' is for, which keeps coordinates and scores exact"
        )
    return DTYPES[name]
