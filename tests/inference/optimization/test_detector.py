"""What an optimised detector can no longer do, it says."""

from __future__ import annotations

import copy
import io

import pytest
import torch

from builders import batch, small_detector
from sparse_detr.inference import OptimizedDetector, optimize_for_inference
from sparse_detr.meta_arch import TransformerDetector


@pytest.fixture(scope="module")
def optimized() -> OptimizedDetector:
    return optimize_for_inference(small_detector())


def test_it_is_a_detector_in_evaluation_mode_without_gradients(
    optimized: OptimizedDetector,
) -> None:
    assert isinstance(optimized, TransformerDetector)
    assert optimized.eval() is optimized
    assert not [module for module in optimized.modules() if module.training]
    assert not [p for p in optimized.parameters() if p.requires_grad]
    (found,) = optimized(batch([(64, 64)]))
    assert not found["instances"].scores.requires_grad


def test_training_is_refused(optimized: OptimizedDetector) -> None:
    with pytest.raises(RuntimeError, match="cannot be trained; train the detector that it was"):
        optimized.train()


def test_saving_loading_pickling_and_copying_are_refused(optimized: OptimizedDetector) -> None:
    with pytest.raises(RuntimeError, match="has no state_dict"):
        optimized.state_dict()
    with pytest.raises(RuntimeError, match="cannot load weights"):
        optimized.load_state_dict(small_detector().state_dict())
    with pytest.raises(RuntimeError, match="cannot be pickled or copied"):
        torch.save(optimized, io.BytesIO())
    with pytest.raises(RuntimeError, match="cannot be pickled or copied"):
        copy.deepcopy(optimized)


def test_it_stays_where_it_is(optimized: OptimizedDetector) -> None:
    assert optimized.to("cpu") is optimized and optimized.float() is optimized
    with pytest.raises(RuntimeError, match=r"asked for cpu and torch\.float64; move the detector"):
        optimized.double()
    with pytest.raises(RuntimeError, match=r"asked for meta and torch\.float32"):
        optimized.to("meta")
    (found,) = optimized(batch([(64, 64)]))
    assert found["instances"].scores.dtype is torch.float32
