"""The weights that make accumulated micro-batches equal to one large batch.

Role in the flow: the trainer splits an optimiser step into micro-batches and multiplies each loss
term by the weight given here before the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils import comm

# Prefixes of the loss terms that are averaged over images.
PER_IMAGE_TERMS = ("loss_decoder_attention_map",)


class MicroBatchWeights:
    """The share of one micro-batch in an optimiser step, per loss term.

    A term that the model divides by its number of boxes n_j (at least 1, averaged over the
    processes) gets n_j / n with n of the whole step: then the sum over micro-batches is what one
    large batch gives. A term averaged over images, the loss on the decoder cross-attention map,
    gets its share of the images.

    Args:
        per_box: Share by boxes.
        per_image: Share by images.
    """

    def __init__(self, per_box: float, per_image: float) -> None:
        self.per_box = per_box
        self.per_image = per_image

    def of(self, term: str) -> float:
        """Gives the weight of the loss ``term``."""
        return self.per_image if term.startswith(PER_IMAGE_TERMS) else self.per_box


def micro_batch_weights(
    micro_batches: Sequence[list[dict[str, Any]]], device: torch.device
) -> list[MicroBatchWeights]:
    """Gives the weights of every micro-batch of an optimiser step.

    Args:
        micro_batches: The inputs of this process, Detectron2 dicts with ``instances``.
        device: Where counts are summed over the processes.

    Returns:
        One entry per micro-batch; a single micro-batch has weight 1 without any communication.
    """
    if len(micro_batches) == 1:
        return [MicroBatchWeights(1.0, 1.0)]
    boxes = [float(sum(len(entry["instances"]) for entry in batch)) for batch in micro_batches]
    images = [float(len(batch)) for batch in micro_batches]
    counts = torch.tensor([boxes, images], dtype=torch.float64)
    world_size = comm.get_world_size()
    if world_size > 1:
        moved = counts.to(device)
        dist.all_reduce(moved)
        counts = moved.cpu() / world_size
    per_box = counts[0].clamp(min=1.0) / counts[0].sum().clamp(min=1.0)
    per_image = counts[1] / counts[1].sum()
    return [
        MicroBatchWeights(float(box), float(image))
        for box, image in zip(per_box, per_image, strict=True)
    ]
