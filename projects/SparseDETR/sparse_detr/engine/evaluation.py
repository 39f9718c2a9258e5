"""Evaluates a model, shows and stores the results, and checks them against what was expected.

Role in the flow: called by the evaluation hook during training and by ``--eval-only``.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from torch import nn

from ..data.mapper import BadSampleError, ClassIdError
from ..evaluation import WithTokenUse
from ..meta_arch import TransformerDetector
from .checkpoint_file import write_text
from .devices import kept_random_state
from .ema import ModelEma
from .errors import user_errors
from .launching import unwrap

logger = logging.getLogger(__name__)

Results = dict[str, dict[str, float]]


def evaluate_model(
    model: nn.Module, data_loader: Iterable[Any], evaluator: Any, average: ModelEma | None = None
) -> Results:
    """Gives the metrics of ``model`` over ``data_loader``; logs them as a table.

    Weights, training mode and random states are afterwards as before, errors included.

    Args:
        model: The model, wrapped or not; it is called unwrapped.
        data_loader: This process's share of the images.
        evaluator: A Detectron2 evaluator, or a list of them that share one pass. One that
            ``wants_token_use`` gets it from a detector of this project, and is left out for others.
        average: Evaluates these weights in place of the model's own.

    Returns:
        Task to metric to value; empty in all processes but the first.
    """
    inner = unwrap(model)
    modes = {module: module.training for module in inner.modules()}
    evaluators = list(evaluator) if isinstance(evaluator, list) else [evaluator]
    predict, evaluators = _what_to_run(inner, evaluators)
    weights = nullcontext() if average is None else average.applied_to(inner)
    try:
        inner.eval()
        with (
            kept_random_state(),
            user_errors("evaluation data", BadSampleError, ClassIdError),
            weights,
        ):
            found = inference_on_dataset(predict, data_loader, evaluators)
    finally:
        for module, was_training in modes.items():
            module.training = was_training
    results: Results = {
        task: {str(name): float(value) for name, value in metrics.items()}
        for task, metrics in (found or {}).items()
    }
    if comm.is_main_process() and results:
        print_csv_format(found)
    return results


def _what_to_run(model: nn.Module, evaluators: list[Any]) -> tuple[Callable[..., Any], list[Any]]:
    """Gives the model with the outputs that its evaluators want, and those that it can serve."""
    wanting = [each for each in evaluators if getattr(each, "wants_token_use", False)]
    if not wanting:
        return model, evaluators
    if isinstance(model, TransformerDetector):
        return WithTokenUse(model), evaluators
    logger.info("%s has no tokens, so no sparsity is evaluated", type(model).__name__)
    return model, [each for each in evaluators if each not in wanting]


def save_results(results: Results, path: Path, iteration: int | None = None) -> None:
    """Writes ``{"iteration": ..., "results": ...}`` as json; non-finite metrics become null.

    Args:
        results: As :func:`evaluate_model` gives them.
        path: The file; replaced as a whole.
        iteration: Optimiser steps done, None for weights of unknown age.
    """
    finite = {
        task: {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        for task, metrics in results.items()
    }
    write_text(
        json.dumps({"iteration": iteration, "results": finite}, indent=1, sort_keys=True) + "\n",
        path,
    )


def missed_expectations(results: Results, expected: Sequence[Sequence[Any]]) -> list[str]:
    """Gives one sentence per expected result that was missed.

    Args:
        results: As :func:`evaluate_model` gives them.
        expected: Rows ``[task, metric, value, tolerance]`` or ``[task, metric, minimum]``.

    Returns:
        The sentences, empty when all is as expected. A metric that is absent or not finite is
        missed.

    Raises:
        ValueError: A row has another form.
    """
    missed = []
    for row in expected:
        check_expectation(row)
        task, metric, value = str(row[0]), str(row[1]), float(row[2])
        actual = results.get(task, {}).get(metric, math.nan)
        if len(row) == 4:
            tolerance = float(row[3])
            if not abs(actual - value) <= tolerance:
                missed.append(f"{task}/{metric} is {actual:.4g}, expected {value} +- {tolerance}")
        elif not actual >= value:
            missed.append(f"{task}/{metric} is {actual:.4g}, expected at least {value}")
    return missed


def check_expectation(row: Sequence[Any]) -> None:
    """Raises ValueError for a row of ``train.expected_results`` of a wrong form."""
    is_row = not isinstance(row, (str, Mapping)) and len(row) in (3, 4)
    if not is_row or not all(isinstance(number, (int, float)) for number in row[2:]):
        raise ValueError(
            f"train.expected_results has the row {row!r}, expected [task, metric, value, "
            "tolerance] or "
            "[task, metric, minimum], such as [bbox, AP, 45.0, 1.0]"
        )
