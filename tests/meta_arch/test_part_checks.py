"""Parts that do not fit each other are refused with the reason."""

import pytest
from detectron2.config import LazyCall

from builders import small_detector
from sparse_detr.class_scores import SoftmaxClasses
from sparse_detr.criterion import CorrLog, TokenScoringLoss
from sparse_detr.postprocess import BestClassDetections, TopDetections
from sparse_detr.query_selection import LearnedQueries, ProposalProjection
from sparse_detr.token_selection import TopRhoSelection


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
            "focus_detr",
            {"criterion__token_scoring": LazyCall(CorrLog)()},
            "must be a ForegroundLoss for a ForegroundScoring and for nothing else, got CorrLog",
        ),
        (
            "focus_detr",
            {"token_scoring__num_levels": 3},
            "num_levels must agree among the parts, got 4 and 3",
        ),
        (
            "focus_detr",
            {"criterion__token_scoring__level_ends": (64, 128)},
            "num_levels - 1 and the entries of .*level_ends must agree .*got 3 and 2",
        ),
        (
            "focus_detr",
            {
                "keep_ratio": None,
                "token_scoring": None,
                "token_selection": None,
                "criterion__token_scoring": None,
            },
            "token_scoring must be given for a DualAttentionEncoder",
        ),
        (
            "focus_detr",
            {"keep_ratio": "cascade:0.5x1,0.6"},
            "has 2 factors, but the encoder has 3 layers",
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
        (
            "detr",
            {"postprocess": LazyCall(TopDetections)()},
            "no_object_logit is True, but postprocess is a TopDetections",
        ),
        (
            "deformable_detr",
            {"criterion__matcher__class_scores": LazyCall(SoftmaxClasses)()},
            "no_object_logit is False, but criterion.matcher.class_scores is a SoftmaxClasses",
        ),
        (
            "sparse_detr_objectness",
            {
                "heads__no_object_logit": True,
                "criterion__matcher__class_scores": LazyCall(SoftmaxClasses)(),
                "postprocess": LazyCall(BestClassDetections)(),
            },
            "token_scoring must not be an ObjectnessScoring",
        ),
        (
            "pnp_detr",
            {"token_selection": LazyCall(TopRhoSelection)()},
            "token_selection must be PollAndPool for PollScoring .*got TopRhoSelection",
        ),
        (
            "pnp_detr",
            {"criterion__token_scoring": None},
            "must be a PollRegularisation for a PollScoring .*got NoneType",
        ),
        (
            "pnp_detr",
            {"heads__encoder_auxiliary": True},
            "heads.encoder_auxiliary must be False for PollAndPool",
        ),
        (
            "pnp_detr",
            {"keep_ratio": "layers:0.5,0.4,0.3"},
            "keep_ratio must be one number for poll and pool",
        ),
        (
            "smca_multi_scale",
            {"decoder__level_factors": [1.0]},
            "num_levels and the entries of decoder.level_factors must agree .*got 4 and 1",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(system, overrides, message):
    with pytest.raises(ValueError, match=message):
        small_detector(system, **overrides)


def test_a_detector_that_only_predicts_needs_no_loss_for_its_scores():
    model = small_detector("sparse_detr", criterion=None)
    assert model.criterion is None
