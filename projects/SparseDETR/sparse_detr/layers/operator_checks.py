"""Argument checks of the deformable-attention operators, before anything is dispatched.

Each message names the argument, what was got and what was expected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

FLOATING_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


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
    if not isinstance(given, Sequence):
        raise TypeError(f"spatial_shapes: got {given!r}, expected a sequence of (height, width)")
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


def check_tensors(
    values: Mapping[str, Tensor], coordinates: Mapping[str, Tensor], extents: Tensor | None = None
) -> None:
    """Checks types, devices and dtypes.

    Args:
        values: Tensors of the dtype that is computed with, by argument name; the first one gives
            device and dtype.
        coordinates: Tensors that must be float64 where that one is, else float32.
        extents: The argument ``valid_sizes``.

    Raises:
        TypeError: No tensor, or a dtype that does not fit.
        ValueError: Different devices.
    """
    names = list(values)
    for name, tensor in (*values.items(), *coordinates.items()):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: got {type(tensor).__name__}, expected a Tensor")
    main_name, main = names[0], values[names[0]]
    for name, tensor in (*values.items(), *coordinates.items()):
        if tensor.device != main.device:
            raise ValueError(
                f"{name}: got device {tensor.device}, expected {main.device}, the device of "
                f"{main_name}"
            )
        if tensor.dtype not in FLOATING_DTYPES:
            raise TypeError(f"{name}: got dtype {tensor.dtype}, expected a floating point dtype")
    for name, tensor in values.items():
        if tensor.dtype != main.dtype:
            raise TypeError(f"{name}: got dtype {tensor.dtype}, expected {main.dtype}")
    wanted = coordinate_dtype(main.dtype)
    for name, tensor in coordinates.items():
        if tensor.dtype != wanted:
            raise TypeError(
                f"{name}: got dtype {tensor.dtype}, expected {wanted} for {main_name} of dtype "
                f"{main.dtype} (half precision would move a location by up to half a cell)"
            )
    if extents is not None:
        _check_extents_type(extents, main.device, main_name)


def _check_extents_type(extents: object, device: torch.device, main_name: str) -> None:
    if not isinstance(extents, Tensor):
        raise TypeError(f"valid_sizes: got {type(extents).__name__}, expected a Tensor or None")
    if extents.dtype != torch.int64:
        raise TypeError(f"valid_sizes: got dtype {extents.dtype}, expected torch.int64")
    if extents.device != device:
        raise ValueError(
            f"valid_sizes: got device {extents.device}, expected {device}, the device of "
            f"{main_name}"
        )


def coordinate_dtype(dtype: torch.dtype) -> torch.dtype:
    """Dtype of coordinates, weights and sums for values of a dtype."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_covered(name: str, tokens: int, shapes: list[tuple[int, int]]) -> None:
    """Raises a ValueError if the levels do not make up the tokens of argument ``name``."""
    covered = sum(height * width for height, width in shapes)
    if covered != tokens:
        raise ValueError(
            f"spatial_shapes: got {shapes} covering {covered} tokens, expected {tokens}, "
            f"the tokens of {name}"
        )


def check_extents_shape(extents: Tensor | None, batch: int, levels: int) -> None:
    """Raises a ValueError if ``valid_sizes`` is not (B, L, 2)."""
    if extents is not None and tuple(extents.shape) != (batch, levels, 2):
        raise ValueError(
            f"valid_sizes: got shape {tuple(extents.shape)}, expected ({batch}, {levels}, 2), "
            "rows and columns of each level that belong to the image"
        )


def check_value_shape(value: Tensor) -> None:
    """Raises a ValueError if ``value`` is not (B, N, H, D) with a head and a channel."""
    if value.dim() != 4 or value.shape[2] == 0 or value.shape[3] == 0:
        raise ValueError(
            f"value: got shape {tuple(value.shape)}, expected (B, N, H, D) with at least one head "
            "and channel"
        )


def check_samples(
    name: str, samples: Tensor, weights_name: str, weights: Tensor, expected: tuple[int, int, int]
) -> None:
    """Checks (x, y) pairs and weights of the samples.

    Args:
        name: Argument name of ``samples``.
        samples: (B, Q, H, L, P, 2).
        weights_name: Argument name of ``weights``.
        weights: (B, Q, H, L, P).
        expected: B, H and L.

    Raises:
        ValueError: A shape that does not fit.
    """
    batch, heads, levels = expected
    got = tuple(samples.shape)
    fits = len(got) == 6 and (got[0], got[2], got[3], got[5]) == (batch, heads, levels, 2)
    if not fits or got[4] == 0:
        raise ValueError(
            f"{name}: got shape {got}, expected ({batch}, Q, {heads}, {levels}, P, 2) with at "
            "least one point, to match the values and the levels"
        )
    if tuple(weights.shape) != got[:-1]:
        raise ValueError(
            f"{weights_name}: got shape {tuple(weights.shape)}, expected {got[:-1]} to match {name}"
        )


def check_reference(reference_points: Tensor, batch: int, queries: int, levels: int) -> None:
    """Raises a ValueError if ``reference_points`` is not (B, Q, L, 2) or (B, Q, L, 4)."""
    got = tuple(reference_points.shape)
    if len(got) != 4 or got[:3] != (batch, queries, levels) or got[3] not in (2, 4):
        raise ValueError(
            f"reference_points: got shape {got}, expected ({batch}, {queries}, {levels}, 2) points "
            f"or ({batch}, {queries}, {levels}, 4) boxes cxcywh"
        )
