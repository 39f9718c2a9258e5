"""Objectness: how sure a detection head in front of the encoder is that a token shows an object.

Role in the flow: FeatureTokens -> **token scoring** -> token selection; its predictions go to the
criterion as a stage of their own.
"""

from __future__ import annotations

from torch import nn

from ..heads import DetectionHead
from ..query_selection.encoder_proposals import Proposals
from ..structures import FeatureTokens, Predictions, TokenScores


class ObjectnessScoring(nn.Module):
    """The best class logit of each token, from a detection head on the encoder's input.

    The head reads what the scoring network reads too, the tokens with position through the
    proposal projection, so that the two criteria differ in what they learn from alone.

    Args:
        hidden_dim: Channels C.
        num_classes: Class logits of the head.

    Attributes:
        reads_projection: Whether the scores are read from the proposal projection.

    Source: Sparse DETR, section 3.2 (objectness score). The released code keeps loss weights of
        such a head (``*_backbone``) but has no head; what it reads is a choice made here.
    """

    reads_projection = True

    def __init__(self, hidden_dim: int, num_classes: int) -> None:
        super().__init__()
        self.head = DetectionHead(hidden_dim, num_classes)
        self.num_classes = num_classes

    def forward(
        self, proposals: Proposals, tokens: FeatureTokens, with_predictions: bool = False
    ) -> TokenScores:
        """Scores of all tokens of a batch.

        Args:
            proposals: Their proposals and the projection that the scores are read from.
            tokens: The tokens.
            with_predictions: Also give the predictions, for the loss; otherwise no box is
                computed.
        """
        projected = proposals.project_positioned(tokens)
        logits = self.head.logits(projected)
        scores, predictions = logits.amax(-1), None
        if with_predictions:
            boxes = self.head.boxes_from_logits(projected, proposals.grid.box_logits)
            predictions = Predictions(logits, boxes, proposals.grid.is_proposal)
        return TokenScores(scores, predictions)
