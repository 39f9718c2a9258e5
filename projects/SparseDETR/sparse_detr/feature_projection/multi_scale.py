"""Projection of the backbone's maps to one width, with extra coarse levels.

Role in the flow: backbone -> **feature projection** -> position embedding -> FeatureTokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn


class MultiScaleProjection(nn.Module):
    """1x1 convolutions for the backbone's levels, strided 3x3 convolutions for coarser ones.

    The first extra level is made from the last *raw* backbone map, further ones from the level
    before. Every projection ends in a group norm unless there is none; there is no activation.
    With one backbone map and one level it is DETR's projection.

    Args:
        in_channels: Channels of each backbone map, by name, finest first.
        hidden_dim: Channels C of all levels.
        num_levels: Levels L, at least the number of backbone maps.
        num_groups: Groups of the norms; None leaves the norms out, as DETR does.
        xavier_start: Start from Xavier-uniform weights and biases of zero. False leaves the
            convolutions as they start, as DETR does.
        extra_levels_derive_padding: Read the padding of an extra level from that of the level
            before instead of from the image; the released behaviour of SMCA. It makes no
            difference where images are not padded before the backbone.

    Source: Deformable DETR, appendix A.2; DETR, section 3.2.
    """

    def __init__(
        self,
        in_channels: Mapping[str, int],
        hidden_dim: int,
        num_levels: int,
        num_groups: int | None = 32,
        xavier_start: bool = True,
        extra_levels_derive_padding: bool = False,
    ) -> None:
        super().__init__()
        if num_levels < len(in_channels):
            raise ValueError(
                f"num_levels must be at least the number of backbone maps {list(in_channels)}, "
                f"got {num_levels}"
            )
        self.in_channels = dict(in_channels)
        extra_levels = num_levels - len(in_channels)
        self.derived_levels = extra_levels if extra_levels_derive_padding else 0
        channels = list(in_channels.values())
        convolutions = [nn.Conv2d(c, hidden_dim, kernel_size=1) for c in channels]
        for extra in range(num_levels - len(channels)):
            source = channels[-1] if extra == 0 else hidden_dim
            convolutions.append(nn.Conv2d(source, hidden_dim, 3, stride=2, padding=1))
        self.projections = nn.ModuleList(
            nn.Sequential(conv)
            if num_groups is None
            else nn.Sequential(conv, nn.GroupNorm(num_groups, hidden_dim))
            for conv in convolutions
        )
        for conv in convolutions if xavier_start else ():
            nn.init.xavier_uniform_(conv.weight)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)

    def strides(self, backbone_strides: Mapping[str, int]) -> tuple[int, ...]:
        """Pixels from one cell of a level to the next, for the L levels.

        Args:
            backbone_strides: The same of the backbone's maps, by name.
        """
        strides = [backbone_strides[name] for name in self.in_channels]
        while len(strides) < len(self.projections):
            strides.append(2 * strides[-1])
        return tuple(strides)

    def forward(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """L projected maps from the backbone's.

        Args:
            features: Maps (B, C_l, H_l, W_l) by name, as a Detectron2 backbone gives them.

        Returns:
            L maps (B, C, H_l, W_l), finest first.
        """
        maps: Sequence[Tensor] = [features[name] for name in self.in_channels]
        projected: list[Tensor] = []
        for level, projection in enumerate(self.projections):
            if level < len(maps):
                source = maps[level]
            elif level == len(maps):
                source = maps[-1]
            else:
                source = projected[-1]
            projected.append(projection(source))
        return projected
