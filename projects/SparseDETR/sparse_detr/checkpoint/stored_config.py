"""The config that a converted checkpoint carries: which one it is for, and what differs.

Role in the flow: written by the converter, read by :func:`sparse_detr.config.loading.load_config`,
so that a converted file can stand where a config is asked for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ..config.loading import load_config
from ..config.overrides import ConfigError
from ..engine.checkpoint_file import UnreadableCheckpointError, read_checkpoint

CONFIG_KEY = "config"
"""Key of the checkpoint under which the config is stored."""

# A file names a shipped config and sizes of its model, nothing else: it is data, not a program.
_CONFIG_NAME = re.compile(r"\w+(/\w+)*")
_OVERRIDE = re.compile(r"\+?model\.[\w.]+=[\w.+-]+")


@dataclass(frozen=True)
class StoredConfig:
    """A shipped config and the changes that a model needs.

    Attributes:
        name: Name of a config, ``sparse_detr/sparse_detr_r50_rho10_50ep`` for example.
        overrides: Changes below ``model``, as on the command line.

    Raises:
        ValueError: A name or a change that a checkpoint must not carry.
    """

    name: str
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _CONFIG_NAME.fullmatch(self.name):
            raise ValueError(f"config name must be that of a shipped config, got {self.name!r}")
        for text in self.overrides:
            if not _OVERRIDE.fullmatch(text):
                raise ValueError(f"stored overrides must be model.key=value, got {text!r}")

    def as_data(self) -> dict[str, Any]:
        """What a checkpoint stores."""
        return {"name": self.name, "overrides": list(self.overrides)}

    def load(self) -> DictConfig:
        """The config tree.

        Raises:
            ConfigError: There is no such config, or a change does not fit it.
        """
        return load_config(self.name, self.overrides)


def stored_config(content: Mapping[str, Any], source: str) -> StoredConfig | None:
    """The config that the content of a checkpoint carries, None where there is none.

    Args:
        content: What the file holds.
        source: Its name, for messages.

    Raises:
        UnreadableCheckpointError: There is one, but not one that the converter writes.
    """
    data = content.get(CONFIG_KEY)
    if data is None:
        return None
    try:
        name, overrides = data["name"], data["overrides"]
        if not isinstance(name, str) or not all(isinstance(text, str) for text in overrides):
            raise TypeError("name and overrides must be texts")
        return StoredConfig(name, tuple(overrides))
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadableCheckpointError(
            f"checkpoint {source} carries a config that is refused: {error}"
        ) from error


def config_of_checkpoint(path: str | os.PathLike[str]) -> DictConfig:
    """The config tree of a converted checkpoint, with the file itself as weights.

    ``train.init_checkpoint`` is the file, ``train.output_dir`` a folder ``output`` of its name, so
    that an evaluation finds these weights and no others.

    Args:
        path: A file written by ``tools/convert_checkpoint.py``.

    Returns:
        The tree, as :func:`sparse_detr.config.loading.load_config` gives it.

    Raises:
        ConfigError: The file carries no config, or none that can be used.
        UnreadableCheckpointError: The file cannot be read.
    """
    source = os.fspath(path)
    found = stored_config(read_checkpoint(path), source)
    if found is None:
        raise ConfigError(
            f"checkpoint {source} carries no config; give the config that it belongs to, or "
            "convert the file with tools/convert_checkpoint.py if it is a released detector"
        )
    config = found.load()
    config.train.init_checkpoint = source
    config.train.output_dir = f"output/{Path(source).stem}"
    return config
