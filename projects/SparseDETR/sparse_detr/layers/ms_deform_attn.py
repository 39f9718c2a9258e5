"""Multi-scale deformable attention: how encoder and decoder sample the feature maps.

The functions of this module check their arguments and call the compiled operator of the device, or
its pure-torch twin where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparse_detr.layers import backend, operator_registration  # noqa: F401  (registers operators)
from sparse_detr.layers.ms_deform_attn_reference import (
    ms_deform_attn_torch,
    sampling_torch,
    without_padding,
)
from sparse_detr.layers.operator_checks import (
    check_covered,
    check_extents_shape,
    check_reference,
    check_samples,
    check_spatial_shapes,
    check_tensors,
    check_value_shape,
    coordinate_dtype,
)


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
    valid_sizes: Tensor | None = None,
) -> Tensor:
    """Gives, per query and head, the weighted sum of values read at the sampling locations.

    A value is read bilinearly at pixel coordinate `location * (width, height) - 0.5` of its level;
    cells outside the level are zero. A location that is not finite lies outside: its sample and the
    gradients of it are zero.

    Args:
        value: (B, N, H, D). Half types are read as they are and summed in float32.
        spatial_shapes: (height, width) of each of the L levels, Python ints; N tokens in all.
        sampling_locations: (B, Q, H, L, P, 2), normalised (x, y); float32, or float64 where `value`
            is float64.
        attention_weights: (B, Q, H, L, P), of the same dtype.
        valid_sizes: (B, L, 2) int64 rows and columns of each level that belong to the image; the
            cells beyond count as zero. None where all do.

    Returns:
        (B, Q, H * D), in the dtype of `value`.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If the shapes or devices of the arguments do not fit together.

    Source: Deformable DETR, section 4.1, equation 3.
    """
    if is_native(value):
        try:
            output: Tensor = torch.ops.sparse_detr.ms_deform_attn(
                value, flat(spatial_shapes), sampling_locations, attention_weights, valid_sizes
            )
            return output
        except ARGUMENT_ERRORS:
            _check_attn(value, spatial_shapes, sampling_locations, attention_weights, valid_sizes)
            raise
    shapes = _check_attn(value, spatial_shapes, sampling_locations, attention_weights, valid_sizes)
    values = without_padding(value.to(sampling_locations.dtype), shapes, valid_sizes)
    return ms_deform_attn_torch(values, shapes, sampling_locations, attention_weights).to(
        value.dtype
    )


def ms_deform_attn_fused(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    reference_points: Tensor,
    sampling_offsets: Tensor,
    attention_logits: Tensor,
    valid_sizes: Tensor | None = None,
) -> Tensor:
    """Gives what :func:`ms_deform_attn` gives, from the raw outputs of the layers before it.

    Softmax, locations and sampling are one pass: neither locations nor weights are ever stored.
    :func:`deform_attn_sampling` gives them where they are wanted.

    Args:
        value: (B, N, H, D).
        spatial_shapes: (height, width) of each of the L levels, Python ints.
        reference_points: (B, Q, L, 2) points or (B, Q, L, 4) boxes cxcywh, normalised.
        sampling_offsets: (B, Q, H, L, P, 2): from a point in cells of the level, from a box in
            half sizes shared by the points.
        attention_logits: (B, Q, H, L, P); the softmax is over L and P together.
        valid_sizes: (B, L, 2) int64, as in :func:`ms_deform_attn`.

    Returns:
        (B, Q, H * D), in the dtype of `value`.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If the shapes or devices of the arguments do not fit together.

    Source: Deformable DETR, section 4.1 and appendix A.3.
    """
    samples = (reference_points, sampling_offsets, attention_logits)
    if is_native(value):
        try:
            output: Tensor = torch.ops.sparse_detr.ms_deform_attn_fused(
                value, flat(spatial_shapes), *samples, valid_sizes
            )
            return output
        except ARGUMENT_ERRORS:
            _check_fused(value, spatial_shapes, samples, valid_sizes)
            raise
    shapes = _check_fused(value, spatial_shapes, samples, valid_sizes)
    locations, weights = sampling_torch(*samples, shapes)
    values = without_padding(value.to(coordinate_dtype(value.dtype)), shapes, valid_sizes)
    return ms_deform_attn_torch(values, shapes, locations, weights).to(value.dtype)


@torch.no_grad()
def deform_attn_sampling(
    reference_points: Tensor,
    sampling_offsets: Tensor,
    attention_logits: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
) -> tuple[Tensor, Tensor]:
    """Gives where a deformable attention reads and with what weight, without gradient.

    Args:
        reference_points: (B, Q, L, 2) or (B, Q, L, 4), float32 or float64.
        sampling_offsets: (B, Q, H, L, P, 2).
        attention_logits: (B, Q, H, L, P).
        spatial_shapes: (height, width) of each of the L levels, Python ints.

    Returns:
        Locations (B, Q, H, L, P, 2), normalised (x, y); weights (B, Q, H, L, P), summing to 1 over
        L and P.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If the shapes or devices of the arguments do not fit together.
    """
    samples = (reference_points, sampling_offsets, attention_logits)
    if is_native(reference_points):
        try:
            locations, weights = torch.ops.sparse_detr.deform_attn_sampling(
                *samples, flat(spatial_shapes)
            )
            return locations, weights
        except ARGUMENT_ERRORS:
            _check_sampling(spatial_shapes, samples)
            raise
    return sampling_torch(*samples, _check_sampling(spatial_shapes, samples))


# What a call with unfitting arguments raises: the operators check them before they read anything.
# The checks of this module then find the words for it; without an error their time is saved.
ARGUMENT_ERRORS = (RuntimeError, TypeError, ValueError)

Samples = tuple[Tensor, Tensor, Tensor]


def is_native(tensor: object) -> bool:
    """Whether the compiled operators serve the device of an argument, which may be no tensor."""
    if not isinstance(tensor, Tensor):
        return False
    # Asking for the name of a device takes longer.
    return backend.is_native("cpu" if tensor.is_cpu else tensor.device.type)


def flat(spatial_shapes: Sequence[tuple[int, int]]) -> list[int]:
    """Level sizes as the operators take them: h0, w0, h1, w1, ..."""
    given: object = spatial_shapes
    if isinstance(given, Tensor):
        raise TypeError("spatial_shapes: got a Tensor, expected (height, width) Python ints")
    sizes = [size for height, width in spatial_shapes for size in (height, width)]
    if bool in map(type, sizes):
        raise TypeError("spatial_shapes: got a bool, expected (height, width) Python ints")
    return sizes


def _check_attn(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
    valid_sizes: Tensor | None,
) -> list[tuple[int, int]]:
    shapes = check_spatial_shapes(spatial_shapes)
    check_tensors(
        {"value": value},
        {"sampling_locations": sampling_locations, "attention_weights": attention_weights},
        valid_sizes,
    )
    check_value_shape(value)
    batch, tokens, heads, _ = value.shape
    check_covered("value", tokens, shapes)
    expected = (batch, heads, len(shapes))
    check_samples(
        "sampling_locations", sampling_locations, "attention_weights", attention_weights, expected
    )
    check_extents_shape(valid_sizes, batch, len(shapes))
    return shapes


def _check_fused(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    samples: Samples,
    valid_sizes: Tensor | None,
) -> list[tuple[int, int]]:
    shapes = check_spatial_shapes(spatial_shapes)
    check_tensors({"value": value}, named_samples(samples), valid_sizes)
    check_value_shape(value)
    batch, tokens, heads, _ = value.shape
    check_covered("value", tokens, shapes)
    check_raw_samples(samples, (batch, heads, len(shapes)))
    check_extents_shape(valid_sizes, batch, len(shapes))
    return shapes


def _check_sampling(
    spatial_shapes: Sequence[tuple[int, int]], samples: Samples
) -> list[tuple[int, int]]:
    shapes = check_spatial_shapes(spatial_shapes)
    check_tensors({"reference_points": samples[0]}, named_samples(samples))
    got = samples[1].shape
    batch, heads = (got[0], got[2]) if len(got) == 6 else (0, 0)
    check_raw_samples(samples, (batch, heads, len(shapes)))
    return shapes


def named_samples(samples: Samples) -> dict[str, Tensor]:
    """Raw samples by the names of their arguments."""
    names = ("reference_points", "sampling_offsets", "attention_logits")
    return dict(zip(names, samples, strict=True))


def check_raw_samples(samples: Samples, expected: tuple[int, int, int]) -> None:
    """Checks reference points, offsets and logits against B, H and L; raises a ValueError."""
    reference, offsets, logits = samples
    check_samples("sampling_offsets", offsets, "attention_logits", logits, expected)
    check_reference(reference, expected[0], offsets.shape[1], expected[2])
