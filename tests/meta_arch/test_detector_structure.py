"""The structure of a detector has its shapes, and can be run on zeros."""

import pytest
import torch

from builders import batch, small_detector
from sparse_detr.inference import optimize_for_inference
from sparse_detr.meta_arch.detector_structure import structure_of, with_zero_weights


def test_the_structure_has_the_shapes_and_neither_weights_nor_hooks():
    model = small_detector().train()
    model.encoder.register_forward_hook(lambda *rest: pytest.fail("a hook of the user ran"))
    structure = structure_of(model)
    assert all(parameter.is_meta for parameter in structure.parameters())
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    assert {name: parameter.shape for name, parameter in structure.named_parameters()} == shapes
    assert not structure.training and model.training
    assert not any(parameter.is_meta for parameter in model.parameters())
    with torch.no_grad():
        with_zero_weights(structure, torch.device("cpu"))(batch([(64, 80)]))


def test_an_optimised_detector_has_the_structure_of_the_one_it_was_made_from():
    model = small_detector()
    names = [name for name, _ in model.named_parameters()]
    structure = structure_of(optimize_for_inference(model))
    assert [name for name, _ in structure.named_parameters()] == names


def test_zero_weights_are_float32_and_leave_the_structure_without_any():
    structure = structure_of(small_detector().double())
    runnable = with_zero_weights(structure, torch.device("cpu"))
    tensors = [*runnable.parameters(), *(b for b in runnable.buffers() if b.is_floating_point())]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert not any(parameter.any() for parameter in runnable.parameters())
    assert all(parameter.is_meta for parameter in structure.parameters())
