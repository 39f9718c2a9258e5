"""Loads weights into a model, with a report of what was loaded and what was not.

Role in the flow: initialisation from ``train.init_checkpoint``, and ``--eval-only``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoint.released_keys import is_released
from .checkpoint_file import UnreadableCheckpointError, read_checkpoint
from .errors import UserError

logger = logging.getLogger(__name__)

_SHOWN_NAMES = 8


@dataclass(frozen=True)
class LoadReport:
    """What happened to each entry when weights were loaded.

    Attributes:
        source: Where the weights came from.
        loaded: Entries of the model that were set.
        missing: Entries of the model that the file lacks.
        unexpected: Entries of the file that the model lacks.
        mismatched: (entry, shape in the file, shape in the model).
    """

    source: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]

    @property
    def missing_fraction(self) -> float:
        """Share of the model's entries that keep their initialisation."""
        left = len(self.missing) + len(self.mismatched)
        return left / max(1, left + len(self.loaded))

    def __str__(self) -> str:
        shapes = [
            f"{name} (file {list(found)}, model {list(own)})"
            for name, found, own in self.mismatched
        ]
        rows = [
            f"Weights from {self.source}: {len(self.loaded)} loaded",
            _row("missing in the file, initialised anew", self.missing),
            _row("of another shape, initialised anew", shapes),
            _row("in the file but not in the model, ignored", self.unexpected),
        ]
        return "\n".join(row for row in rows if row)


def _row(title: str, names: list[str] | tuple[str, ...]) -> str:
    if not names:
        return ""
    more = f", ... ({len(names) - _SHOWN_NAMES} more)" if len(names) > _SHOWN_NAMES else ""
    return f"  {len(names)} {title}: {', '.join(names[:_SHOWN_NAMES])}{more}"


def weights_of(
    content: Mapping[str, Any], source: str, use_average: bool = False
) -> dict[str, Tensor]:
    """Gives the tensors of a checkpoint's model.

    Args:
        content: A checkpoint ``{"model": ..., ...}``, or a bare dict of tensors.
        source: Its name, for messages.
        use_average: Takes the moving average of the weights where the checkpoint has one.

    Returns:
        Name to tensor; a prefix ``module.`` that all names share is removed.

    Raises:
        UnreadableCheckpointError: There are no weights in it.
    """
    weights: Any = content.get("model", content)
    average = content.get("ema")
    if use_average and isinstance(average, Mapping):
        if "average" not in average:
            raise UnreadableCheckpointError(
                f"checkpoint {source} holds no moving average that is known here: its entry 'ema' "
                f"has {sorted(map(str, average))[:4]}, expected 'average'; it is not of this "
                "project (tools/convert_checkpoint.py converts released ones)"
            )
        logger.info("Using the moving average of the weights in %s", source)
        weights = average["average"]
    if not isinstance(weights, Mapping) or not weights:
        raise UnreadableCheckpointError(
            f"checkpoint {source} holds no weights (expected a dict of tensors)"
        )
    wrong = [str(name) for name, value in weights.items() if not isinstance(value, Tensor)]
    if wrong:
        raise UnreadableCheckpointError(
            f"checkpoint {source} holds no weights: its entries {wrong[:4]} are not tensors "
            "(expected a key 'model' "
            "or a dict of tensors)"
        )
    prefix = "module."
    if all(name.startswith(prefix) for name in weights):
        return {name[len(prefix) :]: value for name, value in weights.items()}
    return dict(weights)


def compare_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> LoadReport:
    """Gives the report of loading ``weights`` into ``model``, without setting anything.

    Args:
        model: The model, not wrapped for several processes.
        weights: Name to tensor.
        source: Their origin, for the report.

    Returns:
        The report.
    """
    own = model.state_dict()
    mismatched = tuple(
        (name, tuple(weights[name].shape), tuple(tensor.shape))
        for name, tensor in own.items()
        if name in weights and weights[name].shape != tensor.shape
    )
    wrong = {name for name, _, _ in mismatched}
    return LoadReport(
        source=source,
        loaded=tuple(name for name in own if name in weights and name not in wrong),
        missing=tuple(name for name in own if name not in weights),
        unexpected=tuple(name for name in weights if name not in own),
        mismatched=mismatched,
    )


def load_weights(
    model: nn.Module,
    path: str | os.PathLike[str],
    allow_partial: bool = False,
    max_missing: float = 0.0,
    use_average: bool = False,
) -> LoadReport:
    """Loads the weights of a checkpoint file into ``model`` and logs the report.

    Args:
        model: The model, not wrapped for several processes. It is unchanged when an error is
            raised.
        path: A ``.pth`` file.
        allow_partial: Accepts other shapes and any number of missing entries.
        max_missing: Share of the model's entries that may be missing without ``allow_partial``.
        use_average: Takes the moving average where the checkpoint has one.

    Returns:
        The report.

    Raises:
        UnreadableCheckpointError: The file cannot be read.
        UserError: Shapes differ or too much is missing, and ``allow_partial`` is false.
    """
    source = os.fspath(path)
    weights = weights_of(read_checkpoint(path), source, use_average)
    report = compare_weights(model, weights, source)
    if not report.loaded:
        raise UserError(
            f"{report}\nnothing of this checkpoint fits the model; "
            + _where_it_belongs(report.unexpected)
        )
    if not allow_partial and (report.mismatched or report.missing_fraction > max_missing):
        raise UserError(
            f"{report}\nthe checkpoint does not fit the model ({report.missing_fraction:.1%} of "
            "its entries would stay "
            "as initialised); if that is meant, as in fine-tuning, set "
            "train.allow_partial_init=true"
        )
    with torch.no_grad():
        model.load_state_dict({name: weights[name] for name in report.loaded}, strict=False)
    logger.info("%s", report)
    return report


def _where_it_belongs(names: tuple[str, ...]) -> str:
    if is_released(names):
        return "it is a released detector: convert it with tools/convert_checkpoint.py first"
    return "it belongs to another one"
