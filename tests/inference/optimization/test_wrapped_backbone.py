"""A wrapped backbone looks like the one inside."""

from __future__ import annotations

import torch

from builders import PoolingBackbone
from sparse_detr.inference.optimization.wrapped_backbone import WrappedBackbone


def test_shapes_types_and_divisibility_are_those_of_the_inner_backbone() -> None:
    inner = PoolingBackbone().eval()
    wrapped = WrappedBackbone(inner, torch.float64)
    inner.double()
    assert wrapped.output_shape() == inner.output_shape()
    assert wrapped.size_divisibility == inner.size_divisibility
    assert not wrapped.training
    images = torch.randn(1, 3, 64, 64)
    maps = wrapped(images)
    for name, expected in inner(images.double()).items():
        assert maps[name].dtype is torch.float32
        torch.testing.assert_close(maps[name], expected.float())


def test_what_runs_may_be_something_else() -> None:
    inner = PoolingBackbone().eval()
    wrapped = WrappedBackbone(inner, torch.float32, lambda images: {"sum": images.sum((2, 3))})
    assert list(wrapped(torch.ones(1, 3, 8, 8))) == ["sum"]
    assert {name.split(".")[0] for name, _ in wrapped.named_parameters()} == {"inner"}
