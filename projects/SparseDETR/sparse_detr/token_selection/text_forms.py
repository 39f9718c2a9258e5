"""Keeping ratios as texts, for command lines, configs and records."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import TypeAlias

from .budgets import GflopBudget, LatencyBudget
from .cascade import Cascade
from .keep_ratio import (
    FORMS,
    HIGHEST,
    LOWEST,
    KeepRatio,
    PerLayer,
    PerLevel,
    ScoreMass,
    Uniform,
    check_keep_ratio,
)

KeepRatioLike: TypeAlias = float | str | KeepRatio

# A minus between two numbers; that of an exponent follows an "e".
_BETWEEN_BOUNDS = re.compile(r"(?<=[0-9.])-")


def as_keep_ratio(value: KeepRatioLike) -> KeepRatio:
    """The keeping ratio that a number or a text stands for.

    Args:
        value: A number in (0, 1]; a text: such a number, ``levels:0.1,0.3,0.5,1``,
            ``layers:0.5,0.4,0.3`` (entries that are no numbers: ``layers:0.5/mass:0.9/0.2``),
            ``mass:0.9``, ``gflops:100`` or ``latency:150``, the last three also with bounds, as in
            ``mass:0.9,0.05-0.5``; ``cascade:0.5x1,0.8,0.6`` or ``cascade:0.5`` for the released
            factors of six layers; or a keeping ratio, which is given back.

    Raises:
        ValueError: It is none of these; the message says what is wrong with it.
    """
    if isinstance(value, KeepRatio):
        return value
    if isinstance(value, str):
        return _parse(value)
    return Uniform(check_keep_ratio(value))


def _parse(text: str) -> KeepRatio:
    kind, colon, rest = (part.strip() for part in text.partition(":"))
    if not colon:
        try:
            return Uniform(float(kind))
        except ValueError:
            # Again with the text itself, for a message that shows what was given.
            check_keep_ratio(text)
            raise
    reader = _READERS.get(kind)
    if reader is None:
        nearest = difflib.get_close_matches(kind, _READERS, n=1)
        hint = f", did you mean {nearest[0]!r}" if nearest else ""
        raise ValueError(
            f"keep_ratio {text!r} has an unknown kind {kind!r}{hint}; expected a number in (0, 1] "
            f"or a form such as {FORMS}"
        )
    if not rest:
        raise ValueError(f"keep_ratio {text!r} has nothing after the colon; forms: {FORMS}")
    return reader(rest, text)


def _levels(rest: str, text: str) -> KeepRatio:
    return PerLevel(tuple(_number(part, text) for part in rest.split(",")))


def _layers(rest: str, text: str) -> KeepRatio:
    if "/" not in rest and ":" not in rest:
        return PerLayer(tuple(_number(part, text) for part in rest.split(",")))
    return PerLayer(tuple(_number(p, text) if ":" not in p else _parse(p) for p in rest.split("/")))


def _cascade(rest: str, text: str) -> KeepRatio:
    ratio, cross, factors = rest.partition("x")
    if not cross:
        return Cascade(_number(ratio, text))
    return Cascade(_number(ratio, text), tuple(_number(p, text) for p in factors.split(",")))


def _mass(rest: str, text: str) -> KeepRatio:
    first, bounds, file = _rule_parts(rest, text)
    _refuse_file(file, text)
    return ScoreMass(first, *bounds)


def _gflops(rest: str, text: str) -> KeepRatio:
    first, bounds, file = _rule_parts(rest, text)
    _refuse_file(file, text)
    return GflopBudget(first, *bounds)


def _latency(rest: str, text: str) -> KeepRatio:
    first, bounds, file = _rule_parts(rest, text)
    return LatencyBudget(first, *bounds, calibration=file)


_READERS: dict[str, Callable[[str, str], KeepRatio]] = {
    "levels": _levels,
    "layers": _layers,
    "cascade": _cascade,
    "mass": _mass,
    "gflops": _gflops,
    "latency": _latency,
}


def _rule_parts(rest: str, text: str) -> tuple[float, tuple[float, float], str | None]:
    """Number, bounds and file name of ``NUMBER[,LOWEST-HIGHEST][,FILE.json]``."""
    first, *others = (part.strip() for part in rest.split(","))
    bounds, file = (LOWEST, HIGHEST), None
    for part in others:
        if part.endswith(".json"):
            file = part
            continue
        ends = _BETWEEN_BOUNDS.split(part)
        if len(ends) != 2:
            raise ValueError(
                f"keep_ratio {text!r}: expected bounds such as 0.05-0.5 after the comma, "
                f"got {part!r}"
            )
        bounds = _number(ends[0], text), _number(ends[1], text)
    return _number(first, text), bounds, file


def _number(part: str, text: str) -> float:
    try:
        return float(part)
    except ValueError:
        raise ValueError(f"keep_ratio {text!r}: expected a number, got {part.strip()!r}") from None


def _refuse_file(file: str | None, text: str) -> None:
    if file is not None:
        raise ValueError(
            f"keep_ratio {text!r}: only latency: takes a file with a calibration, got {file!r}"
        )
