"""The deformable attention operators from their formulae, one sample at a time, in float64.

Nothing here is shared with the package: plain loops over numpy numbers. Gradients at cell centres,
where the interpolation has a kink, are those of the cell to the right of and below the point.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from operator_calls import OperatorCall
from torch import Tensor

Shapes = Sequence[tuple[int, int]]
Array = np.ndarray


class Corner(NamedTuple):
    """A cell that a sample reads.

    Attributes:
        token: Index of the cell among all tokens.
        share: Bilinear weight.
        slope_x: Derivative of the share by the x of the pixel position.
        slope_y: The same by y.
    """

    token: int
    share: float
    slope_x: float
    slope_y: float


def corners(
    x: float, y: float, shape: tuple[int, int], valid: Sequence[int], first_token: int
) -> Iterator[Corner]:
    """Gives the cells around a pixel position that exist and belong to the image."""
    height, width = shape
    if not (-1 < x < width and -1 < y < height):
        return
    left, top = math.floor(x), math.floor(y)
    right_share, lower_share = x - left, y - top
    for row, share_y, sign_y in ((top, 1 - lower_share, -1), (top + 1, lower_share, 1)):
        for column, share_x, sign_x in ((left, 1 - right_share, -1), (left + 1, right_share, 1)):
            if 0 <= row < min(height, valid[0]) and 0 <= column < min(width, valid[1]):
                token = first_token + row * width + column
                yield Corner(token, share_x * share_y, sign_x * share_y, share_x * sign_y)


def attend(
    value: Array,
    shapes: Shapes,
    locations: Array,
    weights: Array,
    valid_sizes: Array | None,
    grad: Array,
) -> tuple[Array, Array, Array, Array]:
    """Gives the attended values and the gradients of values, locations and weights.

    Args:
        value: (B, N, H, D).
        shapes: (height, width) of each level.
        locations: (B, Q, H, L, P, 2), normalised (x, y).
        weights: (B, Q, H, L, P).
        valid_sizes: (B, L, 2), or None.
        grad: Gradient of the output, (B, Q, H * D).
    """
    batch, queries, heads, levels, points, _ = locations.shape
    channels = value.shape[3]
    grad = grad.reshape(batch, queries, heads, channels)
    output = np.zeros_like(grad)
    grad_value, grad_locations = np.zeros_like(value), np.zeros_like(locations)
    grad_weights = np.zeros_like(weights)
    first_tokens = [sum(h * w for h, w in shapes[:level]) for level in range(levels)]
    for b, q, h, level, p in product(*map(range, (batch, queries, heads, levels, points))):
        height, width = shapes[level]
        x, y = (float(number) for number in locations[b, q, h, level, p])
        x, y = x * width - 0.5, y * height - 0.5
        valid = shapes[level] if valid_sizes is None else valid_sizes[b, level]
        weight = float(weights[b, q, h, level, p])
        for corner in corners(x, y, shapes[level], valid, first_tokens[level]):
            output[b, q, h] += weight * corner.share * value[b, corner.token, h]
            grad_value[b, corner.token, h] += weight * corner.share * grad[b, q, h]
            dot = float(grad[b, q, h] @ value[b, corner.token, h])
            grad_weights[b, q, h, level, p] += corner.share * dot
            grad_locations[b, q, h, level, p, 0] += weight * width * corner.slope_x * dot
            grad_locations[b, q, h, level, p, 1] += weight * height * corner.slope_y * dot
    output = output.reshape(batch, queries, heads * channels)
    return output, grad_value, grad_locations, grad_weights


def sampling(
    reference: Array, offsets: Array, logits: Array, shapes: Shapes
) -> tuple[Array, Array]:
    """Gives locations and weights from reference points and the raw outputs of the layers."""
    batch, queries, heads, levels, points = logits.shape
    locations, weights = np.zeros_like(offsets), np.zeros_like(logits)
    for b, q, h in product(*map(range, (batch, queries, heads))):
        powers = np.exp(logits[b, q, h] - logits[b, q, h].max())
        weights[b, q, h] = powers / powers.sum()
        for level in range(levels):
            height, width = shapes[level]
            place = reference[b, q, level]
            scale = np.array([width, height], dtype=float) ** -1.0
            if place.size == 4:
                scale = place[2:] * 0.5 / points
            locations[b, q, h, level] = place[:2] + offsets[b, q, h, level] * scale
    return locations, weights


def sampling_gradients(
    samples: tuple[Array, Array, Array],
    shapes: Shapes,
    weights: Array,
    grad_locations: Array,
    grad_weights: Array,
) -> tuple[Array, Array, Array]:
    """Gives the gradients of reference points, offsets and logits.

    A coordinate whose location has gradient zero has gradient zero, whatever its numbers are.
    """
    reference, offsets, logits = samples
    batch, queries, heads, levels, points = logits.shape
    grad_reference, grad_offsets = np.zeros_like(reference), np.zeros_like(offsets)
    mean = (weights * grad_weights).sum((-2, -1), keepdims=True)
    grad_logits = weights * (grad_weights - mean)
    sizes = (batch, queries, heads, levels, points, 2)
    for b, q, h, level, p, axis in product(*map(range, sizes)):
        grad = grad_locations[b, q, h, level, p, axis]
        if grad == 0:
            continue
        scale = 1.0 / shapes[level][1 - axis]
        if reference.shape[-1] == 4:
            scale = reference[b, q, level, 2 + axis] * 0.5 / points
            share = offsets[b, q, h, level, p, axis] * 0.5 / points
            grad_reference[b, q, level, 2 + axis] += grad * share
        grad_reference[b, q, level, axis] += grad
        grad_offsets[b, q, h, level, p, axis] = grad * scale
    return grad_reference, grad_offsets, grad_logits


def expected_results(call: OperatorCall) -> list[Tensor]:
    """Gives what `call.results()` must give, in float64."""
    leaves = [leaf.detach().double().numpy() for leaf in call.leaves]
    grad = call.grad.double().numpy()
    valid = None if call.valid_sizes is None else call.valid_sizes.numpy()
    with np.errstate(all="ignore"):
        if call.operator == "given":
            results: Sequence[Array] = attend(leaves[0], call.shapes, *leaves[1:], valid, grad)
        elif call.operator == "sample_then_project":
            results = _projected(call.shapes, leaves, valid, grad)
        else:
            results = _raw(call.shapes, leaves, valid, grad)
    return [torch.from_numpy(np.ascontiguousarray(result)) for result in results]


def _raw(shapes: Shapes, leaves: list[Array], valid: Array | None, grad: Array) -> list[Array]:
    value, *samples = leaves
    reference, offsets, logits = samples
    locations, weights = sampling(reference, offsets, logits, shapes)
    output, grad_value, *grads = attend(value, shapes, locations, weights, valid, grad)
    others = sampling_gradients((reference, offsets, logits), shapes, weights, *grads)
    return [output, grad_value, *others]


def _projected(
    shapes: Shapes, leaves: list[Array], valid: Array | None, grad: Array
) -> list[Array]:
    source, weight, bias, *samples = leaves
    heads = samples[1].shape[2]
    channels = weight.shape[0] // heads
    value = (source @ weight.T + bias).reshape(*source.shape[:2], heads, channels)
    output, grad_value, *others = _raw(shapes, [value, *samples], valid, grad)
    grad_rows = grad_value.reshape(*source.shape[:2], weight.shape[0])
    grad_weight = np.einsum("bnf,bnc->fc", grad_rows, source)
    return [output, grad_rows @ weight, grad_weight, grad_rows.sum((0, 1)), *others]
