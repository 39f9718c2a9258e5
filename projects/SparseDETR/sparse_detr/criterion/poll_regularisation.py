"""PnP-DETR's regularisation: polled tokens pay for their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..layers.precision import at_least_float32
from ..structures import DetectorOutput, Targets


@dataclass(frozen=True)
class PollRegularisation:
    """The mean score of the polled tokens, so that scores do not all grow to one.

    Attributes:
        surplus_counts: False averages over each image's own polled tokens, then over the images,
            so that a batch is the mean of its images. True is the released behaviour: over all
            rows of the batch, where a smaller image has rows of tokens that were not polled, and
            of padding.
        loss_name: Name of the loss term.
        reads_attention: Whether the decoder's cross-attention must be kept for it.

    Source: PnP-DETR, section 3.2; released code for the weight, 1e-4.
    """

    surplus_counts: bool = False
    loss_name: ClassVar[str] = "loss_poll_regularisation"
    reads_attention: ClassVar[bool] = False

    def __call__(
        self, output: DetectorOutput, targets: Sequence[Targets] = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and nothing to log.

        Args:
            output: Of a forward pass that polled tokens.
            targets: Not used.

        Raises:
            ValueError: The output lacks a selection or scores.
        """
        selection = output.selection
        if selection is None or selection.raw_scores is None:
            raise ValueError("output.selection must hold raw_scores, got none")
        polled = selection.layers[0]
        logits = polled.gather(selection.raw_scores)
        scores = logits.to(at_least_float32(logits.dtype)).sigmoid()
        if self.surplus_counts:
            return scores.mean(), {}
        own = polled.own_rows()
        each = scores.masked_fill(~own, 0).sum(1) / own.sum(1)
        return each.mean(), {}
