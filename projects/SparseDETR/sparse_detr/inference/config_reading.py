"""What a predictor takes from a config besides the model: weights, resizing, classes.

Role in the flow: between a config and :class:`sparse_detr.inference.Predictor`.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Sequence

from detectron2.config import instantiate
from detectron2.data.transforms import AugmentationList
from omegaconf import DictConfig, OmegaConf

from ..config.loading import load_config
from ..config.overrides import apply_overrides
from ..engine.errors import UserError, user_errors
from ..engine.run_state import weights_to_use
from .class_table import ClassTable, class_table_of

logger = logging.getLogger(__name__)


def config_tree(
    config: DictConfig | str | os.PathLike[str], overrides: Sequence[str]
) -> DictConfig:
    """Gives a config tree of its own, with overrides applied.

    Raises:
        ConfigError: The config cannot be found or read, or an override is wrong.
    """
    if isinstance(config, DictConfig):
        return apply_overrides(copy.deepcopy(config), overrides)
    return load_config(config, overrides)


def run_config(
    config: str | os.PathLike[str], overrides: Sequence[str], device: str | None = None
) -> DictConfig:
    """Gives the tree of a run: a model with its data and ``train``.

    Args:
        config: Name or file of the config.
        overrides: Changes to it.
        device: Sets ``train.device``, whatever the overrides say; None leaves that.

    Raises:
        ConfigError: The config cannot be found or read, or an override is wrong.
        UserError: It is no config of a run.
    """
    tree = load_config(config, overrides)
    for key in ("model", "dataloader", "train"):
        if key not in tree:
            raise UserError(
                f"the config {os.fspath(config)} has no key {key!r}; use the config of a run"
            )
    if device is not None:
        tree.train.device = device
    return tree


def device_of(config: DictConfig, device: str | None) -> str:
    """Gives the device to use: the one asked for, else ``train.device``, else "auto"."""
    return device or str(OmegaConf.select(config, "train.device", default="auto"))


def weights_file(
    config: DictConfig,
    weights: str | os.PathLike[str] | None,
    overrides: Sequence[str],
    untrained: bool | None,
) -> str | None:
    """Gives the checkpoint that a predictor loads; None for an untrained one.

    Args:
        config: The tree.
        weights: The file that was asked for, or None for the run's own.
        overrides: The overrides of this call.
        untrained: Whether the initial weights were asked for; None where they cannot be.

    Raises:
        UserError: There is no checkpoint, or one was given where none is wanted.
    """
    if untrained:
        if weights:
            raise UserError("untrained=True keeps the initial weights, but weights were given")
        return None
    if weights:
        return os.fspath(weights)
    found = weights_to_use(config, overrides) if "train" in config else ""
    if not found:
        output = OmegaConf.select(config, "train.output_dir")
        where = f"; {output} holds no checkpoint" if output else ""
        initial = (
            ""
            if untrained is None
            else ". --untrained (untrained=True) keeps the initial ones, which detect nothing"
        )
        raise UserError(f"no weights: give --weights FILE (in Python weights=FILE){where}{initial}")
    logger.info("Taking the weights of %s", found)
    return found


def evaluation_resizing(config: DictConfig, input_format: str) -> AugmentationList:
    """Gives the augmentations of the config's evaluation.

    Args:
        config: The tree.
        input_format: Channel order of the model.

    Raises:
        UserError: The config has none, or its evaluation reads images in another channel order.
    """
    node = OmegaConf.select(config, "dataloader.test.mapper")
    if node is None:
        raise UserError(
            "the config has no key 'dataloader.test.mapper', which says how images are resized; "
            "use the config of a run"
        )
    with user_errors("dataloader.test.mapper", ValueError, TypeError):
        mapper = instantiate(node)
    augmentations = getattr(mapper, "augmentations", None)
    if not isinstance(augmentations, AugmentationList):
        raise UserError(
            f"dataloader.test.mapper is a {type(mapper).__name__} without 'augmentations'; build "
            "Predictor(model, augmentations) yourself"
        )
    order = getattr(mapper, "image_format", input_format)
    if order != input_format:
        raise UserError(
            f"dataloader.test.mapper.image_format is {order!r}, but model.input_format is "
            f"{input_format!r}; set both to the order that the detector was trained with"
        )
    return augmentations


def classes_of(
    config: DictConfig, num_classes: int, class_names: Sequence[str] | None
) -> ClassTable | None:
    """Gives names and ids of the model's classes.

    Args:
        config: The tree.
        num_classes: Classes of the model.
        class_names: Names in place of the data set's, or None.

    Returns:
        The classes; None where they are unknown, or those of the data are not the model's.

    Raises:
        UserError: The number of ``class_names`` is not that of the model's classes.
    """
    table = class_table_of(config)
    if table is not None and len(table.names) != num_classes:
        logger.warning(
            "The data of the config have %d classes, the model has %d: class names are unknown",
            len(table.names),
            num_classes,
        )
        table = None
    if class_names is None:
        return table
    names = tuple(str(name) for name in class_names)
    if len(names) != num_classes:
        raise UserError(f"class_names: got {len(names)} names, the model has {num_classes} classes")
    return ClassTable(names, tuple(range(num_classes)) if table is None else table.category_ids)
