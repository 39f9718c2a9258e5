"""Which tokens the encoder updates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def gather_rows(values: Tensor, indices: Tensor) -> Tensor:
    """Rows of each image.

    Args:
        values: (B, N, ...).
        indices: (B, K) int64.

    Returns:
        (B, K, ...).
    """
    index = indices.reshape(indices.shape + (1,) * (values.dim() - 2))
    return values.gather(1, index.expand(-1, -1, *values.shape[2:]))


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

    def scatter(self, memory: Tensor, rows: Tensor) -> Tensor:
        """Memory with the images' own rows replaced.

        Args:
            memory: (B, N, C).
            rows: (B, K, C) new values; surplus rows are ignored.

        Returns:
            (B, N, C), a new tensor.
        """
        if self.has_surplus:
            rows = torch.where(self.own_rows()[..., None], rows, self.gather(memory))
        index = self.kept_indices[..., None].expand(-1, -1, memory.shape[-1])
        return memory.scatter(1, index, rows.to(memory.dtype))

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
    """

    layers: tuple[KeptTokens, ...]
    token_scores: Tensor | None = None

    def for_layer(self, layer: int) -> KeptTokens:
        """Kept tokens of encoder layer ``layer``."""
        return self.layers[0] if len(self.layers) == 1 else self.layers[layer]
