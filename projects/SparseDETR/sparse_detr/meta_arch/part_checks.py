"""Refuses parts that do not fit each other, which a config can only say by mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detectron2.modeling import Backbone

from ..criterion import TokenScoringLoss
from ..query_selection import LearnedQueries, TwoStageQueries
from ..token_scoring import ObjectnessScoring, ScoringNetwork
from ..token_selection import KeepRatio, KeepRatioLike, as_keep_ratio

if TYPE_CHECKING:
    from .transformer_detector import TransformerDetector


def checked_ratio(detector: TransformerDetector, value: KeepRatioLike | None) -> KeepRatio | None:
    """The keeping ratio that a value stands for, or None for a dense encoder.

    Args:
        detector: With all parts set.
        value: As it was given.

    Raises:
        ValueError: It is none, or does not fit the detector.
    """
    if detector.token_scoring is None:
        if value is not None:
            raise ValueError(
                f"keep_ratio must be None for a detector that does not score tokens, got {value!r}"
            )
        return None
    ratio = as_keep_ratio(value)  # type: ignore[arg-type]  # which refuses None
    ratio.check_fits(len(detector.position_embedding.level_embed), len(detector.encoder.layers))
    return ratio


def check_parts(detector: TransformerDetector, hidden_dim: int, num_levels: int) -> None:
    """Raises unless the parts of a detector fit each other.

    Args:
        detector: With all parts set.
        hidden_dim: Channels C that the config states.
        num_levels: Levels L that the config states.

    Raises:
        ValueError: Names what does not fit, with both values.
    """
    _check_token_scoring(detector)
    _check_queries(detector)
    _check_numbers(detector, hidden_dim, num_levels)
    _check_backbone(detector)


def _check_token_scoring(detector: TransformerDetector) -> None:
    """Raises unless tokens are scored with all that it takes, and the scores are learnt."""
    scoring = detector.token_scoring
    if (scoring is None) != (detector.token_selection is None):
        raise ValueError("token_scoring and token_selection must be given together, or neither")
    two_stage = isinstance(detector.query_selection, TwoStageQueries)
    read = two_stage or (scoring is not None and scoring.reads_projection)
    if read and detector.proposal_projection is None:
        raise ValueError(
            "proposal_projection must be given where token scores are read from it or queries "
            "come from a first stage, got None"
        )
    if detector.proposal_projection is not None and not read:
        raise ValueError(
            "proposal_projection must be None where nothing reads it: it would never be trained"
        )
    if detector.criterion is None:
        return
    loss = detector.criterion.token_scoring
    if isinstance(scoring, ScoringNetwork) != isinstance(loss, TokenScoringLoss):
        raise ValueError(
            "criterion.token_scoring must be a TokenScoringLoss for a ScoringNetwork and for "
            f"nothing else, got {type(loss).__name__} for {type(scoring).__name__}; other token "
            "scoring takes a CorrLog"
        )
    if scoring is None and loss is not None:
        raise ValueError(
            "criterion.token_scoring must be None for a detector that does not score tokens, "
            f"got {type(loss).__name__}"
        )


def _check_queries(detector: TransformerDetector) -> None:
    """Raises unless queries start from a place where the decoder asks for one."""
    queries = detector.query_selection
    nowhere = isinstance(queries, LearnedQueries) and queries.reference_points is None
    if nowhere and (detector.decoder.needs_references or detector.decoder.refine_boxes):
        raise ValueError(
            "query_selection.with_references must be True for a decoder that reads or refines "
            f"references, got False with a {type(detector.decoder).__name__}"
        )


def _check_numbers(detector: TransformerDetector, hidden_dim: int, num_levels: int) -> None:
    """Raises unless the parts agree on classes, channels, levels, layers and stages."""
    two_stage = isinstance(detector.query_selection, TwoStageQueries)
    numbers = [
        ("num_classes", detector.num_classes, detector.heads.num_classes),
        ("hidden_dim", hidden_dim, detector.position_embedding.hidden_dim),
        ("num_levels", num_levels, len(detector.feature_projection.projections)),
        ("num_levels", num_levels, len(detector.position_embedding.level_embed)),
        ("num_decoder_layers", len(detector.decoder.layers), detector.heads.num_decoder_layers),
        ("two_stage", two_stage, detector.heads.two_stage),
    ]
    if isinstance(detector.token_scoring, ObjectnessScoring):
        numbers.append(("num_classes", detector.num_classes, detector.token_scoring.num_classes))
    for name, expected, got in numbers:
        if expected != got:
            raise ValueError(f"{name} must agree among the parts, got {expected} and {got}")
    if detector.heads.num_encoder_heads >= len(detector.encoder.layers):
        raise ValueError(
            "heads.num_encoder_layers must equal the encoder's layers, got auxiliary heads for "
            f"{detector.heads.num_encoder_heads} of {len(detector.encoder.layers)} layers"
        )


def _check_backbone(detector: TransformerDetector) -> None:
    """Raises unless the projection reads maps that the backbone gives."""
    if isinstance(detector.backbone, Backbone):
        given = {k: v.channels for k, v in detector.backbone.output_shape().items()}
        wanted = detector.feature_projection.in_channels
        if any(given.get(name) != channels for name, channels in wanted.items()):
            raise ValueError(
                f"feature_projection.in_channels must match the backbone, got {wanted} for a "
                f"backbone that gives {given}"
            )
