"""Corr: the share of the decoder's attention that falls on the selected tokens.

Role in the flow: logged by the criterion in every training step in which tokens are selected,
whatever they are selected by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..decoder_attention_map import attention_received, correlations
from ..structures import DetectorOutput, Targets, TokenSelection


@dataclass(frozen=True)
class CorrLog:
    """Corr over all tokens and per level, without any loss.

    Attributes:
        half_cell_shift: Convention of the map, see
            :func:`sparse_detr.decoder_attention_map.decoder_attention_map`.
        surplus_counts: True is the released behaviour: rows that fill an image up to the batch's
            largest count are counted as kept.
        loss_name: Name of the loss term.
        reads_attention: Whether the decoder's cross-attention must be kept for it.

    Source: Sparse DETR, section 4.3 (Corr).
    """

    half_cell_shift: bool = True
    surplus_counts: bool = False
    loss_name: ClassVar[str] = "loss_decoder_attention_map"
    reads_attention: ClassVar[bool] = True

    def __call__(
        self, output: DetectorOutput, targets: Sequence[Targets] = ()
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """No loss, and Corr.

        Args:
            output: Of a forward pass with what the decoder's cross-attention read.
            targets: Not used.

        Returns:
            None in place of a loss; ``corr`` and ``corr_level{l}``, batch means (NaN where a level
            received no attention).

        Raises:
            ValueError: The output lacks a selection, or where the decoder looked.
        """
        selection = self._selection(output)
        return None, self.corr(self._attention(output), selection, output)

    def _selection(self, output: DetectorOutput) -> TokenSelection:
        if output.selection is None:
            raise ValueError("output must come from a detector that selects tokens, got none")
        return output.selection

    def _attention(self, output: DetectorOutput) -> Tensor:
        return attention_received(output, self.half_cell_shift)

    def corr(
        self, attention: Tensor, selection: TokenSelection, output: DetectorOutput
    ) -> dict[str, Tensor]:
        """Corr over all tokens and per level, batch means.

        Where layers keep different tokens, those that any of them updates are the selected ones.
        """
        tokens = output.tokens
        selected = selection.union(attention.shape[1], with_surplus=self.surplus_counts)
        if not self.surplus_counts:
            attention = attention.masked_fill(tokens.padding_mask, 0)
        overall, levels = correlations(attention, selected, tokens.spatial_shapes)
        logs = {"corr": overall.mean()}
        logs.update({f"corr_level{i}": value for i, value in enumerate(levels.mean(1))})
        return logs
