"""Weights for the backbone alone, and the warning where frozen layers would stay random.

Role in the flow: a new training loads ``train.backbone_weights`` before ``train.init_checkpoint``.
"""

from __future__ import annotations

import argparse
import logging

from torch import nn

from ..backbone import fill_backbone
from .checkpoint_file import read_checkpoint
from .errors import UserError, user_errors

logger = logging.getLogger(__name__)


def load_backbone_weights(model: nn.Module, path: str) -> None:
    """Fills ``model.backbone`` from a local file of ImageNet weights and logs the counts.

    Args:
        model: The model, not wrapped for several processes. It is unchanged when an error is
            raised.
        path: A file as torchvision, the Swin authors or programs of self-supervised training
            publish it, or a detector, whose backbone is taken.

    Raises:
        UserError: The model has no backbone, or the file cannot be read safely or is not for it.
    """
    backbone = _backbone_of(model)
    if backbone is None:
        raise UserError(
            f"train.backbone_weights is {path}, but the model {type(model).__name__} has no part "
            "named backbone; leave the key empty"
        )
    # Programs of pre-training, and of detectors, put their arguments beside the weights.
    content = read_checkpoint(path, allowed=(argparse.Namespace,))
    with user_errors("train.backbone_weights", ValueError, TypeError):
        report = fill_backbone(backbone, content, path)
    logger.info("Backbone weights of %s: %s", path, report)


def warn_of_random_frozen_backbone(model: nn.Module) -> None:
    """Warns if a part of the backbone can never change; to be called where no weights are loaded.

    Args:
        model: The model.
    """
    backbone = _backbone_of(model)
    if backbone is None:
        return
    parameters = list(backbone.parameters())
    frozen = sum(not parameter.requires_grad for parameter in parameters)
    if frozen:
        logger.warning(
            "%d of the %d parameters of the backbone are frozen at random values; set "
            "train.backbone_weights=FILE (ImageNet weights as torchvision or the Swin authors "
            "publish them) or train.init_checkpoint=FILE",
            frozen,
            len(parameters),
        )


def _backbone_of(model: nn.Module) -> nn.Module | None:
    found = getattr(model, "backbone", None)
    return found if isinstance(found, nn.Module) else None
