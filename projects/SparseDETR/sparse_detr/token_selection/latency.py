"""How long a detector takes for an image on this machine, from a calibration that was measured.

Role in the flow: read by the latency budget; written by :mod:`.calibration`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn

from ..engine.errors import UserError

if TYPE_CHECKING:
    from ..meta_arch import TransformerDetector

COMMAND = "python -m sparse_detr.token_selection.calibration"
_MACHINE_KEYS = ("device", "processor", "threads")


class CalibrationError(UserError, ValueError):
    """There is no calibration that fits; the message says how to make one."""


@dataclass(frozen=True)
class Line:
    """Time of one keeping ratio: ``intercept_ms + ms_per_token * tokens``.

    Attributes:
        keep_ratio: Share of the tokens that were kept.
        intercept_ms: Milliseconds.
        ms_per_token: Milliseconds for each token of the image.
    """

    keep_ratio: float
    intercept_ms: float
    ms_per_token: float


@dataclass(frozen=True)
class Calibration:
    """Times of one detector on one machine.

    Attributes:
        model: Which detector, see :func:`model_key`.
        machine: Which machine, with all that is known of it.
        lines: Time by tokens for each measured keeping ratio, the lowest first.
        largest_error: Of the lines against what was measured, as a share of it.
        measurements: What was measured, for the record.
    """

    model: dict[str, Any]
    machine: dict[str, Any]
    lines: tuple[Line, ...]
    largest_error: float = 0.0
    measurements: tuple[dict[str, Any], ...] = ()

    def milliseconds(self, num_tokens: int, kept: int) -> float:
        """Time of one image, interpolated between the measured keeping ratios.

        Beyond them that of the nearest one; never less for more kept tokens.

        Args:
            num_tokens: Tokens of the image.
            kept: How many of them the encoder updates.
        """
        times = [line.intercept_ms + line.ms_per_token * num_tokens for line in self.lines]
        rising = np.maximum.accumulate(times)
        return float(np.interp(kept / num_tokens, [line.keep_ratio for line in self.lines], rising))

    def is_of(self, model: dict[str, Any], machine: dict[str, Any]) -> bool:
        """Whether this was measured with that detector on that machine."""
        return self.model == model and same_machine(self.machine, machine)


def same_machine(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether times of two machines can be compared: device, processor and threads are the same.

    Args:
        one: Of :func:`machine_key`.
        other: Of :func:`machine_key`.
    """
    return all(one.get(key) == other.get(key) for key in _MACHINE_KEYS)


def fitted_lines(times: dict[float, Sequence[tuple[int, float]]]) -> tuple[tuple[Line, ...], float]:
    """Lines through measured times, and their largest relative error.

    Args:
        times: For each keeping ratio pairs of tokens and milliseconds, of at least two sizes.

    Raises:
        ValueError: There are fewer than two ratios, or a ratio was measured at one size alone.
    """
    lines, error = [], 0.0
    for ratio, pairs in sorted(times.items()):
        tokens, measured = np.array(pairs, dtype=np.float64).T
        if len(set(tokens)) < 2:
            raise ValueError("sizes must have two numbers of tokens at least; give another size")
        slope, intercept = np.polyfit(tokens, measured, 1)
        if slope < 0:  # what a disturbed measurement may say
            slope, intercept = 0.0, measured.mean()
        lines.append(Line(ratio, float(intercept), float(slope)))
        error = max(error, float(np.max(np.abs(intercept + slope * tokens - measured) / measured)))
    if len(lines) < 2:
        raise ValueError("keep ratios must be two at least; give another one")
    return tuple(lines), error


def default_file() -> Path:
    """Where the calibrations of a user's machine are kept."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "sparse_detr" / "latency.json"


def model_key(detector: TransformerDetector) -> dict[str, Any]:
    """What tells detectors apart that differ in time: structure, type and optimisation.

    Args:
        detector: The detector.
    """
    source: TransformerDetector = getattr(detector, "structure", detector)
    weights = [(name, list(t.shape), str(t.dtype)) for name, t in source.named_parameters()]
    maps = source.backbone.output_shape()  # type: ignore[operator]  # a Detectron2 backbone
    strides = {name: shape.stride for name, shape in maps.items()}
    orders = [getattr(part, "project_after_sampling", None) for part in source.modules()]
    text = json.dumps(
        [
            weights,
            repr(source),
            strides,
            orders,
            source.heads.num_decoder_layers,
            source.pad_before_backbone,
            source.postprocess.max_detections,
        ]
    )
    return {
        "shapes": hashlib.sha256(text.encode()).hexdigest()[:16],
        "optimization": getattr(detector, "optimization", None),
    }


def machine_key(device: torch.device) -> dict[str, Any]:
    """What is known of the machine; :data:`_MACHINE_KEYS` tell machines apart.

    Args:
        device: Device of the detector.
    """
    from ..benchmarking.machine import describe_machine  # only needed with a calibration

    return describe_machine(device)


def read_calibrations(file: Path) -> list[Calibration]:
    """The calibrations of a file.

    Args:
        file: A file that :func:`add_calibration` wrote.

    Raises:
        CalibrationError: It cannot be read.
    """
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))["calibrations"]
        return [
            Calibration(
                dict(entry["model"]),
                dict(entry["machine"]),
                tuple(Line(**{k: float(v) for k, v in line.items()}) for line in entry["lines"]),
                float(entry["largest_error"]),
                tuple(entry["measurements"]),
            )
            for entry in entries
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CalibrationError(
            f"calibration {file} cannot be read ({type(error).__name__}: {error}); "
            f"make it again with {COMMAND} --config-file ..."
        ) from error


def add_calibration(calibration: Calibration, file: Path) -> None:
    """Adds a calibration to a file, in place of an earlier one of the same detector and machine.

    Args:
        calibration: The calibration.
        file: JSON file; made where there is none.
    """
    known = read_calibrations(file) if file.exists() else []
    kept = [c for c in known if not c.is_of(calibration.model, calibration.machine)]
    text = json.dumps({"calibrations": [asdict(c) for c in [*kept, calibration]]}, indent=1)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(file)


_found: WeakKeyDictionary[nn.Module, tuple[object, Calibration]] = WeakKeyDictionary()


def find_calibration(detector: TransformerDetector, file: str | None) -> Calibration:
    """The calibration of a detector on this machine.

    Args:
        detector: The detector.
        file: JSON file; None takes :func:`default_file`.

    Raises:
        CalibrationError: There is none in the file, or no file.
    """
    path = default_file() if file is None else Path(file)
    option = "" if file is None else f" --output {file}"
    make = f"measure this detector here with {COMMAND} --config-file CONFIG{option}"
    try:
        written = path.stat().st_mtime_ns
    except OSError as error:
        raise CalibrationError(
            f"a latency budget needs a calibration, but there is no file {path}; {make}"
        ) from error
    state = (path, written, torch.get_num_threads(), detector.device, detector.training)
    known = _found.get(detector)
    if known is not None and known[0] == state:
        return known[1]
    model, machine = model_key(detector), machine_key(detector.device)
    calibrations = read_calibrations(path)
    fitting = [c for c in calibrations if c.is_of(model, machine)]
    if not fitting:
        wanted = ", ".join(f"{key} {machine.get(key)!r}" for key in _MACHINE_KEYS)
        others = {_difference(c, model, machine) for c in calibrations} or {"nothing"}
        raise CalibrationError(
            f"{path} has no calibration of this detector on this machine ({wanted}, optimised: "
            f"{model['optimization'] or 'no'}), only of {' and '.join(sorted(others))}; {make}"
        )
    _found[detector] = state, fitting[0]
    return fitting[0]


def _difference(calibration: Calibration, model: dict[str, Any], machine: dict[str, Any]) -> str:
    """What a calibration was made for instead, in a few words."""
    if calibration.model.get("shapes") != model["shapes"]:
        return "another model"
    if calibration.model != model:
        return f"this model optimised: {calibration.model.get('optimization') or 'no'}"
    there = [f"{key} {calibration.machine.get(key)!r}" for key in _MACHINE_KEYS
             if calibration.machine.get(key) != machine.get(key)]  # fmt: skip
    return "this model on " + ", ".join(there)
