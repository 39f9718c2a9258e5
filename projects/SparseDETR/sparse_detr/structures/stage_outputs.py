"""What encoder, query selection, decoder and heads hand to each other, criterion and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor

from .denoising import DenoisingRows
from .feature_tokens import FeatureTokens
from .memory_tokens import MemoryTokens
from .predictions import Predictions
from .token_selection import KeptTokens, TokenSelection


@dataclass(frozen=True)
class Sampling:
    """Where a deformable attention read, and with what weight.

    Attributes:
        locations: (B, Q, H, L, P, 2), order (x, y), normalised to the padded map of the level.
        weights: (B, Q, H, L, P), summing to 1 over L and P.
    """

    locations: Tensor
    weights: Tensor

    def of_queries(self, query_mask: Tensor | None) -> Sampling:
        """The same with weight zero for rows that are no queries; (B, Q) bool, None for all."""
        if query_mask is None:
            return self
        hidden = ~query_mask[:, :, None, None, None]
        return Sampling(self.locations, self.weights.masked_fill(hidden, 0))

    def from_row(self, first: int) -> Sampling:
        """The same without the rows in front of ``first``."""
        return Sampling(self.locations[:, first:], self.weights[:, first:])


@dataclass(frozen=True)
class EncoderOutput:
    """What the encoder gives.

    Attributes:
        memory: (B, N, C) all tokens, the kept ones updated; or (B, K, C) another sequence.
        layer_rows: Rows (B, K or N, C) after each layer that has an auxiliary head; empty unless
            asked for.
        kept: The only tokens whose memory differs from the tokens' features; None if any may.
        sequence: Position and padding of a memory that is not of the tokens; None where it is.
    """

    memory: Tensor
    layer_rows: tuple[Tensor, ...] = ()
    kept: KeptTokens | None = None
    sequence: MemoryTokens | None = None

    def tokens_read(self, tokens: FeatureTokens) -> FeatureTokens:
        """What the rows of the memory are: the tokens of the batch, or the sequence in their place.

        Args:
            tokens: The tokens of the batch.
        """
        return tokens if self.sequence is None else cast(FeatureTokens, self.sequence)


@dataclass(frozen=True)
class DecoderQueries:
    """What the decoder starts from.

    Attributes:
        content: (B, Q, C).
        position: (B, Q, C), added to the content in every decoder layer; None where the decoder
            makes it from the reference points.
        reference_points: (B, Q, 2) centres or (B, Q, 4) boxes (cxcywh), normalised, no gradient
            where they come from the first stage; None for queries that start from no place.
        first_stage: Predictions of the first stage for all tokens; only when asked for.
        token_indices: (B, Q) the tokens that became queries, or None for learned queries.
        query_mask: (B, Q) bool, False on rows that stand on padding because the image has fewer
            tokens than there are queries; None if no row does.
        denoising: While training with denoising: the first P rows are denoising queries, so that
            Q above counts P + Q rows but for ``token_indices``. None otherwise.
    """

    content: Tensor
    position: Tensor | None
    reference_points: Tensor | None
    first_stage: Predictions | None = None
    token_indices: Tensor | None = None
    query_mask: Tensor | None = None
    denoising: DenoisingRows | None = None

    @property
    def num_denoising(self) -> int:
        """Number P of rows in front that are denoising queries."""
        return 0 if self.denoising is None else self.denoising.rows

    def visible(self) -> Tensor | None:
        """Who may be seen: None all, (B, Q) bool the same by every row, (B or 1, Q, Q) by row."""
        if not self.num_denoising:
            return self.query_mask
        assert self.denoising is not None
        num_queries = self.content.shape[1] - self.num_denoising
        pairs = self.denoising.visible(num_queries, self.content.device)[None]
        return pairs if self.query_mask is None else pairs & self.query_mask[:, None]


@dataclass(frozen=True)
class DecoderOutput:
    """What the decoder gives.

    Attributes:
        predictions: One entry per supervised decoder layer, the final layer last; at inference
            the final layer only.
        sampling: Sampling of the deformable cross-attention of each layer; empty unless asked for.
        attention_maps: In its place for dense cross-attention: (B, Q, N) of each layer, the
            attention weights without dropout, summed over the heads; no gradient. Empty unless
            asked for.
        denoising: Predictions of the denoising queries, one entry per layer like ``predictions``;
            empty without them. All other fields are about the matching queries alone.
    """

    predictions: tuple[Predictions, ...]
    sampling: tuple[Sampling, ...] = ()
    attention_maps: tuple[Tensor, ...] = ()
    denoising: tuple[Predictions, ...] = ()


@dataclass(frozen=True)
class DetectorOutput:
    """Everything a loss, an evaluator or a picture may want from one forward pass.

    Attributes:
        tokens: The tokens of the batch.
        selection: The kept tokens, or None when every token is updated.
        encoder_auxiliary: Predictions of the auxiliary heads of encoder layers 0..E-2.
        queries: The decoder's starting point, with the first stage's predictions.
        decoder: Output of the decoder.
    """

    tokens: FeatureTokens
    selection: TokenSelection | None
    encoder_auxiliary: tuple[Predictions, ...]
    queries: DecoderQueries
    decoder: DecoderOutput
