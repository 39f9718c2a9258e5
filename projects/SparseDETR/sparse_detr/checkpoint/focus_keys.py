"""Names of the weights of Focus-DETR in its released files, which are detrex's, and here."""

from __future__ import annotations

from .dino_keys import DETREX_COMMON
from .key_table import KeyTable

FOCUS = DETREX_COMMON + KeyTable(
    (
        ("transformer.alpha", "token_scoring.alpha"),
        ("transformer.enc_mask_predictor.layer1.", "token_scoring.network.embed."),
        ("transformer.enc_mask_predictor.layer2.", "token_scoring.network.score."),
        ("transformer.encoder.layers.{i}.attentions.0.attn.", "encoder.layers.{i}.object_attn."),
        ("transformer.encoder.layers.{i}.attentions.1.", "encoder.layers.{i}.self_attn."),
        ("transformer.encoder.layers.{i}.norm2.", "encoder.layers.{i}.object_norm."),
    )
)
"""Focus-DETR on DINO."""
