"""The loss that teaches the scoring network where the decoder looks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..decoder_attention_map import binarised_target, correlations, decoder_attention_map
from ..layers.precision import at_least_float32
from ..structures import DetectorOutput, TokenSelection


@dataclass(frozen=True)
class TokenScoringLoss:
    """Binary cross-entropy of the token scores against the binarised DAM.

    Attributes:
        include_padding: False averages over the own tokens of each image, then over the images,
            so that a batch is the mean of its images. True is the released behaviour: over all
            tokens of the padded map.
        half_cell_shift: Convention of the map, see
            :func:`sparse_detr.decoder_attention_map.decoder_attention_map`.
        surplus_counts: For Corr only. True is the released behaviour: rows that fill an image up
            to the batch's largest count are counted as kept.

    Source: Sparse DETR, section 3.2, equation 5.
    """

    include_padding: bool = False
    half_cell_shift: bool = True
    surplus_counts: bool = False

    def __call__(self, output: DetectorOutput) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and Corr.

        Args:
            output: Of a forward pass with the decoder's sampling.

        Returns:
            Scalar loss; ``corr`` and ``corr_level{l}``, batch means (NaN where a level received
            no attention).

        Raises:
            ValueError: The output lacks selection, scores or sampling.
        """
        selection, tokens = output.selection, output.tokens
        if selection is None or selection.token_scores is None or not output.decoder.sampling:
            raise ValueError(
                "output must come from a forward pass with token scores and with_sampling=True"
            )
        attention = decoder_attention_map(
            output.decoder.sampling, tokens.spatial_shapes, self.half_cell_shift
        )
        counts = selection.layers[0].kept_counts
        target = binarised_target(attention, tokens.padding_mask, counts)
        scores = selection.token_scores.to(at_least_float32(selection.token_scores.dtype))
        if self.include_padding:
            # Padding at -inf has target zero and loss zero; -inf * 0 would be NaN.
            finite = scores.clamp(min=torch.finfo(scores.dtype).min)
            loss = F.binary_cross_entropy_with_logits(finite, target)
        else:
            padding = tokens.padding_mask
            each = F.binary_cross_entropy_with_logits(
                scores.masked_fill(padding, 0), target, reduction="none"
            ).masked_fill(padding, 0)
            loss = (each.sum(1) / (~padding).sum(1)).mean()
        return loss, self.corr(attention, selection, output)

    def corr(
        self, attention: Tensor, selection: TokenSelection, output: DetectorOutput
    ) -> dict[str, Tensor]:
        """Corr over all tokens and per level, batch means."""
        tokens, kept = output.tokens, selection.layers[0]
        selected = kept.membership(attention.shape[1], with_surplus=self.surplus_counts)
        if not self.surplus_counts:
            attention = attention.masked_fill(tokens.padding_mask, 0)
        overall, levels = correlations(attention, selected, tokens.spatial_shapes)
        logs = {"corr": overall.mean()}
        logs.update({f"corr_level{i}": value for i, value in enumerate(levels.mean(1))})
        return logs
