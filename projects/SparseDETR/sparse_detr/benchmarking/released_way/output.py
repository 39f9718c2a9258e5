"""What one forward pass of the released way gives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...structures import Size


@dataclass
class ReleasedOutput:
    """All that the released code computes in one forward pass, at inference as well.

    Attributes:
        logits: (D, B, Q, num_classes) of all decoder layers.
        boxes_cxcywh: (D, B, Q, 4).
        first_stage: Logits (B, N, num_classes) and boxes (B, N, 4) of all tokens.
        auxiliary: Logits and boxes of the auxiliary encoder heads.
        is_proposal: (B, N) bool.
        token_scores: (B, N), or None for a dense encoder.
        kept_indices: (B, K), or None.
        kept_counts: Tokens that each image keeps.
        encoder_sampling: Locations and weights of all encoder layers, stacked.
        decoder_sampling: The same of the decoder.
        spatial_shapes: L pairs (H_l, W_l).
    """

    logits: Tensor
    boxes_cxcywh: Tensor
    first_stage: tuple[Tensor, Tensor]
    auxiliary: list[tuple[Tensor, Tensor]]
    is_proposal: Tensor
    token_scores: Tensor | None
    kept_indices: Tensor | None
    kept_counts: tuple[int, ...]
    encoder_sampling: tuple[Tensor, Tensor]
    decoder_sampling: tuple[Tensor, Tensor]
    spatial_shapes: tuple[Size, ...]
