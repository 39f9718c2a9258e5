"""Refuses parts that do not fit each other, which a config can only say by mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detectron2.modeling import Backbone

from ..query_selection import TwoStageQueries

if TYPE_CHECKING:
    from .transformer_detector import TransformerDetector


def check_parts(detector: TransformerDetector, hidden_dim: int, num_levels: int) -> None:
    """Raises unless the parts of a detector fit each other.

    Args:
        detector: With all parts set.
        hidden_dim: Channels C that the config states.
        num_levels: Levels L that the config states.

    Raises:
        ValueError: Names what does not fit, with both values.
    """
    if (detector.token_scoring is None) != (detector.token_selection is None):
        raise ValueError("token_scoring and token_selection must be given together, or neither")
    two_stage = isinstance(detector.query_selection, TwoStageQueries)
    if (detector.token_scoring is not None or two_stage) and detector.proposal_projection is None:
        raise ValueError(
            "proposal_projection must be given where tokens are scored or queries come from "
            "a first stage, got None"
        )
    for name, expected, got in (
        ("num_classes", detector.num_classes, detector.heads.num_classes),
        ("hidden_dim", hidden_dim, detector.position_embedding.hidden_dim),
        ("num_levels", num_levels, len(detector.feature_projection.projections)),
        ("num_levels", num_levels, len(detector.position_embedding.level_embed)),
        ("num_decoder_layers", len(detector.decoder.layers), detector.heads.num_decoder_layers),
        ("two_stage", two_stage, detector.heads.two_stage),
    ):
        if expected != got:
            raise ValueError(f"{name} must agree among the parts, got {expected} and {got}")
    if detector.heads.num_encoder_heads >= len(detector.encoder.layers):
        raise ValueError(
            "heads.num_encoder_layers must equal the encoder's layers, got auxiliary heads for "
            f"{detector.heads.num_encoder_heads} of {len(detector.encoder.layers)} layers"
        )
    if isinstance(detector.backbone, Backbone):
        given = {k: v.channels for k, v in detector.backbone.output_shape().items()}
        wanted = detector.feature_projection.in_channels
        if any(given.get(name) != channels for name, channels in wanted.items()):
            raise ValueError(
                f"feature_projection.in_channels must match the backbone, got {wanted} for a "
                f"backbone that gives {given}"
            )
