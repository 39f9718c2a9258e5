"""The loss that teaches token scores where the objects are, and how large they are on each level.

Role in the flow: one term of the criterion, for Focus-DETR.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layers.boxes import cxcywh_to_xyxy
from ..layers.precision import at_least_float32
from ..structures import DetectorOutput, FeatureTokens, Targets


@dataclass(frozen=True)
class ForegroundLoss:
    """Focal loss of the token scores against the labels of :func:`foreground_labels`.

    Attributes:
        level_ends: L - 1 largest distances that a level but the last is responsible for, pixels.
        overlapping_levels: False gives every distance to one level. True lets the range of a level
            begin in the middle of the range before it, as the paper says.
        include_padding: False leaves padding out. True is the released behaviour: padding is
            background.
        alpha: Weight of foreground; background has the rest.
        gamma: Exponent.
        loss_name: Name of the loss term.
        reads_attention: Whether the decoder's cross-attention must be kept for it.

    Source: Focus-DETR, section 3.2; Lin et al., Focal Loss for Dense Object Detection, equation 5.
        The paper gives no ends; these are the released ones, which are those of FCOS and do not
        overlap.
    """

    level_ends: Sequence[float] = (64, 128, 256)
    overlapping_levels: bool = False
    include_padding: bool = False
    alpha: float = 0.25
    gamma: float = 2.0
    loss_name: ClassVar[str] = "loss_foreground"
    reads_attention: ClassVar[bool] = False

    def __call__(
        self, output: DetectorOutput, targets: Sequence[Targets]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and the share of foreground among the images' own tokens.

        Args:
            output: Of a forward pass.
            targets: Objects of the B images.

        Returns:
            Scalar loss; ``foreground_share``.

        Raises:
            ValueError: The output lacks a selection or scores, or the tokens do not tell their
                images' sizes.
        """
        if output.selection is None or output.selection.raw_scores is None:
            raise ValueError("output.selection must hold raw_scores, got none")
        tokens = output.tokens
        labels = foreground_labels(tokens, targets, self.ranges)
        loss = self.loss(output.selection.raw_scores, labels, tokens.padding_mask)
        own = torch.full((), float(sum(tokens.valid_counts)))
        return loss, {"foreground_share": labels.sum() / own.to(labels.device)}

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """L pairs (begin, end): a level is responsible for distances above begin, up to end."""
        return level_ranges(self.level_ends, self.overlapping_levels)

    def loss(self, logits: Tensor, labels: Tensor, padding_mask: Tensor) -> Tensor:
        """The loss alone: of each image by its foreground tokens, then the mean of the images.

        Args:
            logits: (B, N) scores as the network gave them.
            labels: (B, N) bool, True on foreground.
            padding_mask: (B, N) bool.

        Returns:
            Scalar.
        """
        logits = logits.to(at_least_float32(logits.dtype))
        if not self.include_padding:
            logits = logits.masked_fill(padding_mask, 0)
        signed = torch.where(labels, logits, -logits)
        weight = torch.where(labels, self.alpha, 1 - self.alpha).to(logits.dtype)
        each = weight * (-signed).sigmoid() ** self.gamma * F.softplus(-signed)
        if not self.include_padding:
            each = each.masked_fill(padding_mask, 0)
        return (each.sum(1) / labels.sum(1).clamp(min=1)).mean()


def level_ranges(
    ends: Sequence[float], overlapping: bool = False
) -> tuple[tuple[float, float], ...]:
    """The distances that each level is responsible for.

    Args:
        ends: L - 1 ends, ascending, pixels; the last level has none.
        overlapping: Let a range begin in the middle of the one before it.

    Returns:
        L pairs (begin, end), pixels.

    Raises:
        ValueError: The ends do not ascend.

    Source: Focus-DETR, section 3.2 (overlap).
    """
    if any(not low < high for low, high in zip((0, *ends), ends, strict=False)):
        raise ValueError(f"level_ends must ascend from above 0, got {list(ends)}")
    ranges = [(-1.0, float(ends[0]) if len(ends) else float("inf"))]
    for end in (*ends[1:], float("inf"))[: len(ends)]:
        begin, last = max(0.0, ranges[-1][0]), ranges[-1][1]
        ranges.append(((begin + last) / 2 if overlapping else last, float(end)))
    return tuple(ranges)


@torch.no_grad()
def foreground_labels(
    tokens: FeatureTokens, targets: Sequence[Targets], ranges: Sequence[tuple[float, float]]
) -> Tensor:
    """Which tokens show an object whose size is their level's business.

    A token is foreground iff its centre lies within a box and the largest of its distances to the
    four sides of that box lies in the range of its level.

    Args:
        tokens: The tokens, with the sizes of their images and the strides of their levels.
        targets: Objects of the B images.
        ranges: Of :func:`level_ranges`.

    Returns:
        (B, N) bool, False on padding.

    Raises:
        ValueError: The tokens lack sizes or strides, or there is not one range for each level.

    Source: Focus-DETR, section 3.2; released code for centres and distances (the rule of FCOS).
    """
    if tokens.image_sizes is None or tokens.strides is None:
        raise ValueError("tokens must hold image_sizes and strides for foreground labels, got None")
    if len(ranges) != len(tokens.strides):
        raise ValueError(
            f"level_ends must have {len(tokens.strides) - 1} entries for as many levels and one "
            f"more, got {len(ranges) - 1}"
        )
    rows, columns, levels = tokens.geometry.cells
    device = rows.device
    strides = torch.tensor(tokens.strides, device=device)[levels]
    limits = torch.tensor(ranges, dtype=tokens.geometry.dtype, device=device)[levels]
    centres = torch.stack([columns, rows], dim=-1) * strides[:, None] + strides[:, None] // 2
    labels = [
        _shows(centres.to(limits.dtype), limits, _pixels(target.boxes_cxcywh, size, limits.dtype))
        for target, size in zip(targets, tokens.image_sizes, strict=True)
    ]
    return torch.stack(labels) & ~tokens.padding_mask


def _pixels(boxes_cxcywh: Tensor, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """(T, 4) boxes xyxy in pixels from normalised ones."""
    height, width = size
    scale = torch.tensor([width, height, width, height], dtype=dtype, device=boxes_cxcywh.device)
    return cxcywh_to_xyxy(boxes_cxcywh.to(dtype) * scale)


def _shows(centres: Tensor, limits: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """(N,) bool, whether tokens of an image are foreground; see :func:`foreground_labels`."""
    before = centres[:, None] - boxes_xyxy[:, :2]
    behind = boxes_xyxy[:, 2:] - centres[:, None]
    nearest = torch.minimum(before, behind).amin(-1)
    farthest = torch.maximum(before, behind).amax(-1)
    responsible = (farthest > limits[:, :1]) & (farthest <= limits[:, 1:])
    return ((nearest > 0) & responsible).any(-1)
