"""Finds, reads and saves config files.

Role in the flow: the first step of every program. A config is found by path or by name (in the
installed package first, then in the repository), read with Detectron2's LazyConfig, changed by
strict overrides and, for a training run, saved as plain data beside the results.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf

from .overrides import TARGET_KEY, ConfigError, apply_overrides

PACKAGE_DIRECTORY = Path(__file__).resolve().parents[1]
CONFIG_SUFFIXES = (".py", ".yaml", ".yml")
CHECKPOINT_SUFFIX = ".pth"


def config_directories() -> list[Path]:
    """Gives the folders that are searched for a config name, in order; only those that exist.

    Returns:
        ``sparse_detr/configs`` of the installed package, then ``configs`` of the repository.
    """
    candidates = [PACKAGE_DIRECTORY / "configs", PACKAGE_DIRECTORY.parents[2] / "configs"]
    return [path for path in candidates if path.is_dir()]


def locate_config(name_or_path: str | os.PathLike[str]) -> Path:
    """Gives the path of a config file.

    Args:
        name_or_path: A path, or a name below one of :func:`config_directories` such as
            ``quickstart``, ``sparse_detr/sparse_detr_r50_rho10_50ep`` or ``configs/quickstart.py``.

    Returns:
        The path of an existing file.

    Raises:
        ConfigError: Nothing is found; the message says where was searched and names similar
            configs.
    """
    text = os.fspath(name_or_path)
    if not text:
        raise ConfigError("no config file was given; use --config-file FILE_OR_NAME")
    path = Path(text).expanduser()
    if path.is_file():
        return path
    name = text[len("configs/") :] if text.startswith("configs/") else text
    suffixes = ("",) if Path(name).suffix in CONFIG_SUFFIXES else CONFIG_SUFFIXES
    directories = config_directories()
    if not Path(name).is_absolute():
        for directory in directories:
            for suffix in suffixes:
                found = directory / f"{name}{suffix}"
                if found.is_file():
                    return found
    raise ConfigError(_not_found_message(text, directories))


def _not_found_message(text: str, directories: Sequence[Path]) -> str:
    names = [
        path.relative_to(directory).with_suffix("").as_posix()
        for directory in directories
        for path in sorted(directory.rglob("*.py"))
        if path.relative_to(directory).parts[0] not in ("common", "models")
    ]
    wanted = Path(text).with_suffix("").as_posix()
    similar = list(dict.fromkeys(difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)))
    searched = (
        ", ".join(str(directory) for directory in directories) or "no config folder (none is there)"
    )
    hint = f"; did you mean {' or '.join(similar)}?" if similar else ""
    return f"config file {text!r} does not exist, neither as a path nor in {searched}{hint}"


def load_config(name_or_path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> DictConfig:
    """Gives the config tree of a file with ``overrides`` applied.

    A ``.py`` config is a program and runs with the rights of the user. A ``.yaml`` config (as
    saved by a training run) is read as plain data: it cannot run code by being read, but it still
    names the callables of the tree. A ``.pth`` file is a converted checkpoint: it names a shipped
    config and what differs from it, and becomes ``train.init_checkpoint``.

    Args:
        name_or_path: See :func:`locate_config`.
        overrides: See :func:`sparse_detr.config.overrides.apply_overrides`.

    Returns:
        The tree.

    Raises:
        ConfigError: The file is missing, is not a config, or an override is wrong.
    """
    path = locate_config(name_or_path)
    if path.suffix == CHECKPOINT_SUFFIX:
        # Only here: reading checkpoints imports torch.
        from ..checkpoint.stored_config import config_of_checkpoint

        return apply_overrides(config_of_checkpoint(path), overrides)
    if path.suffix not in CONFIG_SUFFIXES:
        raise ConfigError(
            f"config file {str(path)!r} ends in {path.suffix!r}; expected .py or .yaml"
        )
    config = _load_python(path) if path.suffix == ".py" else _load_yaml(path)
    return apply_overrides(config, overrides)


def _load_python(path: Path) -> DictConfig:
    from detectron2.config import LazyConfig

    try:
        config = LazyConfig.load(str(path))
    except SyntaxError as error:
        cause = error.__cause__ if isinstance(error.__cause__, SyntaxError) else error
        raise ConfigError(f"config file {str(path)!r} has a syntax error: {cause}") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {str(path)!r}: {error}") from error
    assert isinstance(config, DictConfig)
    return config


def _load_yaml(path: Path) -> DictConfig:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"config file {str(path)!r} is not plain yaml data: {reason}") from error
    if not isinstance(data, dict):
        raise ConfigError(
            f"config file {str(path)!r} holds {type(data).__name__}, expected a mapping"
        )
    config = OmegaConf.create(data, flags={"allow_objects": True})
    assert isinstance(config, DictConfig)
    return config


def save_config(config: DictConfig, path: str | os.PathLike[str]) -> None:
    """Writes ``config`` as yaml; plain data, with every callable written as its dotted name.

    References (``${...}``) are kept. The file can be given to ``--config-file`` again.

    Args:
        config: The tree.
        path: The file to write.

    Raises:
        ConfigError: An entry is neither plain data nor something with an importable name.
        OSError: The file cannot be written; an older one is untouched.
    """
    from ..engine.checkpoint_file import write_text

    data = _plain(OmegaConf.to_container(config, resolve=False), "")
    text = yaml.safe_dump(
        data, default_flow_style=None, allow_unicode=True, width=120, sort_keys=False
    )
    write_text(text, Path(path))


def _plain(value: Any, key: str) -> Any:
    """Gives ``value`` with callables replaced by their names."""
    if isinstance(value, Mapping):
        return {
            str(name): _plain(entry, f"{key}.{name}" if key else str(name))
            for name, entry in value.items()
        }
    if isinstance(value, (list, tuple, ListConfig)):
        return [_plain(entry, f"{key}.{index}") for index, entry in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if callable(value) and key.split(".")[-1] == TARGET_KEY:
        return dotted_name(value, key)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise ConfigError(f"config key {key!r} holds {value!r}, which cannot be saved as plain data")


def dotted_name(target: Callable[..., Any], key: str = TARGET_KEY) -> str:
    """Gives the importable name of a callable, ``package.module.Class.method``.

    Args:
        target: A function, class or class method.
        key: The config key it stands at, for the message.

    Returns:
        The name.

    Raises:
        ConfigError: The callable has no importable name (a lambda, a local function, an object).
    """
    module = getattr(target, "__module__", None)
    name = getattr(target, "__qualname__", None)
    if not module or not name or "<" in name:
        raise ConfigError(f"config key {key!r} holds {target!r}, which has no importable name")
    return f"{module}.{name}"
