"""Which tokens the encoder updates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .memory_tokens import MemoryTokens
from .predictions import Predictions
from .row_access import flat_rows, gather_rows, leading_rows


@dataclass(frozen=True)
class RowWriter:
    """Writes the rows of kept tokens back to the tokens that they came from.

    Attributes:
        targets: (M,) int64 rows to replace, in the (B * N) tokens of all images.
        sources: (M,) int64 rows to write, in the (B * K) given ones; None for all of them.
    """

    targets: Tensor
    sources: Tensor | None

    def write_(self, memory: Tensor, rows: Tensor) -> None:
        """Replaces rows of the memory itself.

        Args:
            memory: (B, N, C), contiguous.
            rows: (B, K, C) new values.
        """
        memory.view(-1, memory.shape[-1]).index_copy_(0, self.targets, self._own(memory, rows))

    def written(self, memory: Tensor, rows: Tensor) -> Tensor:
        """(B, N, C) copy of the memory with replaced rows; see :meth:`write_`."""
        tokens = memory.flatten(0, 1)
        return tokens.index_copy(0, self.targets, self._own(memory, rows)).view(memory.shape)

    def _own(self, memory: Tensor, rows: Tensor) -> Tensor:
        rows = rows.flatten(0, 1).to(memory.dtype)
        return rows if self.sources is None else rows.index_select(0, self.sources)


@dataclass(frozen=True)
class KeptTokens:
    """The tokens of each image that an encoder layer updates.

    Images keep different numbers of tokens. Rows beyond an image's own number fill the tensor up
    to K; they are never written to the memory.

    Attributes:
        kept_indices: (B, K) int64 indices into the N tokens, highest score first, no duplicates.
        kept_counts: B numbers of rows that are the image's own, on the host.
    """

    kept_indices: Tensor
    kept_counts: tuple[int, ...]

    @property
    def has_surplus(self) -> bool:
        """Whether any image has rows beyond its own."""
        return any(count < self.kept_indices.shape[1] for count in self.kept_counts)

    def own_rows(self) -> Tensor:
        """(B, K) bool, True on the rows that are the image's own."""
        device = self.kept_indices.device
        counts = torch.tensor(self.kept_counts, device=device)
        return torch.arange(self.kept_indices.shape[1], device=device) < counts[:, None]

    def gather(self, values: Tensor) -> Tensor:
        """Rows of the kept tokens.

        Args:
            values: (B, N, ...).

        Returns:
            (B, K, ...).
        """
        return gather_rows(values, self.kept_indices)

    def writer(self, num_tokens: int) -> RowWriter:
        """What writes the images' own rows back.

        Args:
            num_tokens: Tokens N of an image.
        """
        targets = flat_rows(self.kept_indices, num_tokens)
        width = self.kept_indices.shape[1]
        sources = leading_rows(self.kept_counts, width, targets.device)
        return RowWriter(targets if sources is None else targets[sources], sources)

    def scatter(self, memory: Tensor, rows: Tensor) -> Tensor:
        """Memory with the images' own rows replaced.

        Args:
            memory: (B, N, C).
            rows: (B, K, C) new values; surplus rows are ignored.

        Returns:
            (B, N, C), a new tensor.
        """
        return self.writer(memory.shape[1]).written(memory, rows)

    def membership(self, num_tokens: int, with_surplus: bool = False) -> Tensor:
        """(B, N) bool, True on the image's own kept tokens, or on those of every row."""
        mask = torch.zeros(
            (self.kept_indices.shape[0], num_tokens),
            dtype=torch.bool,
            device=self.kept_indices.device,
        )
        return mask.scatter(1, self.kept_indices, True if with_surplus else self.own_rows())


@dataclass(frozen=True)
class TokenSelection:
    """What token scoring and selection hand to the encoder, the criterion and the pictures.

    Attributes:
        layers: Kept tokens of each encoder layer, or a single entry that all layers share.
        token_scores: (B, N) logit of every token as the selection saw it, or None if no network
            scored the tokens.
        predictions: Predictions of all tokens that the scores were read from, for a loss of their
            own, or None.
        raw_scores: (B, N) the scores before padding was masked, for a loss of them, or None.
        sequence: What encoder and decoder read in place of the tokens: the kept ones and others
            that were pooled from the rest. None where kept tokens are written back.
    """

    layers: tuple[KeptTokens, ...]
    token_scores: Tensor | None = None
    predictions: Predictions | None = None
    raw_scores: Tensor | None = None
    sequence: MemoryTokens | None = None

    def for_layer(self, layer: int) -> KeptTokens:
        """Kept tokens of encoder layer ``layer``."""
        return self.layers[0] if len(self.layers) == 1 else self.layers[layer]

    def union(self, num_tokens: int, with_surplus: bool = False) -> Tensor:
        """Which tokens any layer updates.

        Args:
            num_tokens: Tokens N of an image.
            with_surplus: Count the tokens of every row, not the images' own alone.

        Returns:
            (B, N) bool.
        """
        masks = [kept.membership(num_tokens, with_surplus) for kept in self._distinct()]
        return torch.stack(masks).any(0) if len(masks) > 1 else masks[0]

    def union_counts(self, num_tokens: int) -> tuple[int, ...]:
        """B numbers of tokens that any layer updates, on the host.

        Where layers keep different tokens the host waits for the device.

        Args:
            num_tokens: Tokens N of an image.
        """
        if len(self._distinct()) == 1:
            return self.layers[0].kept_counts
        return tuple(self.union(num_tokens).sum(1).tolist())

    def _distinct(self) -> list[KeptTokens]:
        """The kept tokens without repeated objects."""
        return list({id(kept): kept for kept in self.layers}.values())
