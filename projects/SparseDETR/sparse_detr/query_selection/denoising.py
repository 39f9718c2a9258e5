"""Contrastive denoising: noised objects as extra queries, near ones to restore, far ones to refuse.

Role in the flow: training only, at the end of query selection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..layers.boxes import cxcywh_to_xyxy, inverse_sigmoid, xyxy_to_cxcywh
from ..structures import DecoderQueries, DenoisingRows, Targets


@dataclass(frozen=True)
class DenoisingNoise:
    """The draws for all copies of all objects; row ``copy * M + object``, M objects in the batch.

    Attributes:
        changed: (R,) bool, whose label is replaced.
        labels: (number of changed,) int64, by what.
        signs: (R, 4) of -1 and 1: the direction in which each side moves.
        parts: (R, 4) in [0, 1): how far, in halves of the box.
    """

    changed: Tensor
    labels: Tensor
    signs: Tensor
    parts: Tensor


NoiseSource = Callable[[int, int, float, Tensor], DenoisingNoise]


def drawn_noise(rows: int, num_classes: int, label_chance: float, like: Tensor) -> DenoisingNoise:
    """Noise from torch's own generator of the device.

    Args:
        rows: Copies R of objects.
        num_classes: New labels are drawn below it, the old one among them.
        label_chance: Chance that a label is drawn anew.
        like: Tensor that gives type and device of the boxes.

    Source: released code of DINO for the order of the draws.
    """
    changed = torch.rand(rows, dtype=like.dtype, device=like.device) < label_chance
    # Waits for the device, like the released code: the number of draws is part of the sequence.
    count = int(changed.sum())
    labels = torch.randint(0, num_classes, (count,), device=like.device)
    signs = torch.randint(0, 2, (rows, 4), device=like.device).to(like.dtype) * 2 - 1
    return DenoisingNoise(changed, labels, signs, torch.rand_like(signs))


class ContrastiveDenoising(nn.Module):
    """Prepends groups of noised objects to the queries.

    In a group every object stands once as positive, its sides moved by up to half of the box, and
    once as negative, moved by half to the whole of it. With many objects there are fewer groups.

    Args:
        hidden_dim: Channels C.
        num_classes: Classes.
        denoising_number: Groups times objects of the fullest image, rounded down to whole groups;
            one group at least.
        label_noise: Half of it is the chance that a label is drawn anew.
        box_noise: Factor on the moves.
        unused_rows_seen: False keeps slots that hold no object out of attention and loss, so that
            an image does not learn from how many objects its neighbours have. True is the released
            behaviour.
        reference_eps: Noised boxes are kept that far from 0 and 1, like the heads' references.

    Attributes:
        noise: Where the draws come from.

    Source: DINO, section 3.3; released code for the draws and the number of groups.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_classes: int,
        denoising_number: int = 100,
        label_noise: float = 0.5,
        box_noise: float = 1.0,
        unused_rows_seen: bool = False,
        reference_eps: float = 1e-3,
    ) -> None:
        super().__init__()
        if denoising_number < 1:
            raise ValueError(f"denoising_number must be at least 1, got {denoising_number}")
        self.label_embedding = nn.Embedding(num_classes, hidden_dim)
        self.num_classes = num_classes
        self.denoising_number = denoising_number
        self.label_noise = label_noise
        self.box_noise = box_noise
        self.unused_rows_seen = unused_rows_seen
        self.reference_eps = reference_eps
        self.noise: NoiseSource = drawn_noise

    def forward(self, queries: DecoderQueries, targets: Sequence[Targets]) -> DecoderQueries:
        """The queries with denoising queries in front.

        Args:
            queries: Matching queries, with boxes as references.
            targets: Objects of the B images.
        """
        assert queries.reference_points is not None and queries.position is None
        rows = self.rows_for(targets)
        content, boxes = self.noised(rows, targets, queries.reference_points)
        # So that the labels' embedding has a gradient in a batch without objects too.
        matching = queries.content + 0 * self.label_embedding.weight[0, 0].to(queries.content.dtype)
        content = torch.cat([content.to(matching.dtype), matching], dim=1)
        reference = torch.cat([boxes, queries.reference_points], dim=1)
        return replace(
            queries,
            content=content,
            reference_points=reference,
            query_mask=self._mask(queries, rows),
            denoising=rows,
        )

    def rows_for(self, targets: Sequence[Targets]) -> DenoisingRows:
        """How many groups and slots the batch gets."""
        counts = tuple(len(target.labels) for target in targets)
        groups = max(1, self.denoising_number // max(1, *counts))
        return DenoisingRows(counts, groups, self.unused_rows_seen)

    def noised(
        self, rows: DenoisingRows, targets: Sequence[Targets], like: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Content (B, P, C) and boxes (B, P, 4) cxcywh of the denoising queries.

        Args:
            rows: How they lie.
            targets: Objects of the B images.
            like: Gives type and device of the boxes.
        """
        labels = torch.cat([target.labels for target in targets])
        boxes = torch.cat([target.boxes_cxcywh for target in targets]).to(like)
        copies = 2 * rows.groups
        chance = 0.5 * self.label_noise
        noise = self.noise(copies * len(labels), self.num_classes, chance, boxes)
        label = labels.repeat(copies).masked_scatter(noise.changed, noise.labels)
        box = self._moved(boxes, noise, copies)
        place = _places(rows).to(like.device)
        shape = (len(targets), rows.rows)
        embedded = self.label_embedding(label)
        content = embedded.new_zeros(shape[0] * shape[1], embedded.shape[1])
        # The box (.5, .5, .5, .5) stands in unused slots.
        reference = like.new_full((shape[0] * shape[1], 4), 0.5)
        content = content.index_copy(0, place, embedded).view(*shape, embedded.shape[1])
        return content, reference.index_copy(0, place, box).view(*shape, 4)

    def _moved(self, boxes: Tensor, noise: DenoisingNoise, copies: int) -> Tensor:
        """(copies * M, 4) cxcywh; sides may cross: sizes are not put in order, as released."""
        half = (boxes[:, 2:] / 2).repeat(copies, 2)
        negative = (torch.arange(copies, device=boxes.device) % 2).repeat_interleave(len(boxes))
        distance = (noise.parts + negative[:, None].to(boxes.dtype)) * half * self.box_noise
        corners = cxcywh_to_xyxy(boxes).repeat(copies, 1) + noise.signs * distance
        moved = xyxy_to_cxcywh(corners.clamp(min=0, max=1))
        return inverse_sigmoid(moved, self.reference_eps).sigmoid()

    @staticmethod
    def _mask(queries: DecoderQueries, rows: DenoisingRows) -> Tensor | None:
        """(B, P + Q) bool, False on unused slots and on what is no matching query."""
        used = rows.used(queries.content.device)
        if used is None and queries.query_mask is None:
            return None
        everything = torch.ones_like(queries.content[..., 0], dtype=torch.bool)
        if used is None:
            used = everything[:, :1].expand(-1, rows.rows)
        own = everything if queries.query_mask is None else queries.query_mask
        return torch.cat([used, own], dim=1)


def _places(rows: DenoisingRows) -> Tensor:
    """(copies * M,) row among the (B * P) of all images of every copy of every object."""
    own = [image * rows.rows + torch.arange(count) for image, count in enumerate(rows.counts)]
    first = torch.cat(own)
    copies = torch.arange(2 * rows.groups)[:, None] * rows.slots
    return (first[None] + copies).flatten()
