"""Recording a backbone: what can be said without a GPU, and the recording itself with one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparse_detr.inference.optimization.cuda_graphs import RecordedBackbone


def double(images: Tensor) -> dict[str, Tensor]:
    return {"map": images * 2}


def test_on_the_cpu_the_backbone_just_runs() -> None:
    images = torch.ones(1, 3, 4, 4)
    assert torch.equal(RecordedBackbone(double)(images)["map"], images * 2)


def test_a_count_of_sizes_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_sizes must be at least 1, got 0"):
        RecordedBackbone(double, max_sizes=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_results_outlive_later_calls_and_old_sizes_go() -> None:
    recorded = RecordedBackbone(double, max_sizes=2)
    inputs = [torch.full((1, 3, size, 4), float(size), device="cuda") for size in (2, 3, 4, 2, 2)]
    with torch.no_grad():
        outputs = [recorded(images)["map"] for images in inputs]
    assert len(recorded._recordings) == 2
    for images, output in zip(inputs, outputs, strict=True):
        assert torch.equal(output, images * 2)
