"""Names of the weights in PnP-DETR's released code and here; see :mod:`.detr_keys`."""

from __future__ import annotations

from .detr_keys import DETR
from .key_table import KeyTable

_SAMPLER = "transformer.sampler."
_ONE_KEY_LAYER = KeyTable(((f"{_SAMPLER}k_proj.", "token_selection.key.layers.0."),))
_TWO_KEY_LAYERS = KeyTable(
    (
        (f"{_SAMPLER}k_proj.0.", "token_selection.key.layers.0."),
        (f"{_SAMPLER}k_proj.2.", "token_selection.key.layers.1."),
    )
)
_SCORES = KeyTable(
    (
        (f"{_SAMPLER}score_pred_net.0.", "token_scoring.network.layers.0."),
        (f"{_SAMPLER}score_pred_net.2.", "token_scoring.network.layers.1."),
        # A network of one layer stands alone.
        (f"{_SAMPLER}score_pred_net.", "token_scoring.network.layers.0."),
        (f"{_SAMPLER}v_proj.", "token_selection.value."),
    )
)
PNP_DETR = _SCORES + _ONE_KEY_LAYER + DETR
"""PnP-DETR as released. Scores are one-by-one convolutions there, linear layers here: their weights
(C', C, 1, 1) lose two axes."""

PNP_DETR_TWO_KEY_LAYERS = _SCORES + _TWO_KEY_LAYERS + DETR
"""PnP-DETR whose pooling keys have two layers."""
