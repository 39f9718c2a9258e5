"""Shape functions of the compiled operators.

With them the operators work under `torch.compile` and `torch.export` and on the meta device. The
compiled library itself registers gradients and casts under autocast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sparse_detr.layers import backend


def _like(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.new_empty(tensor.shape) for tensor in tensors)


def _fake_attn(value: Tensor, spatial_shapes: Any, *samples: Any) -> Tensor:
    """Of both forms: locations and reference points have the queries in the same place."""
    batch, _, heads, channels = value.shape
    return value.new_empty((batch, samples[0].shape[1], heads * channels))


def _fake_project(
    source: Tensor,
    spatial_shapes: Any,
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
    weight: Tensor,
    bias: Tensor,
    valid_sizes: Any = None,
) -> Tensor:
    return source.new_empty((source.shape[0], offsets.shape[1], weight.shape[0]))


def _fake_sampling(
    reference: Tensor, offsets: Tensor, logits: Tensor, spatial_shapes: Any
) -> tuple[Tensor, ...]:
    return _like(offsets, logits)


def _fake_backward_of(num_gradients: int) -> Callable[..., tuple[Tensor, ...]]:
    """Gradients like the inputs, without the level sizes and the valid sizes after them."""

    def fake(grad: Tensor, value: Tensor, spatial_shapes: Any, *inputs: Any) -> tuple[Tensor, ...]:
        return _like(value, *inputs[: num_gradients - 1])

    return fake


def _register_fake(name: str, fake: Any) -> None:
    """Registers a shape function that refuses arguments of several devices.

    The dispatcher calls it where any argument lies on the meta device; without the check a call
    with the others on a CPU would get memory that nobody wrote.
    """
    overload = getattr(torch.ops.sparse_detr, name).default
    names = [argument.name for argument in overload._schema.arguments]

    def checked(*arguments: Any) -> Any:
        given = {n: a for n, a in zip(names, arguments) if isinstance(a, Tensor)}
        main = next(given[n] for n in ("value", "source", *given) if n in given)
        for argument, tensor in given.items():
            if tensor.device != main.device:
                raise ValueError(
                    f"{name}: {argument}: got device {tensor.device}, expected {main.device}, "
                    "the device of the values"
                )
        return fake(*arguments)

    torch.library.register_fake(f"sparse_detr::{name}", checked)


def _register() -> None:
    """Tells torch the shapes that the compiled operators give."""
    operators: dict[str, tuple[Callable[..., Tensor], int]] = {
        "ms_deform_attn": (_fake_attn, 3),
        "ms_deform_attn_fused": (_fake_attn, 4),
        "sample_then_project": (_fake_project, 6),
    }
    for name, (fake, num_gradients) in operators.items():
        _register_fake(name, fake)
        _register_fake(f"{name}_backward", _fake_backward_of(num_gradients))
    _register_fake("deform_attn_sampling", _fake_sampling)


if backend.extension_status.loaded:
    _register()
