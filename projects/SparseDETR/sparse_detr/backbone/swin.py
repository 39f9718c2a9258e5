"""Swin Transformer as a Detectron2 backbone: images to feature maps at strides 8, 16 and 32.

The blocks, patch merging and initialisation are torchvision's; the patch embedding, window
attention, output norms and freezing are those of detection.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn
from torchvision.models.swin_transformer import PatchMerging, SwinTransformerBlock

from .window_attention import MaskedShiftWindowAttention

_PATCH_SIZE = 4
_HEAD_DIM = 32  # the same in every published Swin size
_layer_norm = partial(nn.LayerNorm, eps=1e-5)


class PatchEmbedding(nn.Module):
    """One token per 4x4 patch; the image is padded right and bottom to whole patches."""

    def __init__(self, embed_dim: int) -> None:
        """Builds the projection and its norm.

        Args:
            embed_dim: channels of a token.
        """
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=_PATCH_SIZE, stride=_PATCH_SIZE)
        self.norm = _layer_norm(embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Embeds (B, 3, H, W) as (B, ceil(H/4), ceil(W/4), C)."""
        height, width = images.shape[-2:]
        images = F.pad(images, (0, -width % _PATCH_SIZE, 0, -height % _PATCH_SIZE))
        tokens: Tensor = self.norm(self.proj(images).permute(0, 2, 3, 1))
        return tokens


class SwinStage(nn.Module):
    """The blocks of one resolution and, but for the last stage, the step to half of it."""

    def __init__(
        self, dim: int, drop_path_rates: Sequence[float], has_downsample: bool, window_size: int = 7
    ) -> None:
        """Builds one block per entry of ``drop_path_rates``.

        Args:
            dim: channels.
            drop_path_rates: probability, per block, that a sample skips a residual branch.
            has_downsample: whether a later stage reads this one.
            window_size: tokens along a side of a window.
        """
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinTransformerBlock(
                dim,
                num_heads=dim // _HEAD_DIM,
                window_size=[window_size, window_size],
                shift_size=[0, 0] if index % 2 == 0 else [window_size // 2, window_size // 2],
                stochastic_depth_prob=rate,
                norm_layer=_layer_norm,
                attn_layer=MaskedShiftWindowAttention,
            )
            for index, rate in enumerate(drop_path_rates)
        )
        self.downsample = PatchMerging(dim, _layer_norm) if has_downsample else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gives the map of this stage and what the next stage reads.

        Args:
            x: (B, H, W, C).

        Returns:
            (B, H, W, C), and (B, ceil(H/2), ceil(W/2), 2C) or, after the last stage, the same map.
        """
        for block in self.blocks:
            x = block(x)
        return x, x if self.downsample is None else self.downsample(x)


class SwinBackbone(Backbone):
    """Swin Transformer with an output norm per returned stage.

    Source: Swin Transformer, section 3. Sparse DETR's released code leaves drop path active in
    frozen stages, here an option.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        drop_path_rate: float = 0.2,
        out_features: Sequence[str] = ("stage1", "stage2", "stage3"),
        freeze_at: int = 2,
        drop_path_in_frozen_stages: bool = False,
        window_size: int = 7,
    ) -> None:
        """Builds the stages up to the last one that is returned.

        Args:
            embed_dim: channels of ``stage0``, a multiple of 32; they double at each stage.
            depths: blocks per stage.
            drop_path_rate: drop path of the last block; it rises linearly from 0 at the first.
            out_features: names of the returned stages, ``stage0`` (stride 4) and up.
            freeze_at: 0 trains everything, 1 freezes the patch embedding, 2 also the first stage
                with its downsampling, and so on (counted as in Detectron2's ResNet).
            drop_path_in_frozen_stages: whether ``train()`` makes frozen stages drop paths too.
                False keeps them deterministic; True is the released behaviour.
            window_size: tokens along a side of a window; 12 in the models for images of 384.

        Raises:
            ValueError: an argument is out of its range.
        """
        super().__init__()
        depths = tuple(depths)
        self._check_arguments(embed_dim, depths, drop_path_rate, out_features, freeze_at)
        if window_size < 2:
            raise ValueError(f"window_size must be at least 2: {window_size}")
        self._out_features = list(out_features)
        self._freeze_at = freeze_at
        self.drop_path_in_frozen_stages = drop_path_in_frozen_stages
        returned = [int(name.removeprefix("stage")) for name in out_features]
        channels = [embed_dim * 2**index for index in range(len(depths))]
        strides = [_PATCH_SIZE * 2**index for index in range(len(depths))]
        self._out_feature_channels = {f"stage{index}": channels[index] for index in returned}
        self._out_feature_strides = {f"stage{index}": strides[index] for index in returned}

        self.patch_embed = PatchEmbedding(embed_dim)
        rates = _drop_path_rates(depths, drop_path_rate)
        last = max(returned)
        self.stages = nn.ModuleList(
            SwinStage(channels[index], rates[index], index < last, window_size)
            for index in range(last + 1)
        )
        for index in sorted(returned):
            self.add_module(f"norm{index}", _layer_norm(channels[index]))
        self.apply(_initialise_linear)
        for module in self._frozen_modules():
            module.requires_grad_(False)
        self.train()

    @staticmethod
    def _check_arguments(
        embed_dim: int,
        depths: Sequence[int],
        drop_path_rate: float,
        out_features: Sequence[str],
        freeze_at: int,
    ) -> None:
        if embed_dim <= 0 or embed_dim % _HEAD_DIM:
            raise ValueError(f"embed_dim must be a positive multiple of {_HEAD_DIM}: {embed_dim}")
        if not depths or min(depths) < 1:
            raise ValueError(f"depths must give at least one block for each stage: {list(depths)}")
        if not 0.0 <= drop_path_rate < 1.0:
            raise ValueError(f"drop_path_rate must be in [0, 1): {drop_path_rate}")
        known = [f"stage{index}" for index in range(len(depths))]
        if not out_features or not set(out_features) <= set(known):
            raise ValueError(f"out_features must name one or more of {known}: {list(out_features)}")
        if not 0 <= freeze_at <= len(depths) + 1:
            raise ValueError(
                f"freeze_at must be from 0 to {len(depths) + 1} (all stages): {freeze_at}"
            )

    def _frozen_modules(self) -> list[nn.Module]:
        return [self.patch_embed, *self.stages][: self._freeze_at]

    def train(self, mode: bool = True) -> SwinBackbone:
        """Sets the mode; frozen stages stay in eval mode unless they are to drop paths."""
        super().train(mode)
        if not self.drop_path_in_frozen_stages:
            for module in self._frozen_modules():
                module.eval()
        return self

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Gives the feature map of every stage in ``out_features``.

        Args:
            images: (B, 3, H, W), normalised, any size from 1x1 on.

        Returns:
            Stage name to (B, C, ceil(H/stride), ceil(W/stride)).

        Raises:
            ValueError: ``images`` is not a batch of three-channel images.
        """
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"images must have shape (B, 3, H, W): {tuple(images.shape)}")
        features: dict[str, Tensor] = {}
        x = self.patch_embed(images)
        for index, stage in enumerate(self.stages):
            stage_map, x = stage(x)
            name = f"stage{index}"
            if name in self._out_feature_channels:
                normed = self.get_submodule(f"norm{index}")(stage_map)
                features[name] = normed.permute(0, 3, 1, 2).contiguous()
        return {name: features[name] for name in self._out_features}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of every returned stage."""
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name],
                stride=self._out_feature_strides[name],
            )
            for name in self._out_features
        }


def _drop_path_rates(depths: Sequence[int], last_rate: float) -> list[list[float]]:
    """Drop path per stage and block: linear from 0 at the first block to ``last_rate``."""
    steps = max(sum(depths) - 1, 1)
    starts = [sum(depths[:stage]) for stage in range(len(depths))]
    return [
        [last_rate * (start + block) / steps for block in range(depth)]
        for start, depth in zip(starts, depths, strict=True)
    ]


def _initialise_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
