"""The loss that teaches the scoring network where the decoder looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..decoder_attention_map import binarised_target
from ..layers.precision import at_least_float32
from ..structures import DetectorOutput, Targets, TokenSelection
from .corr import CorrLog


@dataclass(frozen=True)
class TokenScoringLoss(CorrLog):
    """Binary cross-entropy of the token scores against the binarised DAM; and Corr.

    Attributes:
        include_padding: False averages over the own tokens of each image, then over the images,
            so that a batch is the mean of its images. True is the released behaviour: over all
            tokens of the padded map.

    Source: Sparse DETR, section 3.2, equation 5.
    """

    include_padding: bool = False

    def __call__(
        self, output: DetectorOutput, targets: Sequence[Targets] = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and Corr.

        Args:
            output: Of a forward pass with what the decoder's cross-attention read.
            targets: Not used.

        Returns:
            Scalar loss; ``corr`` and ``corr_level{l}``, see :class:`CorrLog`.

        Raises:
            ValueError: The output lacks a selection, scores, or where the decoder looked.
        """
        selection = self._selection(output)
        attention = self._attention(output)
        return self.loss(attention, selection, output), self.corr(attention, selection, output)

    def loss(self, attention: Tensor, selection: TokenSelection, output: DetectorOutput) -> Tensor:
        """The loss alone.

        Args:
            attention: (B, N) decoder cross-attention map.
            selection: With the scores of the tokens.
            output: The forward pass that both are of.
        """
        if selection.token_scores is None:
            raise ValueError("output.selection must hold token_scores, got None")
        padding = output.tokens.padding_mask
        counts = selection.union_counts(padding.shape[1])
        target = binarised_target(attention, padding, counts)
        scores = selection.token_scores.to(at_least_float32(selection.token_scores.dtype))
        if self.include_padding:
            # Padding at -inf has target zero and loss zero; -inf * 0 would be NaN.
            finite = scores.clamp(min=torch.finfo(scores.dtype).min)
            return F.binary_cross_entropy_with_logits(finite, target)
        each = F.binary_cross_entropy_with_logits(
            scores.masked_fill(padding, 0), target, reduction="none"
        ).masked_fill(padding, 0)
        return (each.sum(1) / (~padding).sum(1)).mean()
