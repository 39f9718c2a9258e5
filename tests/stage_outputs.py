"""Random predictions, targets and detector outputs for the matcher and the criterion."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from small_tokens import tokens_of
from sparse_detr.structures import (
    DecoderOutput,
    DecoderQueries,
    DetectorOutput,
    Predictions,
    Sampling,
    Targets,
    TokenSelection,
)


def random_boxes(*shape: int) -> torch.Tensor:
    """(..., 4) cxcywh inside the image."""
    size = 0.1 + 0.3 * torch.rand(*shape, 2).double()
    centre = size / 2 + torch.rand(*shape, 2).double() * (1 - size)
    return torch.cat([centre, size], dim=-1)


def random_predictions(batch: int, rows: int, num_classes: int = 3) -> Predictions:
    """Predictions of one stage in float64."""
    return Predictions(torch.randn(batch, rows, num_classes).double(), random_boxes(batch, rows))


def random_targets(counts: Sequence[int], num_classes: int = 3) -> list[Targets]:
    """Objects of images with the given numbers of them."""
    return [Targets(torch.randint(num_classes, (n,)), random_boxes(n)) for n in counts]


def output_of(
    *stages: Predictions,
    first_stage: Predictions | None = None,
    auxiliary: Sequence[Predictions] = (),
    selection: TokenSelection | None = None,
    sampling: Sequence[Sampling] = (),
    valid: Sequence[Sequence[tuple[int, int]]] | None = None,
) -> DetectorOutput:
    """Output of a detector with the given stages, the final decoder layer last."""
    tokens = tokens_of([(3, 4)], valid, batch=len(stages[-1].logits))
    queries = DecoderQueries(
        tokens.features, tokens.position, tokens.features[..., :4], first_stage
    )
    decoder = DecoderOutput(tuple(stages), tuple(sampling))
    return DetectorOutput(tokens, selection, tuple(auxiliary), queries, decoder)
