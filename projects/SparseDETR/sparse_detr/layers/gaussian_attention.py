"""Dense attention whose weights are drawn towards a place: a Gaussian prior on the keys' cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .dense_attention import DenseAttention, attention_summed_over_heads
from .precision import at_least_float32

Size = tuple[int, int]


@dataclass(frozen=True, eq=False)
class GaussianPrior:
    """What queries add to their attention logits on one level, by head.

    The logarithm of the prior of a cell that lies (dx, dy) from the centre is
    ``-(precision_x dx^2 + precision_y dy^2 + product_precision dx^2 dy^2)``.

    Attributes:
        centres: (B, Q, H or 1, 2), order (x, y), in cells: the centre of the first cell is 0.
        precisions: (B or 1, Q or 1, H or 1, 2), order (x, y), at least 0, per cell squared.
        product_precision: (B, Q, H or 1), at least 0; None for a separable prior.

    Source: SMCA, section 3.2, equation 4. The released code multiplies by a squared scale where
        the paper divides by a width.
    """

    centres: Tensor
    precisions: Tensor
    product_precision: Tensor | None = None

    def query_features(self, shape: Size) -> Tensor:
        """(B, H or 1, Q, 4) which, times :func:`cell_features`, give the separable logarithm.

        A number per query is left out of it, which a softmax does not see.

        Args:
            shape: (H_l, W_l) of the level.
        """
        centres = self.centres - _middle(shape, self.centres)
        precisions = self.precisions.expand(*centres.shape[:-1], 2)
        return torch.cat([2 * precisions * centres, -precisions], dim=-1).transpose(1, 2)

    def squared_distances(self, shape: Size) -> tuple[Tensor, Tensor]:
        """(B, H or 1, Q, W_l) along x and (B, H or 1, Q, H_l) along y, in cells squared."""
        centres = self.centres.transpose(1, 2)
        along = [
            torch.arange(length, dtype=centres.dtype, device=centres.device)
            for length in (shape[1], shape[0])
        ]
        x, y = ((centres[..., axis, None] - along[axis]) ** 2 for axis in (0, 1))
        return x, y

    def product_term(self, shape: Size) -> Tensor | None:
        """(B, H or 1, Q, H_l * W_l) the part of the logarithm that is not separable."""
        if self.product_precision is None:
            return None
        x, y = self.squared_distances(shape)
        of_rows = y * -self.product_precision.transpose(1, 2)[..., None]
        return (of_rows[..., :, None] * x[..., None, :]).flatten(-2)

    def log_map(self, shape: Size) -> Tensor:
        """(B, H or 1, Q, H_l * W_l) the whole logarithm, for pictures and comparisons.

        Args:
            shape: (H_l, W_l) of the level.
        """
        x, y = self.squared_distances(shape)
        precisions = self.precisions.transpose(1, 2)
        of_columns, of_rows = x * precisions[..., :1], y * precisions[..., 1:]
        separable = -(of_rows[..., :, None] + of_columns[..., None, :]).flatten(-2)
        product = self.product_term(shape)
        return separable if product is None else separable + product


def cell_features(shape: Size, like: Tensor) -> Tensor:
    """(H_l * W_l, 4) coordinates x, y of the cells of a level and their squares.

    Counted from the middle of the map, where the numbers are smallest and lose least.

    Args:
        shape: (H_l, W_l).
        like: Gives type and device.
    """
    height, width = shape
    rows = torch.arange(height, dtype=like.dtype, device=like.device)
    columns = torch.arange(width, dtype=like.dtype, device=like.device)
    x, y = torch.meshgrid(columns, rows, indexing="xy")
    cells = torch.stack([x, y], dim=-1).flatten(0, 1) - _middle(shape, like)
    return torch.cat([cells, cells**2], dim=-1)


def _middle(shape: Size, like: Tensor) -> Tensor:
    return like.new_tensor([(shape[1] - 1) / 2, (shape[0] - 1) / 2])


class GaussianAttention(DenseAttention):
    """Dense attention with a Gaussian prior, by level.

    A squared distance is a product of four numbers of the query and four of the cell, so the prior
    joins the channels of queries and keys: neither it nor any distance of a query to a token is
    ever written out. Only a term that is not separable is added to the logits as a map. The logits
    are computed in float32 or more, whatever the precision around: half precision would round
    squared distances.

    Args:
        hidden_dim: Channels C, divisible by ``num_heads``.
        num_heads: Heads H.
        dropout: Probability on the attention weights, in training.

    Source: SMCA, sections 3.2 and 3.3.
    """

    def forward(  # type: ignore[override]  # an attention of its own, on the same weights
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        priors: Sequence[GaussianPrior],
        spatial_shapes: Sequence[Size],
        level_weights: Tensor | None = None,
        padding_mask: Tensor | None = None,
        with_map: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attended features, and the attention map if that is asked for.

        Args:
            query: (B, Q, C).
            key: (B, N, C), the cells of all levels.
            value: (B, N, C).
            priors: Of each level.
            spatial_shapes: L pairs (H_l, W_l).
            level_weights: (B, Q, L) what each level counts; the weights of an attention sum to 1
                on every level. None counts all alike.
            padding_mask: (B, N) bool, True on keys that nobody reads; None if all may be read. One
                key of each image and level must be readable.
            with_map: Also give the map, without gradient.

        Returns:
            (B, Q, C); and (B, Q, N) attention weights before dropout, summed over the heads, or
            None.
        """
        queries, keys, values = (self._heads(p) for p in self.projected(query, key, value))
        dtype = at_least_float32(queries.dtype)
        sizes = [height * width for height, width in spatial_shapes]
        by_level = zip(
            priors,
            spatial_shapes,
            keys.to(dtype).split_with_sizes(sizes, dim=2),
            values.to(dtype).split_with_sizes(sizes, dim=2),
            [None] * len(sizes)
            if padding_mask is None
            else padding_mask.split_with_sizes(sizes, dim=1),
            strict=True,
        )
        attended, maps = torch.zeros((), dtype=dtype, device=query.device), []
        with torch.autocast(query.device.type, enabled=False):
            scaled = queries.to(dtype) * queries.shape[-1] ** -0.5
            for level, (prior, shape, level_keys, level_values, padding) in enumerate(by_level):
                own = prior.query_features(shape).to(dtype)
                near = torch.cat([scaled, own.expand(-1, self.num_heads, -1, -1)], dim=-1)
                cells = cell_features(shape, level_keys).expand(*level_keys.shape[:2], -1, -1)
                placed = torch.cat([level_keys, cells], dim=-1)
                mask = _mask(prior.product_term(shape), padding)
                part = F.scaled_dot_product_attention(
                    near, placed, level_values, mask, self.dropout if self.training else 0.0,
                    scale=1.0,
                )  # fmt: skip
                weight = None if level_weights is None else level_weights[:, :, level, None]
                attended = attended + (part if weight is None else part * weight[:, None])
                if with_map:
                    found = attention_summed_over_heads(near, placed, mask, scale=1.0)
                    maps.append(found if weight is None else found * weight.detach())
        output = self.out_proj(attended.transpose(1, 2).flatten(2).to(query.dtype))
        return output, torch.cat(maps, dim=-1) if with_map else None


def _mask(product: Tensor | None, padding: Tensor | None) -> Tensor | None:
    """What is added to the logits, or which keys may be read; None for neither."""
    if padding is None:
        return product
    if product is None:
        return ~padding[:, None, None, :]
    return product.masked_fill(padding[:, None, None, :], float("-inf"))
