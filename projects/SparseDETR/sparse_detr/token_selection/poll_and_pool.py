"""PnP-DETR's sampling: the best tokens as they are, the rest in a few pooled ones.

Role in the flow: token scoring -> **token selection** -> encoder, which updates what is sampled in
place of the tokens; nothing is written back to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.initialization import xavier_matrices_
from ..layers.mlp import MLP
from ..query_selection.encoder_proposals import ProposalGrid, top_tokens
from ..structures import FeatureTokens, KeptTokens, MemoryTokens, TokenSelection
from .keep_ratio import Uniform
from .text_forms import KeepRatioLike, as_keep_ratio


class PollAndPool(nn.Module):
    """Polls the tokens with the highest scores and pools all others of an image.

    Args:
        hidden_dim: Channels C.
        num_pooled: Tokens M that the rest is pooled to.
        key_layers: Layers of the network that says which token is pooled to which.
        position_in_keys: Its input has the tokens' positions.
        training_ratios: Lowest and highest ratio; each training step draws its own evenly from
            between. None trains with the keeping ratio of the detector.

    Attributes:
        padding_competes: Whether padding may be polled, as :class:`TopRhoSelection` has it: never.
        edge_tokens_compete: Whether the outermost ring of a level may be: like any other token.

    Source: PnP-DETR, section 3.2. An image keeps at least one token and leaves at least one to be
        pooled; the released code gives NaN where a ratio leaves an image with either none.
    """

    padding_competes = False
    edge_tokens_compete = True

    def __init__(
        self,
        hidden_dim: int,
        num_pooled: int = 30,
        key_layers: int = 1,
        position_in_keys: bool = False,
        training_ratios: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if num_pooled < 1:
            raise ValueError(f"num_pooled must be at least 1, got {num_pooled}")
        if training_ratios is not None:
            ratios = tuple(float(ratio) for ratio in training_ratios)
            if len(ratios) != 2 or not 0 < ratios[0] <= ratios[1] <= 1:
                raise ValueError(
                    f"training_ratios must be two numbers in (0, 1], the lower one first, got "
                    f"{list(training_ratios)}"
                )
            training_ratios = ratios
        self.training_ratios = training_ratios
        self.position_in_keys = position_in_keys
        self.key = MLP(hidden_dim, hidden_dim, num_pooled, key_layers)
        self.value = nn.Linear(hidden_dim, hidden_dim)
        xavier_matrices_(self)

    def forward(
        self, logits: Tensor, tokens: FeatureTokens, grid: ProposalGrid, keep_ratio: KeepRatioLike
    ) -> TokenSelection:
        """The selection of a batch, with the sequence that stands in for the tokens.

        Args:
            logits: (B, N) scores of the tokens.
            tokens: The tokens.
            grid: Not used.
            keep_ratio: Share of the tokens to poll, one number.
        """
        counts = polled_counts(tokens.valid_counts, self._ratio(keep_ratio))
        scores = logits.masked_fill(tokens.padding_mask, float("-inf"))
        polled = KeptTokens(top_tokens(scores.detach(), max(counts)), counts)
        with torch.autocast(tokens.features.device.type, enabled=False):
            sequence = self._sequence(logits, tokens, polled)
        return TokenSelection((polled,), scores, raw_scores=logits, sequence=sequence)

    def _ratio(self, keep_ratio: KeepRatioLike) -> float:
        ratio = as_keep_ratio(keep_ratio)
        if not isinstance(ratio, Uniform):
            raise ValueError(f"keep_ratio must be one number for poll and pool, got {str(ratio)!r}")
        if not self.training or self.training_ratios is None:
            return ratio.ratio
        low, high = self.training_ratios
        return low + (high - low) * float(torch.rand(()))

    def _sequence(self, logits: Tensor, tokens: FeatureTokens, polled: KeptTokens) -> MemoryTokens:
        """The polled tokens, then the pooled ones."""
        dtype = self.value.weight.dtype
        position = tokens.position.to(dtype)
        features = F.layer_norm(tokens.features.to(dtype), tokens.features.shape[-1:])
        scored = features * logits.to(dtype).sigmoid()[..., None]
        rest = ~(polled.membership(features.shape[1]) | tokens.padding_mask)
        keys = self.key(features + position if self.position_in_keys else features)
        keys = keys.masked_fill(~rest[..., None], float("-inf"))
        counts, limits = polled.kept_counts, tokens.valid_counts
        nothing = [kept >= valid for kept, valid in zip(counts, limits, strict=True)]
        empty = torch.tensor(nothing, device=keys.device)[:, None]
        if any(nothing):  # an image of a single token
            keys = keys.masked_fill(empty[..., None], 0)
        weights = keys.softmax(1).masked_fill(~rest[..., None], 0).transpose(1, 2)
        pooled = weights @ self.value(features)
        mask = torch.cat([~polled.own_rows(), empty.expand(-1, len(weights[0]))], dim=1)
        return MemoryTokens(
            torch.cat([polled.gather(scored), pooled], dim=1),
            torch.cat([polled.gather(position), weights @ position], dim=1),
            partial(_on_tokens, polled, weights.detach()),
            mask if polled.has_surplus or any(nothing) else None,
        )


def _on_tokens(polled: KeptTokens, pooling: Tensor, received: Tensor) -> Tensor:
    """What the tokens received, from what the sequence did.

    Args:
        polled: The polled tokens.
        pooling: (B, M, N) what each pooled row is made of.
        received: (B, Q, K + M).

    Returns:
        (B, Q, N).
    """
    width = polled.kept_indices.shape[1]
    own = received[..., :width].masked_fill(~polled.own_rows()[:, None], 0)
    spread = received[..., width:] @ pooling.to(received.dtype)
    return spread.scatter_add(2, polled.kept_indices[:, None].expand_as(own), own)


def polled_counts(valid_counts: Sequence[int], ratio: float) -> tuple[int, ...]:
    """Numbers of tokens to poll.

    Args:
        valid_counts: B numbers of tokens that are not padding.
        ratio: Share to poll.

    Returns:
        The product in float32, rounded down, as in the released code; at least one, and one less
        than there are wherever there are two.
    """
    counts = (int(np.float32(valid) * np.float32(ratio)) for valid in valid_counts)
    return tuple(
        max(1, min(count, valid - 1)) for count, valid in zip(counts, valid_counts, strict=True)
    )
