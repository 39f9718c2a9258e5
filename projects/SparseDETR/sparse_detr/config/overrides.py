"""Strict command-line overrides of a LazyConfig tree: an unknown key is an error, not a new entry.

Role in the flow: ``train_net.py`` and the tools read a config file with
:mod:`sparse_detr.config.loading` and change it with :func:`apply_overrides`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

TARGET_KEY = "_target_"


class ConfigError(ValueError):
    """A config file or an override that the user has to correct; the message says how."""


def apply_overrides(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Gives ``config`` with every ``key=value`` of ``overrides`` set, in order.

    The value follows Hydra's grammar (numbers, ``true``, ``null``, ``[1,2]``, ``{a: 1}``, quoted
    strings), but that a keeping ratio may be written as it is (``levels:0.1,0.3,0.5,1``).
    ``key=value`` needs an existing key, ``+key=value`` adds one. The keys that name what
    gets called (``_target_``) cannot be set here, because an override must not choose code to run.

    Args:
        config: The tree to change, in place.
        overrides: Texts such as ``train.max_iter=20`` or ``+model.backbone.freeze_at=2``.

    Returns:
        The same ``config``.

    Raises:
        ConfigError: The text does not parse, the key is unknown (the message names the nearest
            one), the key or the value holds ``_target_``, or the value is of another kind than
            what it replaces.
    """
    for text in overrides:
        key, value, is_addition = _parse(text)
        _set(config, key, value, is_addition)
    return config


def sets_key(overrides: Sequence[str], key: str) -> bool:
    """Whether one of ``overrides`` sets ``key``, by its name or within a mapping.

    Args:
        overrides: As :func:`apply_overrides` takes them.
        key: A dotted key such as ``train.init_checkpoint``.

    Returns:
        True where the command line decides about the key.

    Raises:
        ConfigError: A text does not parse.
    """
    for text in overrides:
        name, value, _ = _parse(text)
        if name == key:
            return True
        if isinstance(value, Mapping) and key.startswith(f"{name}."):
            rest = key[len(name) + 1 :].split(".")
            while rest and isinstance(value, Mapping) and rest[0] in value:
                value = value[rest.pop(0)]
            if not rest:
                return True
    return False


def _parse(text: str) -> tuple[str, Any, bool]:
    """Gives (key, value, whether the key may be new) of one override."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if "=" not in text:
        raise ConfigError(
            f"override {text!r} has no '='; write key=value, for example train.max_iter=20"
        )
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"override {text!r} does not parse ({reason}); put texts with special characters in "
            "quotes: "
            "'key=\"some text\"'"
        ) from error
    if override.is_delete():
        raise ConfigError(
            f"override {text!r}: '~' (deletion) is not supported; set the key to null instead"
        )
    raw = text.partition("=")[2].strip()
    if _is_ratio_text(override.key_or_group, raw):
        return override.key_or_group, raw, override.is_add() or override.is_force_add()
    if override.is_sweep_override():
        raise ConfigError(f"override {text!r} holds several values; write a list as key=[1,2]")
    return override.key_or_group, override.value(), override.is_add() or override.is_force_add()


def _is_ratio_text(key: str, value: Any) -> bool:
    """Whether the value is a keeping ratio in words, such as ``levels:0.1,0.3,0.5,1``.

    Its commas would read as several values; its kind takes the place of a number.
    """
    is_text = isinstance(value, str) and re.match(r"[a-z]+:", value) is not None
    return is_text and key.split(".")[-1] == "keep_ratio"


def _set(config: DictConfig, key: str, value: Any, is_addition: bool) -> None:
    """Sets one key; a mapping given for an existing mapping is set key by key, as strictly."""
    if TARGET_KEY in key.split(".") or _holds_target(value):
        raise ConfigError(
            f"override of {key!r}: {TARGET_KEY} cannot be set from the command line, since it "
            "chooses code "
            "to run; write a config file that imports this one and changes it"
        )
    known = _has_key(config, key)
    if not known and not is_addition:
        raise ConfigError(_unknown_key_message(config, key))
    old = OmegaConf.select(config, key, throw_on_missing=False) if known else None
    if isinstance(old, DictConfig) and isinstance(value, Mapping):
        for name, entry in value.items():
            _set(config, f"{key}.{name}", entry, is_addition)
        return
    if known:
        _check_kind(key, old, value)
    elif isinstance(_path_nodes(config, key.split("."))[-1], (bool, int, float, str)):
        raise ConfigError(f"override of {key!r}: its parent is a value, not a group of keys")
    OmegaConf.update(config, key, value, merge=False, force_add=is_addition)


def _holds_target(value: Any) -> bool:
    if isinstance(value, Mapping):
        return TARGET_KEY in value or any(_holds_target(entry) for entry in value.values())
    if isinstance(value, (list, tuple)):
        return any(_holds_target(entry) for entry in value)
    return False


def _has_key(config: DictConfig, key: str) -> bool:
    """Whether ``key`` is an entry of the tree; an entry that holds null counts."""
    return len(_path_nodes(config, key.split("."))) == len(key.split(".")) + 1


def _path_nodes(config: DictConfig, parts: Sequence[str]) -> list[Any]:
    """Gives the root and the entries along ``parts``, as far as they exist."""
    nodes: list[Any] = [config]
    for part in parts:
        node = nodes[-1]
        if isinstance(node, DictConfig) and part in node.keys():
            nodes.append(None if OmegaConf.is_missing(node, part) else node[part])
        elif isinstance(node, ListConfig) and part.isdigit() and int(part) < len(node):
            nodes.append(node[int(part)])
        else:
            break
    return nodes


def _check_kind(key: str, old: Any, new: Any) -> None:
    """Refuses values that no code behind the key can want, such as a text for a learning rate."""
    is_reference = isinstance(new, str) and "${" in new
    if new is None or old is None or is_reference or _is_ratio_text(key, new):
        return
    expected = ""
    if isinstance(old, bool):
        expected = "" if isinstance(new, bool) else "true or false"
    elif isinstance(old, (int, float)):
        expected = "" if isinstance(new, (int, float)) and not isinstance(new, bool) else "a number"
    elif isinstance(old, DictConfig):
        expected = "" if isinstance(new, Mapping) else "a mapping {key: value}, or one of its keys"
    elif isinstance(old, ListConfig):
        expected = "" if isinstance(new, (list, tuple)) else "a list [a,b]"
    if expected:
        raise ConfigError(
            f"override of {key!r}: got {new!r}, expected {expected} (it is {_shorten(old)} now)"
        )


def _shorten(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _unknown_key_message(config: DictConfig, key: str) -> str:
    nearest = nearest_key(config, key)
    hint = f"; the nearest key is {nearest!r}" if nearest else ""
    return f"unknown config key {key!r}{hint} (write +{key}=... to add a key on purpose)"


def nearest_key(config: DictConfig, key: str) -> str | None:
    """Gives the existing key that ``key`` was probably meant to be, or None for an empty tree.

    Args:
        config: The tree to look in.
        key: A dotted key that is not there.

    Returns:
        The dotted name of the most similar key; siblings in the deepest existing group come first.
    """
    parts = key.split(".")
    nodes = _path_nodes(config, parts)
    if isinstance(nodes[-1], DictConfig) and len(nodes) <= len(parts):
        depth = len(nodes) - 1
        names = [str(name) for name in nodes[-1].keys() if name != TARGET_KEY]
        found = difflib.get_close_matches(parts[depth], names, n=1, cutoff=0.6)
        if found:
            corrected = ".".join([*parts[:depth], found[0], *parts[depth + 1 :]])
            return corrected if _has_key(config, corrected) else nearest_key(config, corrected)
    every = list(_iterate_keys(config, ""))
    same_name = [name for name in every if name.split(".")[-1] == parts[-1]]
    found = difflib.get_close_matches(key, same_name or every, n=1, cutoff=0.0)
    return found[0] if found else None


def _iterate_keys(node: Any, prefix: str) -> Iterator[str]:
    """Gives every dotted key below ``node``, groups included; references are not followed."""
    if isinstance(node, DictConfig):
        for name in map(str, node.keys()):
            if name == TARGET_KEY:
                continue
            path = f"{prefix}{name}"
            yield path
            if not OmegaConf.is_interpolation(node, name):
                yield from _iterate_keys(node[name], f"{path}.")
    elif isinstance(node, ListConfig):
        for index, entry in enumerate(node):
            yield from _iterate_keys(entry, f"{prefix}{index}.")
