"""The remembered cost is that of the detector as it predicts, and finding it changes nothing."""

from __future__ import annotations

import functools

import pytest
import torch

from builders import batch, small_detector
from sparse_detr.analysis import count_flops, inference_cost
from sparse_detr.layers import backend
from sparse_detr.meta_arch import TransformerDetector
from sparse_detr.token_selection import kept_count

SIZE = (96, 128)


@functools.cache
def detector() -> TransformerDetector:
    """One for all: finding what it costs takes seconds."""
    return small_detector(encoder__project_after_sampling=True)


def test_a_training_detector_costs_what_it_predicts_with_and_stays_as_it_is() -> None:
    model, other = detector(), small_detector(encoder__project_after_sampling=True)
    expected = count_flops(model, SIZE, 0.1).total
    hook = model.register_forward_hook(lambda *rest: pytest.fail("a hook of the user ran"))
    model.train()
    cost = inference_cost(model)
    assert cost.flops(SIZE, kept_count(cost.tokens(SIZE), 0.1)) == expected
    assert model.training and model.encoder.training
    assert inference_cost(model) is cost
    hook.remove()
    with torch.no_grad():
        found, same = (m.eval()(batch([SIZE]))[0]["instances"] for m in (model, other))
    assert torch.equal(found.scores, same.scores)


def test_the_path_without_compiled_operators_is_counted_too() -> None:
    kept = kept_count(inference_cost(detector()).tokens(SIZE), 0.1)
    with backend.use_backend("torch"):
        counted = count_flops(detector(), SIZE, 0.1)
        assert inference_cost(detector()).flops(SIZE, kept) == counted.total
