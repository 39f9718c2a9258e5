"""Predictions of the auxiliary heads on the rows of the first encoder layers."""

from __future__ import annotations

from ..heads import DetectionHeads
from ..query_selection.encoder_proposals import Proposals
from ..structures import EncoderOutput, Predictions, TokenSelection


def auxiliary_predictions(
    encoded: EncoderOutput,
    selection: TokenSelection | None,
    proposals: Proposals,
    heads: DetectionHeads,
) -> tuple[Predictions, ...]:
    """Predictions of the auxiliary heads on the rows of the first encoder layers.

    Args:
        encoded: Output of the encoder with ``layer_rows``; without them nothing is predicted.
        selection: The kept tokens, or None for a dense encoder.
        proposals: Box proposals of the tokens.
        heads: The detection heads.

    Source: Sparse DETR, section 3.3 (encoder auxiliary loss).
    """
    predictions = []
    for layer, rows in enumerate(encoded.layer_rows):
        head, grid = heads.encoder(layer), proposals.grid
        box_logits, candidates = grid.box_logits, grid.is_proposal
        if selection is not None:
            kept = selection.for_layer(layer)
            box_logits, candidates = kept.gather(box_logits), kept.gather(candidates)
            candidates = candidates & kept.own_rows()
        boxes = head.boxes_from_logits(rows, box_logits)
        predictions.append(Predictions(head.logits(rows), boxes, candidates))
    return tuple(predictions)
