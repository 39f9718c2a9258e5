"""Multi-scale deformable attention: the attention of sparse encoder and decoder."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..structures import Sampling, Size
from .ms_deform_attn import deform_attn_sampling, ms_deform_attn_fused
from .precision import at_least_float32
from .sample_then_project import sample_then_project, sampling_first_is_faster


class MultiScaleDeformableAttention(nn.Module):
    """Attention that reads a few learned points per head and level.

    Args:
        hidden_dim: Channels C, divisible by ``num_heads``.
        num_heads: Heads H.
        num_levels: Levels L.
        num_points: Points P per head and level.
        project_after_sampling: Sample the tokens and project the samples to values, instead of
            projecting all tokens first: the same result, in less time where queries are few. None
            decides by device and number of queries.

    Source: Deformable DETR, equation 3 and appendix A.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        num_levels: int,
        num_points: int = 4,
        project_after_sampling: bool | None = None,
    ) -> None:
        super().__init__()
        if hidden_dim % num_heads:
            raise ValueError(
                f"hidden_dim must be divisible by num_heads, got {hidden_dim} and {num_heads}"
            )
        self.num_heads = num_heads
        self.num_levels = num_levels
        self.num_points = num_points
        self.project_after_sampling = project_after_sampling
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
        valid_sizes: Tensor | None = None,
        with_sampling: bool = False,
    ) -> tuple[Tensor, Sampling | None]:
        """Attended features, and where they were read if that is asked for.

        Args:
            query: (B, Q, C).
            reference_points: (B, Q, L, 2) points, or (B, Q, L, 4) boxes cxcywh, normalised to the
                padded map of each level.
            source: (B, N, C) tokens that give the values.
            spatial_shapes: L pairs (H_l, W_l).
            valid_sizes: (B, L, 2) int64 rows and columns of each level that belong to the image;
                the cells beyond give zero. None where there is no padding.
            with_sampling: Also give the sampling, without gradient.

        Returns:
            (B, Q, C), and the sampling or None.
        """
        offsets, logits = self._raw_samples(query)
        reference = reference_points.to(offsets.dtype)
        samples = (reference, offsets, logits)
        if self._samples_first(query, source):
            dtype = source.dtype
            weight, bias = self.value_proj.weight.to(dtype), self.value_proj.bias.to(dtype)
            attended = sample_then_project(
                source, spatial_shapes, *samples, weight, bias, valid_sizes
            )
        else:
            value = self.value_proj(source).unflatten(-1, (self.num_heads, -1))
            attended = ms_deform_attn_fused(value, spatial_shapes, *samples, valid_sizes)
        sampling = None
        if with_sampling:
            sampling = Sampling(*deform_attn_sampling(*samples, spatial_shapes))
        return self.output_proj(attended), sampling

    def _raw_samples(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets (B, Q, H, L, P, 2) and logits (B, Q, H, L, P)."""
        shape = (*query.shape[:2], self.num_heads, self.num_levels, self.num_points)
        # Half precision would move a location on a wide map by up to a third of a cell.
        with torch.autocast(query.device.type, enabled=False):
            query = query.to(self.sampling_offsets.weight.dtype)
            offsets, logits = self.sampling_offsets(query), self.attention_weights(query)
        dtype = at_least_float32(offsets.dtype)
        return offsets.to(dtype).view(*shape, 2), logits.to(dtype).view(shape)

    def _samples_first(self, query: Tensor, source: Tensor) -> bool:
        if self.project_after_sampling is not None:
            return self.project_after_sampling
        return sampling_first_is_faster(
            source.device.type, query.shape[1], source.shape[1], torch.is_grad_enabled()
        )
