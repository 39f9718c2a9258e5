"""Refuses parts that do not fit each other, which a config can only say by mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detectron2.modeling import Backbone
from torch import nn

from ..criterion import ForegroundLoss, PollRegularisation, TokenScoringLoss
from ..decoder import DenseDecoder, SmcaDecoder
from ..encoder import DenseEncoder, DualAttentionEncoder
from ..feature_projection import MultiScaleProjection
from ..query_selection import FirstStageQueries, LearnedQueries, MixedQueries
from ..token_scoring import ForegroundScoring, ObjectnessScoring, PollScoring, ScoringNetwork
from ..token_selection import KeepRatio, KeepRatioLike, PollAndPool, Uniform, as_keep_ratio

if TYPE_CHECKING:
    from ..class_scores import ClassScores
    from ..postprocess import Postprocess
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
    if isinstance(detector.token_selection, PollAndPool) and not isinstance(ratio, Uniform):
        raise ValueError(f"keep_ratio must be one number for poll and pool, got {str(ratio)!r}")
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
    _check_poll(detector)
    _check_objects(detector)
    _check_queries(detector)
    _check_numbers(detector, hidden_dim, num_levels)
    _check_class_scores(detector)
    _check_backbone(detector)


def _check_token_scoring(detector: TransformerDetector) -> None:
    """Raises unless tokens are scored with all that it takes, and the scores are learnt."""
    scoring = detector.token_scoring
    if (scoring is None) != (detector.token_selection is None):
        raise ValueError("token_scoring and token_selection must be given together, or neither")
    two_stage = isinstance(detector.query_selection, FirstStageQueries)
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
    for kind, taught_by in (
        (ScoringNetwork, TokenScoringLoss),
        (ForegroundScoring, ForegroundLoss),
        (PollScoring, PollRegularisation),
    ):
        if isinstance(scoring, kind) != isinstance(loss, taught_by):
            raise ValueError(
                f"criterion.token_scoring must be a {taught_by.__name__} for a {kind.__name__} and "
                f"for nothing else, got {type(loss).__name__} for {type(scoring).__name__}; other "
                "token scoring takes a CorrLog"
            )
    if scoring is None and loss is not None:
        raise ValueError(
            "criterion.token_scoring must be None for a detector that does not score tokens, "
            f"got {type(loss).__name__}"
        )


def _check_poll(detector: TransformerDetector) -> None:
    """Raises unless poll and pool has its scores, and parts that do not ask for the tokens."""
    pools = isinstance(detector.token_selection, PollAndPool)
    scores = isinstance(detector.token_scoring, PollScoring)
    if pools != scores:
        raise ValueError(
            "token_selection must be PollAndPool for PollScoring and for nothing else, got "
            f"{type(detector.token_selection).__name__} for {type(detector.token_scoring).__name__}"
        )
    if not pools:
        return
    fits = isinstance(detector.encoder, DenseEncoder) and isinstance(detector.decoder, DenseDecoder)
    if not fits:
        raise ValueError(
            "token_selection PollAndPool needs a DenseEncoder and a DenseDecoder, whose rows need "
            f"not be cells of a map, got {type(detector.encoder).__name__} and "
            f"{type(detector.decoder).__name__}"
        )
    if detector.heads.two_stage or detector.heads.num_encoder_heads:
        raise ValueError(
            "heads.two_stage and heads.encoder_auxiliary must be False for PollAndPool: what it "
            "samples is no longer a token with a box proposal"
        )


def _check_objects(detector: TransformerDetector) -> None:
    """Raises unless an encoder that looks for objects finds what it chooses them by."""
    if not isinstance(detector.encoder, DualAttentionEncoder):
        return
    if detector.token_scoring is None:
        raise ValueError(
            "token_scoring must be given for a DualAttentionEncoder, which chooses its objects by "
            "the scores of the tokens, got None"
        )
    if not detector.heads.two_stage:
        raise ValueError(
            "heads.two_stage must be True for a DualAttentionEncoder, which reads the class head "
            "of the first stage, got False"
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
    makes, mixed = (
        detector.decoder.reference_position is not None,
        isinstance(queries, MixedQueries),
    )
    if makes != mixed:
        raise ValueError(
            "decoder.reference_position must be given for MixedQueries, which have no position, "
            f"and for nothing else, got {makes} with {type(queries).__name__}"
        )


def _check_numbers(detector: TransformerDetector, hidden_dim: int, num_levels: int) -> None:
    """Raises unless the parts agree on classes, channels, levels, layers and stages."""
    two_stage = isinstance(detector.query_selection, FirstStageQueries)
    numbers = [
        ("num_classes", detector.num_classes, detector.heads.num_classes),
        ("hidden_dim", hidden_dim, detector.position_embedding.hidden_dim),
        ("num_levels", num_levels, len(detector.feature_projection.projections)),
        ("num_levels", num_levels, len(detector.position_embedding.level_embed)),
        ("num_decoder_layers", len(detector.decoder.layers), detector.heads.num_decoder_layers),
        ("two_stage", two_stage, detector.heads.two_stage),
    ]
    scoring = detector.token_scoring
    if isinstance(detector.decoder, SmcaDecoder):
        entries = "num_levels and the entries of decoder.level_factors"
        numbers.append((entries, num_levels, detector.decoder.num_levels))
    if isinstance(scoring, ForegroundScoring):
        numbers.append(("num_levels", num_levels, len(scoring.alpha) + 1))
    if isinstance(scoring, ObjectnessScoring):
        numbers.append(("num_classes", detector.num_classes, scoring.num_classes))
    taught = None if detector.criterion is None else detector.criterion.token_scoring
    if isinstance(taught, ForegroundLoss):
        entries = "num_levels - 1 and the entries of criterion.token_scoring.level_ends"
        numbers.append((entries, num_levels - 1, len(taught.level_ends)))
    denoising = getattr(detector.query_selection, "denoising", None)
    if denoising is not None:
        numbers.append(("num_classes", detector.num_classes, denoising.num_classes))
    for name, expected, got in numbers:
        if expected != got:
            raise ValueError(f"{name} must agree among the parts, got {expected} and {got}")
    if detector.heads.num_encoder_heads >= len(detector.encoder.layers):
        raise ValueError(
            "heads.num_encoder_layers must equal the encoder's layers, got auxiliary heads for "
            f"{detector.heads.num_encoder_heads} of {len(detector.encoder.layers)} layers"
        )


def level_strides(backbone: nn.Module, projection: MultiScaleProjection) -> tuple[int, ...] | None:
    """Pixels from one cell of a level to the next, for the L levels.

    Args:
        backbone: Gives the maps; nothing is known of one that is not Detectron2's or tells no
            strides.
        projection: Makes the levels from them.
    """
    if not isinstance(backbone, Backbone):
        return None
    strides = {name: shape.stride for name, shape in backbone.output_shape().items()}
    if any(strides[name] is None for name in projection.in_channels):
        return None
    return projection.strides({name: int(stride) for name, stride in strides.items() if stride})


def _check_class_scores(detector: TransformerDetector) -> None:
    """Raises unless heads, matcher and postprocess agree on a logit for "no object"."""
    wanted = detector.heads.no_object_logit
    readers: list[tuple[str, Postprocess | ClassScores]] = [("postprocess", detector.postprocess)]
    if detector.criterion is not None:
        scores = detector.criterion.matcher.class_scores
        readers.append(("criterion.matcher.class_scores", scores))
    for name, reader in readers:
        if reader.no_object != wanted:
            raise ValueError(
                f"heads.no_object_logit is {wanted}, but {name} is a {type(reader).__name__}: "
                "True goes with SoftmaxClasses and BestClassDetections, False with SigmoidClasses "
                "and TopDetections"
            )
    if wanted and isinstance(detector.token_scoring, ObjectnessScoring):
        raise ValueError(
            "token_scoring must not be an ObjectnessScoring where classes share a distribution: "
            "its head has no logit for no object"
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
