"""Multi-scale deformable attention: the attention of sparse encoder and decoder."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..structures import Sampling, Size
from .ms_deform_attn import ms_deform_attn
from .precision import at_least_float32


class MultiScaleDeformableAttention(nn.Module):
    """Attention that reads a few learned points per head and level.

    Args:
        hidden_dim: Channels C, divisible by ``num_heads``.
        num_heads: Heads H.
        num_levels: Levels L.
        num_points: Points P per head and level.

    Source: Deformable DETR, equation 3 and appendix A.
    """

    def __init__(
        self, hidden_dim: int, num_heads: int, num_levels: int, num_points: int = 4
    ) -> None:
        super().__init__()
        if hidden_dim % num_heads:
            raise ValueError(
                f"hidden_dim must be divisible by num_heads, got {hidden_dim} and {num_heads}"
            )
        self.num_heads = num_heads
        self.num_levels = num_levels
        self.num_points = num_points
        samples = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(hidden_dim, samples * 2)
        self.attention_weights = nn.Linear(hidden_dim, samples)
        self.value_proj = nn.Linear(hidden_dim, hidden_dim)
        self.output_proj = nn.Linear(hidden_dim, hidden_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Heads look in evenly spread directions, point p at distance p + 1, equal weights."""
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            angles = torch.arange(self.num_heads) * (2.0 * math.pi / self.num_heads)
            directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
            directions = directions / directions.abs().amax(dim=-1, keepdim=True)
            distance = torch.arange(1, self.num_points + 1)
            pattern = directions[:, None, None] * distance[None, None, :, None]
            pattern = pattern.expand(-1, self.num_levels, -1, -1)
            self.sampling_offsets.bias.copy_(pattern.reshape(-1))
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(
        self,
        query: Tensor,
        reference_points: Tensor,
        source: Tensor,
        spatial_shapes: Sequence[Size],
        padding_mask: Tensor | None = None,
    ) -> tuple[Tensor, Sampling]:
        """Attended features and where they were read.

        Args:
            query: (B, Q, C).
            reference_points: (B, Q, L, 2) points, or (B, Q, L, 4) boxes cxcywh, normalised to the
                padded map of each level.
            source: (B, N, C) tokens that give the values.
            spatial_shapes: L pairs (H_l, W_l).
            padding_mask: (B, N) bool, True on tokens whose value is zero.

        Returns:
            (B, Q, C), and the sampling, which costs nothing unless it is kept.

        Raises:
            ValueError: Reference points that are neither points nor boxes.
        """
        batch, num_tokens, _ = source.shape
        value = self.value_proj(source)
        if padding_mask is not None:
            value = value.masked_fill(padding_mask[..., None], 0)
        value = value.view(batch, num_tokens, self.num_heads, -1)
        sampling = self._sampling(query, reference_points, spatial_shapes)
        attended = ms_deform_attn(value, spatial_shapes, sampling.locations, sampling.weights)
        return self.output_proj(attended), sampling

    def _sampling(
        self, query: Tensor, reference_points: Tensor, spatial_shapes: Sequence[Size]
    ) -> Sampling:
        batch, num_queries, _ = query.shape
        shape = (batch, num_queries, self.num_heads, self.num_levels, self.num_points)
        # Half precision would move a location on a wide map by up to a third of a cell.
        with torch.autocast(query.device.type, enabled=False):
            query = query.to(self.sampling_offsets.weight.dtype)
            offsets = self.sampling_offsets(query)
            offsets = offsets.to(at_least_float32(offsets.dtype))
            weights = self.attention_weights(query).view(*shape[:3], -1).softmax(-1).view(shape)
            reference = reference_points.to(offsets.dtype)[:, :, None, :, None]
            if reference.shape[-1] == 2:
                # One divisor per output of the layer: a broadcast over pairs is slow.
                size = offsets.new_tensor([(w, h) for h, w in spatial_shapes])[:, None]
                size = size.expand(self.num_heads, -1, self.num_points, -1).reshape(-1)
                locations = reference + (offsets / size).view(*shape, 2)
            elif reference.shape[-1] == 4:
                offsets = (offsets / self.num_points).view(*shape, 2)
                locations = reference[..., :2] + offsets * reference[..., 2:] * 0.5
            else:
                raise ValueError(
                    "reference_points must end in 2 (points) or 4 (boxes cxcywh) numbers, got "
                    f"{tuple(reference_points.shape)}"
                )
        return Sampling(locations, weights)
