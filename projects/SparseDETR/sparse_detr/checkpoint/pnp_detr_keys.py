"""Names of the weights in PnP-DETR's released code and here; see :mod:`.detr_keys`."""

from __future__ import annotations

from .detr_keys import DETR
from .key_table import KeyTable

_SAMPLER = "transformer.sampler."


def pnp_detr_keys(key_layers: int = 1, score_layers: int = 2) -> KeyTable:
    """The names of a PnP-DETR.

    Scores are one-by-one convolutions there, linear layers here: their weights (C', C, 1, 1) lose
    two axes.

    Args:
        key_layers: Layers of the network that gives the keys of pooling.
        score_layers: Layers of the network that scores the tokens.
    """
    return (
        _network("k_proj", "token_selection.key", key_layers)
        + _network("score_pred_net", "token_scoring.network", score_layers)
        + KeyTable(((f"{_SAMPLER}v_proj.", "token_selection.value."),))
        + DETR
    )


def _network(there: str, here: str, layers: int) -> KeyTable:
    """One or two layers: one stands alone there, between two is an activation."""
    names = [f"{there}."] if layers == 1 else [f"{there}.{2 * i}." for i in range(layers)]
    pairs = [(f"{_SAMPLER}{name}", f"{here}.layers.{i}.") for i, name in enumerate(names)]
    return KeyTable(tuple(pairs))
