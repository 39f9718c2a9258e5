"""Every operator with a gradient as a function of its tensors, for tests that hold for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from deform_attn_inputs import Shapes, away_from_kinks, make_inputs
from torch import Tensor

from sparse_detr.layers.ms_deform_attn import ms_deform_attn, ms_deform_attn_fused
from sparse_detr.layers.sample_then_project import sample_then_project

OPERATORS = ("given", "points", "boxes", "sample_then_project")


@dataclass
class OperatorCall:
    """One call of an operator.

    Attributes:
        operator: One of `OPERATORS`.
        shapes: Level sizes.
        leaves: The tensors that have gradients; the first are in the dtype of the values.
        grad: Gradient of the output.
        valid_sizes: (B, L, 2), or None.
    """

    operator: str
    shapes: Shapes
    leaves: list[Tensor]
    grad: Tensor
    valid_sizes: Tensor | None

    def output(self, *leaves: Tensor) -> Tensor:
        """Calls the operator."""
        shapes, valid = self.shapes, self.valid_sizes
        if self.operator == "given":
            return ms_deform_attn(leaves[0], shapes, leaves[1], leaves[2], valid)
        if self.operator == "sample_then_project":
            source, weight, bias, *raw = leaves
            return sample_then_project(source, shapes, *raw, weight, bias, valid)
        return ms_deform_attn_fused(leaves[0], shapes, *leaves[1:], valid)

    def results(self) -> list[Tensor]:
        """Gives the output and the gradients of all leaves."""
        leaves = [leaf.detach().requires_grad_() for leaf in self.leaves]
        output = self.output(*leaves)
        return [output.detach(), *torch.autograd.grad(output, leaves, self.grad)]

    def changed(self, change: Callable[[Tensor], Tensor]) -> OperatorCall:
        """Gives the call with every tensor changed."""
        valid = None if self.valid_sizes is None else change(self.valid_sizes)
        leaves = [change(leaf) for leaf in self.leaves]
        return OperatorCall(self.operator, self.shapes, leaves, change(self.grad), valid)

    def in_float64(self) -> OperatorCall:
        """Gives the call with the same numbers in float64."""
        return self.changed(
            lambda tensor: tensor.double() if tensor.is_floating_point() else tensor
        )


def _raw_samples(locations: Tensor, shapes: Shapes, boxes: bool) -> tuple[Tensor, Tensor]:
    """Gives reference points, and the offsets that lead from them to the locations."""
    batch, queries, _, levels, points, _ = locations.shape
    reference = torch.rand(batch, queries, levels, 4 if boxes else 2, dtype=torch.float64)
    reference[..., 2:] += 0.1
    way = locations - reference[:, :, None, :, None, :2]
    if boxes:
        return reference, way * points * 2 / reference[:, :, None, :, None, 2:]
    size = torch.tensor([(width, height) for height, width in shapes], dtype=torch.float64)
    return reference, way * size[:, None]


def make_call(
    operator: str,
    shapes: Shapes,
    *,
    dtype: torch.dtype = torch.float64,
    batch: int = 3,
    queries: int = 101,
    heads: int = 3,
    channels: int = 8,
    points: int = 4,
    padded: bool = False,
    seed: int = 0,
) -> OperatorCall:
    """Random inputs; some samples lie outside their level, none where the gradient jumps."""
    torch.manual_seed(seed)
    real = torch.float64 if dtype == torch.float64 else torch.float32
    features = heads * channels
    value, locations, scores = make_inputs(
        shapes,
        batch=batch,
        queries=queries,
        heads=heads,
        channels=channels,
        points=points,
        low=-0.3,
        high=1.3,
    )
    cells: Shapes = [(max(height, 1), max(width, 1)) for height, width in shapes]
    locations = away_from_kinks(locations, cells)
    values = [value]
    if operator == "sample_then_project":
        weight = torch.randn(features, features, dtype=torch.float64) / features**0.5
        values = [value.flatten(2), weight, torch.randn(features, dtype=torch.float64)]
    numbers = [locations, scores]
    if operator != "given":
        numbers = [*_raw_samples(locations, cells, operator == "boxes"), scores]
    leaves = [tensor.to(dtype) for tensor in values] + [tensor.to(real) for tensor in numbers]
    valid_sizes = None
    if padded:
        part = [[(height + 1) // 2, (width + 2) // 3] for height, width in shapes]
        full = [list(shape) for shape in shapes]
        valid_sizes = torch.tensor([part if image % 2 else full for image in range(batch)])
    grad = torch.randn(batch, queries, features, dtype=torch.float64).to(dtype)
    return OperatorCall(operator, shapes, leaves, grad, valid_sizes)
