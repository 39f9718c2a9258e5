"""Shifted window attention of the Swin backbone, with detection-style padding and masks.

torchvision's module is kept for its parameters. Its forward is replaced because it drops the
shift on maps that fit in one window, which is what small feature maps of a detector do.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.swin_transformer import ShiftedWindowAttention

# Added to the logit of two tokens that the cyclic shift made neighbours. Finite, because the
# trained weights saw this value.
_SEPARATION = -100.0


def shift_attention_mask(
    padded_size: tuple[int, int],
    window_size: tuple[int, int],
    shift_size: tuple[int, int],
    reference: Tensor,
) -> Tensor:
    """Additive mask that keeps apart the regions which a cyclic shift brought into one window.

    Args:
        padded_size: (h, w) of the map, multiples of ``window_size``.
        window_size: (h, w) of a window.
        shift_size: (h, w) by which the map was rolled.
        reference: tensor that gives dtype and device.

    Returns:
        (windows, T, T) with 0 inside a region and -100 across, T = tokens of a window.
    """
    row_region, column_region = (
        _regions(size, window, shift, reference.device)
        for size, window, shift in zip(padded_size, window_size, shift_size, strict=True)
    )
    region = (3 * row_region[:, None] + column_region[None, :])[None, :, :, None]
    region = partition_windows(region, window_size)[0, :, :, 0]
    separate = region[:, :, None] != region[:, None, :]
    return torch.zeros(separate.shape, dtype=reference.dtype, device=reference.device).masked_fill_(
        separate, _SEPARATION
    )


def partition_windows(x: Tensor, window_size: tuple[int, int]) -> Tensor:
    """The windows of a map, in row-major order.

    Args:
        x: (B, H, W, C), H and W multiples of the window.
        window_size: (h, w) of a window.

    Returns:
        (B, windows, T, C), T = tokens of a window.
    """
    batch, height, width, channels = x.shape
    rows, columns = window_size
    x = x.view(batch, height // rows, rows, width // columns, columns, channels)
    return x.transpose(2, 3).reshape(batch, -1, rows * columns, channels)


def merge_windows(
    windows: Tensor, padded_size: tuple[int, int], window_size: tuple[int, int]
) -> Tensor:
    """The map that ``partition_windows`` took apart.

    Args:
        windows: (B, windows, T, C).
        padded_size: (h, w) of the map.
        window_size: (h, w) of a window.

    Returns:
        (B, H, W, C).
    """
    batch, channels = windows.shape[0], windows.shape[-1]
    height, width = padded_size
    rows, columns = window_size
    x = windows.view(batch, height // rows, width // columns, rows, columns, channels)
    return x.transpose(2, 3).reshape(batch, height, width, channels)


class MaskedShiftWindowAttention(ShiftedWindowAttention):
    """Window attention that pads the map to whole windows and always shifts with a mask.

    Source: Swin Transformer, section 3.2. The zero tokens of the padding take part as keys, as in
    the code that the detection weights were trained with.
    """

    def define_relative_position_index(self) -> None:
        """Registers the index of each token pair as a non-persistent buffer."""
        super().define_relative_position_index()
        # It follows from the window size alone, so checkpoints need not carry it.
        self.register_buffer(
            "relative_position_index", self.relative_position_index, persistent=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Attends within windows.

        Args:
            x: (B, H, W, C), any H and W from 1 on.

        Returns:
            (B, H, W, C).
        """
        height, width = x.shape[1:3]
        window: tuple[int, int] = tuple(self.window_size)
        shift: tuple[int, int] = tuple(self.shift_size)
        x = F.pad(x, (0, 0, 0, -width % window[1], 0, -height % window[0]))
        padded_size = (x.shape[1], x.shape[2])
        bias = self.get_relative_position_bias()
        if any(shift):
            x = torch.roll(x, (-shift[0], -shift[1]), dims=(1, 2))
            bias = bias + shift_attention_mask(padded_size, window, shift, bias)[:, None]
        x = self._attend(partition_windows(x, window), bias)
        x = merge_windows(x, padded_size, window)
        if any(shift):
            x = torch.roll(x, shift, dims=(1, 2))
        return x[:, :height, :width]

    def _attend(self, windows: Tensor, bias: Tensor) -> Tensor:
        """(B, windows, T, C) attended inside each window; ``bias`` (1 or windows, H, T, T)."""
        batch, count, tokens, channels = windows.shape
        heads = self.num_heads
        qkv = self.qkv(windows).view(batch, count, tokens, 3, heads, channels // heads)
        query, key, value = qkv.permute(3, 0, 1, 4, 2, 5).unbind(0)
        # Written out rather than fused: windows are too short for fusing to pay on a CPU, and the
        # bias broadcasts over the batch instead of being copied for each image.
        logits = (query * (channels // heads) ** -0.5) @ key.transpose(-2, -1) + bias
        weights = F.dropout(logits.softmax(dim=-1), self.attention_dropout, self.training)
        attended = (weights @ value).transpose(2, 3).reshape(batch, count, tokens, channels)
        projected: Tensor = self.proj(attended)
        return F.dropout(projected, self.dropout, self.training)


def _regions(size: int, window: int, shift: int, device: torch.device) -> Tensor:
    """(size,) region of each rolled row or column: 0 untouched, 1 last window, 2 wrapped round."""
    position = torch.arange(size, device=device)
    return (position >= size - window).long() + (position >= size - shift).long()
