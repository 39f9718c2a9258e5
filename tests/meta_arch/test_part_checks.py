"""Parts that do not fit each other are refused with the reason."""

import pytest
from detectron2.config import LazyCall

from builders import small_detector
from sparse_detr.criterion import CorrLog, TokenScoringLoss
from sparse_detr.query_selection import LearnedQueries, ProposalProjection


@pytest.mark.parametrize(
    ("system", "overrides", "message"),
    [
        (
            "sparse_detr",
            {"criterion__token_scoring": LazyCall(CorrLog)()},
            "must be a TokenScoringLoss for a ScoringNetwork",
        ),
        (
            "sparse_detr",
            {"criterion__token_scoring": None},
            "must be a TokenScoringLoss for a ScoringNetwork .*got NoneType",
        ),
        (
            "sparse_detr_random",
            {"criterion__token_scoring": LazyCall(TokenScoringLoss)()},
            "got TokenScoringLoss for RandomScoring; other token scoring takes a CorrLog",
        ),
        (
            "efficient_detr",
            {"criterion__token_scoring": LazyCall(CorrLog)()},
            "must be None for a detector that does not score tokens, got CorrLog",
        ),
        (
            "sparse_detr_objectness",
            {"token_scoring__num_classes": 7},
            "num_classes must agree among the parts, got 5 and 7",
        ),
        (
            "sparse_single_scale_detr",
            {"proposal_projection": None},
            "proposal_projection must be given where token scores are read from it",
        ),
        (
            "single_scale_detr",
            {"proposal_projection": LazyCall(ProposalProjection)(hidden_dim=32)},
            "proposal_projection must be None where nothing reads it",
        ),
        (
            "deformable_detr",
            {
                "query_selection": LazyCall(LearnedQueries)(
                    hidden_dim=32, num_queries=10, with_references=False
                )
            },
            "with_references must be True .*got False with a DeformableDecoder",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(system, overrides, message):
    with pytest.raises(ValueError, match=message):
        small_detector(system, **overrides)


def test_a_detector_that_only_predicts_needs_no_loss_for_its_scores():
    model = small_detector("sparse_detr", criterion=None)
    assert model.criterion is None
