"""SMCA's multi-scale encoder with convolutions, as released.

Role in the flow: token selection -> **encoder** -> query selection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..heads import DetectionHeads
from ..layers.initialization import xavier_matrices_
from ..structures import EncoderOutput, FeatureTokens, MemoryTokens, Size, TokenSelection
from .encoder_stack import Encoder, EncoderLayer

Maps = list[Tensor]
Covered = tuple[tuple[Size, ...], ...]


class ScaleMixing(nn.Module):
    """Depthwise convolutions within every scale and between neighbouring ones.

    Args:
        hidden_dim: Channels C.
        num_levels: Levels L, each half as fine as the one before.
        kernel_size: Of the depthwise convolutions, odd.
        separate_crossings: Every pair of neighbours has convolutions of its own, one up and one
            down. False shares one of each among all pairs.
        pointwise: Have a one-by-one convolution in front of all others, and one behind.

    Source: SMCA, released code of the "new multi-scale" variants; the paper has attention instead,
        see :class:`IntraMultiEncoder`.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_levels: int,
        kernel_size: int,
        separate_crossings: bool,
        pointwise: bool = True,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}")
        crossings = num_levels - 1 if separate_crossings else 1

        def depthwise(stride: int = 1) -> nn.Conv2d:
            return nn.Conv2d(
                hidden_dim, hidden_dim, kernel_size, stride, kernel_size // 2, groups=hidden_dim
            )

        def one_by_one() -> nn.Module:
            return nn.Conv2d(hidden_dim, hidden_dim, 1) if pointwise else nn.Identity()

        self.enter = one_by_one()
        self.within = nn.ModuleList(depthwise() for _ in range(num_levels))
        self.down = nn.ModuleList(depthwise(2) for _ in range(crossings))
        self.up = nn.ModuleList(depthwise() for _ in range(crossings))
        self.leave = one_by_one()

    def forward(self, maps: Maps) -> Maps:
        """L maps (B, C, H_l, W_l) that have seen their neighbours, from such."""
        own = [conv(self.enter(m)) for conv, m in zip(self.within, maps, strict=True)]
        mixed = list(own)
        for level in range(1, len(own)):
            crossing = min(level, len(self.up)) - 1
            fine, coarse = own[level - 1], own[level]
            size = fine.shape[-2:]
            up = F.interpolate(self.up[crossing](coarse), size, mode="bilinear", align_corners=True)
            mixed[level - 1] = mixed[level - 1] + up
            mixed[level] = mixed[level] + fitted(self.down[crossing](fine), coarse.shape[-2:])
        return [self.leave(m) for m in mixed]


class ConvolutionEncoderLayer(EncoderLayer):
    """Convolutions and feed-forward network, each with residual and post-norm.

    Args:
        hidden_dim: Channels C.
        mixing: The convolutions.
        feedforward_dim: Width of the feed-forward network.
        dropout: Probability, in training.
    """

    def __init__(
        self, hidden_dim: int, mixing: ScaleMixing, feedforward_dim: int, dropout: float
    ) -> None:
        super().__init__(mixing, hidden_dim, feedforward_dim, dropout)

    def forward(
        self,
        rows: Tensor,
        memory: Tensor,
        position: Tensor,
        spatial_shapes: Sequence[Size],
        covered: Covered,
    ) -> Tensor:
        """Updated rows.

        Args:
            rows: (B, N, C) all tokens.
            memory: The same tensor.
            position: (B, N, C).
            spatial_shapes: L pairs (H_l, W_l).
            covered: For each image what takes part of each level, (rows, columns).
        """
        mixed = by_cover(self.self_attn, maps_of(rows + position, spatial_shapes), covered)
        return self.updated(rows, rows_of(mixed))


class ConvolutionEncoder(Encoder):
    """A stack of layers with convolutions; the finest level leaves it at half its size.

    What the decoder reads is [level 0 halved, level 1, ..., level L-1]; its first two parts lie on
    the same cells and have the same positions.

    Args:
        hidden_dim: Channels C.
        num_levels: Levels L, at least 2, each half as fine as the one before.
        num_layers: Layers E.
        kernel_size: Of the depthwise convolutions, odd.
        separate_crossings: See :class:`ScaleMixing`.
        pointwise: See :class:`ScaleMixing`.
        feedforward_dim: Width of the feed-forward networks.
        dropout: Probability, in training.
        padding_takes_part: False convolves what each image covers, as if it were alone. True is
            the released behaviour: padding is convolved like anything else and leaks into the
            image.
        checkpoint_activations: Recompute activations in the backward pass to save memory.

    Source: SMCA, released code of the "new multi-scale" variants.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_levels: int,
        num_layers: int = 6,
        kernel_size: int = 7,
        separate_crossings: bool = False,
        pointwise: bool = True,
        feedforward_dim: int = 1024,
        dropout: float = 0.1,
        padding_takes_part: bool = False,
        checkpoint_activations: bool = False,
    ) -> None:
        if num_levels < 2:
            raise ValueError(f"num_levels must be at least 2, got {num_levels}")
        layers = [
            ConvolutionEncoderLayer(
                hidden_dim,
                ScaleMixing(hidden_dim, num_levels, kernel_size, separate_crossings, pointwise),
                feedforward_dim,
                dropout,
            )
            for _ in range(num_layers)
        ]
        super().__init__(layers, checkpoint_activations)
        self.padding_takes_part = padding_takes_part
        self.halve = nn.Conv2d(hidden_dim, hidden_dim, 3, stride=2, padding=1)
        xavier_matrices_(self.halve)

    def _covered(self, tokens: FeatureTokens) -> Covered:
        """For each image what takes part of each level."""
        covered = tokens.geometry.covered
        return (tokens.spatial_shapes,) * len(covered) if self.padding_takes_part else covered

    def place(self, tokens: FeatureTokens, indices: Tensor | None) -> tuple[Any, ...]:
        """Positions, shapes and what the images cover; see :meth:`Encoder.place`.

        Raises:
            ValueError: Not all tokens are to be updated.
        """
        if indices is not None:
            raise ValueError(
                "token_selection must be None for a ConvolutionEncoder: it convolves whole maps"
            )
        return tokens.position, tokens.spatial_shapes, self._covered(tokens)

    def forward(
        self,
        tokens: FeatureTokens,
        selection: TokenSelection | None,
        num_auxiliary: int = 0,
        heads: DetectionHeads | None = None,
    ) -> EncoderOutput:
        """The memory, with its sequence; see :meth:`Encoder.forward`."""
        encoded = super().forward(tokens, selection, num_auxiliary, heads)
        shapes = tokens.spatial_shapes
        finest, *others = maps_of(encoded.memory, shapes)
        size, covered = shapes[1], self._covered(tokens)
        halved = by_cover(
            lambda maps: [fitted(self.halve(maps[0]), maps[1].shape[-2:])],
            [finest, others[0]],
            tuple(image[:2] for image in covered),
            [size],
        )
        start, second = shapes[0][0] * shapes[0][1], size[0] * size[1]

        def moved(values: Tensor) -> Tensor:
            """Tokens' values (B, N, ...) as those of the sequence."""
            return torch.cat([values[:, start : start + second], values[:, start:]], dim=1)

        mask, strides = tokens.key_padding_mask, tokens.strides
        memory = rows_of([*halved, *others])
        sequence = MemoryTokens(
            memory,
            moved(tokens.position),
            partial(_on_tokens, shapes, tokens.padding_mask[:, :start]),
            None if mask is None else moved(mask),
            (size, *shapes[1:]),
            tokens.image_sizes,
            None if strides is None else (strides[1], *strides[1:]),
        )
        return EncoderOutput(memory, encoded.layer_rows, None, sequence)


def _on_tokens(shapes: tuple[Size, ...], padding: Tensor, received: Tensor) -> Tensor:
    """What the tokens received, from what the sequence did: a halved cell shares it out.

    Args:
        shapes: (H_l, W_l) of the levels of the tokens.
        padding: (B, H_0 * W_0) bool, True on padding of the finest level.
        received: (B, Q, N') with the finest level halved.

    Returns:
        (B, Q, N).
    """
    (rows, columns), (half_rows, half_columns) = shapes[0], shapes[1]
    row = (torch.arange(rows, device=received.device) // 2).clamp(max=half_rows - 1)
    column = (torch.arange(columns, device=received.device) // 2).clamp(max=half_columns - 1)
    cell = (row[:, None] * half_columns + column).flatten()
    halved, own = half_rows * half_columns, (~padding).to(received.dtype)
    children = own.new_zeros(len(own), halved).index_add(1, cell, own).clamp(min=1)
    finest = (received[..., :halved] / children[:, None])[..., cell] * own[:, None]
    return torch.cat([finest, received[..., halved:]], dim=-1)


def maps_of(rows: Tensor, spatial_shapes: Sequence[Size]) -> Maps:
    """L maps (B, C, H_l, W_l) from the tokens (B, N, C) of all levels."""
    levels = rows.split_with_sizes([height * width for height, width in spatial_shapes], dim=1)
    return [
        level.transpose(1, 2).reshape(len(rows), -1, *shape)
        for level, shape in zip(levels, spatial_shapes, strict=True)
    ]


def rows_of(maps: Sequence[Tensor]) -> Tensor:
    """Tokens (B, N, C) of all levels from L maps (B, C, H_l, W_l)."""
    return torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)


def fitted(map_: Tensor, size: Sequence[int]) -> Tensor:
    """A map cut, or filled up with zero, at the bottom and right to a size (rows, columns)."""
    if tuple(map_.shape[-2:]) == tuple(size):
        return map_
    return F.pad(map_, (0, size[1] - map_.shape[-1], 0, size[0] - map_.shape[-2]))


def by_cover(
    convolve: Callable[[Maps], Maps],
    maps: Maps,
    covered: Covered,
    sizes: Sequence[Size] | None = None,
) -> Maps:
    """Maps of a batch, convolved as if every image were alone.

    Args:
        convolve: Gives maps from maps; all images in a call cover their maps alike.
        maps: L maps (B, C, H_l, W_l).
        covered: For each image the L pairs (rows, columns) that it covers.
        sizes: Size of each map that is given; None for those of ``maps``.

    Returns:
        Maps, zero where an image does not reach.
    """
    whole = tuple((int(m.shape[-2]), int(m.shape[-1])) for m in maps)
    if all(image == whole for image in covered):
        return convolve(maps)
    sizes = whole if sizes is None else sizes
    groups: dict[tuple[Size, ...], list[int]] = {}
    for position, image in enumerate(covered):
        groups.setdefault(image, []).append(position)
    order = [p for group in groups.values() for p in group]
    back = torch.tensor(sorted(range(len(order)), key=order.__getitem__), device=maps[0].device)
    parts = []
    for image, positions in groups.items():
        index = torch.tensor(positions, device=maps[0].device)
        own = [m[index, :, :h, :w] for m, (h, w) in zip(maps, image, strict=True)]
        parts.append([fitted(m, s) for m, s in zip(convolve(own), sizes, strict=True)])
    return [torch.cat(level)[back] for level in zip(*parts, strict=True)]
