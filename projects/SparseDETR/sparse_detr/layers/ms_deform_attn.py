"""Multi-scale deformable attention: how encoder and decoder sample the feature maps.

`ms_deform_attn` checks its arguments and calls the compiled operator of the device, or the
pure-torch path where there is none. Shape functions and autograd of the compiled operators are
registered here, so that they work under `torch.compile` and `torch.export`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparse_detr.layers import backend
from sparse_detr.layers.ms_deform_attn_reference import ms_deform_attn_torch

_VALUE_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Gives, per query and head, the weighted sum of values read at the sampling locations.

    A value is read bilinearly at pixel coordinate `location * (width, height) - 0.5` of its level;
    cells outside the level are zero. A location that is not finite lies outside: its sample and the
    gradients of it are zero.

    Args:
        value: (B, N, H, D). Half types are computed in float32.
        spatial_shapes: (height, width) of each of the L levels, Python ints; N tokens in all.
        sampling_locations: (B, Q, H, L, P, 2), normalised (x, y); float32, or float64 where `value`
            is float64.
        attention_weights: (B, Q, H, L, P).

    Returns:
        (B, Q, H * D), in the dtype of `value`.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If the shapes or devices of the arguments do not fit together.

    Source: Deformable DETR, section 4.1, equation 3.
    """
    shapes = check_spatial_shapes(spatial_shapes)
    compute_dtype = _check_tensors(value, shapes, sampling_locations, attention_weights)
    values = value.to(compute_dtype)
    weights = attention_weights.to(compute_dtype)
    device_type = value.device.type
    if not torch.compiler.is_compiling():
        backend.announce_backend(device_type)
    if backend.backend_for(device_type) == "torch":
        output = ms_deform_attn_torch(values, shapes, sampling_locations, weights)
    else:
        flat_shapes = [size for shape in shapes for size in shape]
        output = torch.ops.sparse_detr.ms_deform_attn(
            values, flat_shapes, sampling_locations, weights
        )
    return output.to(value.dtype)


def check_spatial_shapes(spatial_shapes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Gives the level sizes as a list of pairs.

    Raises:
        TypeError: If it is not a sequence of pairs of Python ints.
        ValueError: If it is empty or a size is negative.
    """
    given: object = spatial_shapes
    if isinstance(given, Tensor):
        raise TypeError(
            "spatial_shapes: got a Tensor, expected a sequence of (height, width) Python ints "
            "(a tensor would make every call wait for the device: call .tolist() once)"
        )
    shapes: list[tuple[int, int]] = []
    for level, shape in enumerate(spatial_shapes):
        if not isinstance(shape, Sequence) or len(shape) != 2:
            raise TypeError(
                f"spatial_shapes: got {shape!r} for level {level}, expected a pair (height, width)"
            )
        for size in shape:
            if isinstance(size, bool) or not isinstance(size, (int, torch.SymInt)):
                raise TypeError(
                    f"spatial_shapes: got {size!r} ({type(size).__name__}) for level {level}, "
                    "expected Python ints"
                )
            if size < 0:
                raise ValueError(
                    f"spatial_shapes: got {tuple(shape)} for level {level}, expected sizes >= 0"
                )
        shapes.append((shape[0], shape[1]))
    if not shapes:
        raise ValueError("spatial_shapes: got no level, expected at least one (height, width)")
    return shapes


def _check_tensors(
    value: Tensor,
    shapes: list[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> torch.dtype:
    """Checks the tensors against each other; gives the dtype to compute in."""
    tensors = {
        "value": value,
        "sampling_locations": sampling_locations,
        "attention_weights": attention_weights,
    }
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: got {type(tensor).__name__}, expected a Tensor")
        if tensor.device != value.device:
            raise ValueError(
                f"{name}: got device {tensor.device}, expected {value.device}, the device of value"
            )
        if tensor.dtype not in _VALUE_DTYPES:
            raise TypeError(f"{name}: got dtype {tensor.dtype}, expected a floating point dtype")
    compute_dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
    if sampling_locations.dtype != compute_dtype:
        raise TypeError(
            f"sampling_locations: got dtype {sampling_locations.dtype}, expected {compute_dtype} "
            f"for value of dtype {value.dtype} (half precision would move the locations by up to "
            "half a cell)"
        )
    if attention_weights.dtype == torch.float64 and compute_dtype != torch.float64:
        raise TypeError(
            f"attention_weights: got dtype {attention_weights.dtype}, expected {compute_dtype} "
            f"for value of dtype {value.dtype}"
        )
    _check_tensor_shapes(value, shapes, sampling_locations, attention_weights)
    return compute_dtype


def _check_tensor_shapes(
    value: Tensor,
    shapes: list[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> None:
    """Checks the shapes of the tensors against each other and the level sizes."""
    if value.dim() != 4 or value.shape[2] == 0 or value.shape[3] == 0:
        raise ValueError(
            f"value: got shape {tuple(value.shape)}, expected (B, N, H, D) with at least one head "
            "and channel"
        )
    batch, tokens, heads, _ = value.shape
    covered = sum(height * width for height, width in shapes)
    if covered != tokens:
        raise ValueError(
            f"spatial_shapes: got {shapes} covering {covered} tokens, expected {tokens}, "
            "the tokens of value"
        )
    got = tuple(sampling_locations.shape)
    levels = len(shapes)
    if (
        len(got) != 6
        or (got[0], got[2], got[3], got[5]) != (batch, heads, levels, 2)
        or got[4] == 0
    ):
        raise ValueError(
            f"sampling_locations: got shape {got}, expected ({batch}, Q, {heads}, {levels}, P, 2) "
            f"with at least one point, to match value {tuple(value.shape)} and {levels} levels"
        )
    if tuple(attention_weights.shape) != got[:-1]:
        raise ValueError(
            f"attention_weights: got shape {tuple(attention_weights.shape)}, expected {got[:-1]}, "
            "to match sampling_locations"
        )


def _fake_forward(
    value: Tensor,
    spatial_shapes: Sequence[int],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    batch, _, heads, channels = value.shape
    return value.new_empty((batch, sampling_locations.shape[1], heads * channels))


def _fake_backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Sequence[int],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        value.new_empty(value.shape),
        sampling_locations.new_empty(sampling_locations.shape),
        attention_weights.new_empty(attention_weights.shape),
    )


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    value, spatial_shapes, sampling_locations, attention_weights = inputs
    ctx.save_for_backward(value, sampling_locations, attention_weights)
    ctx.spatial_shapes = spatial_shapes


def _backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
    value, sampling_locations, attention_weights = ctx.saved_tensors
    grad_value, grad_locations, grad_weights = torch.ops.sparse_detr.ms_deform_attn_backward(
        grad_output, value, ctx.spatial_shapes, sampling_locations, attention_weights
    )
    return grad_value, None, grad_locations, grad_weights


def _refuse_double_backward(ctx: Any, *grads: Tensor) -> None:
    raise RuntimeError(
        "ms_deform_attn: its gradient cannot be differentiated again "
        "(double backward is not implemented)"
    )


def _register() -> None:
    """Tells torch the shapes and the gradients of the compiled operators."""
    torch.library.register_fake("sparse_detr::ms_deform_attn", _fake_forward)
    torch.library.register_fake("sparse_detr::ms_deform_attn_backward", _fake_backward)
    torch.library.register_autograd(
        "sparse_detr::ms_deform_attn", _backward, setup_context=_save_for_backward
    )
    # Without this a double backward would only warn, and give a wrong gradient.
    torch.library.register_autograd("sparse_detr::ms_deform_attn_backward", _refuse_double_backward)


if backend.extension_status.loaded:
    _register()
