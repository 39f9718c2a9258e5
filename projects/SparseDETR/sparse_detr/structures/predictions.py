"""Predictions of one set of candidates, and scores of the tokens."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Predictions:
    """Class logits and boxes of one set of candidates.

    Attributes:
        logits: (B, Q, num_classes), or one more with "no object" last, see
            :mod:`sparse_detr.class_scores`.
        boxes_cxcywh: (B, Q, 4) normalised to the image, in (0, 1).
        candidate_mask: (B, Q) bool, False on rows that are no candidates (padding, surplus), or
            None if all are.
        class_agnostic: Logit 0 says "object" and the labels of the targets do not matter.
    """

    logits: Tensor
    boxes_cxcywh: Tensor
    candidate_mask: Tensor | None = None
    class_agnostic: bool = False

    def rows(self, part: slice) -> Predictions:
        """The predictions of some of the rows."""
        mask = None if self.candidate_mask is None else self.candidate_mask[:, part]
        boxes = self.boxes_cxcywh[:, part]
        return Predictions(self.logits[:, part], boxes, mask, self.class_agnostic)


@dataclass(frozen=True)
class TokenScores:
    """What a token-scoring part gives.

    Attributes:
        logits: (B, N) score of every token, the higher the sooner kept; values on padding mean
            nothing.
        predictions: Predictions of all tokens that the scores were read from, for a loss of their
            own; None where the part predicts no objects, or nobody asked for them.
    """

    logits: Tensor
    predictions: Predictions | None = None
