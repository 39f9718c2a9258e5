"""The Hungarian matcher: which prediction answers for which object.

Role in the flow: called by the criterion, once for all supervised stages of a batch. The costs of
all stages and images are computed together on the device and leave it in one transfer; the
assignments go back in one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .class_scores import ClassScores, SigmoidClasses
from .layers.boxes import cxcywh_to_xyxy, generalized_iou
from .layers.precision import at_least_float32
from .structures import DenoisingRows, Predictions, Targets

Match = tuple[Tensor, Tensor]
_Indices = npt.NDArray[np.int64]

# Pairs of a prediction and an object whose costs are computed at once. On the CPU intermediate
# results should stay in the cache; elsewhere the number bounds the memory.
_PAIRS_AT_ONCE_ON_CPU = 2**16
_PAIRS_AT_ONCE = 2**21


@dataclass(frozen=True)
class BatchObjects:
    """The objects of all images of a batch, one after the other.

    Attributes:
        labels: (M,) int64.
        boxes_cxcywh: (M, 4) normalised.
        image: (M,) int64 image of each object.
        counts: B numbers of objects, on the host.
    """

    labels: Tensor
    boxes_cxcywh: Tensor
    image: Tensor
    counts: tuple[int, ...]

    @staticmethod
    def of(targets: Sequence[Targets]) -> BatchObjects:
        """The objects of B images."""
        counts = tuple(len(target.labels) for target in targets)
        labels = torch.cat([target.labels for target in targets])
        image = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
        boxes = torch.cat([target.boxes_cxcywh for target in targets])
        return BatchObjects(labels, boxes, image.to(labels.device, non_blocking=True), counts)


@dataclass(frozen=True)
class StageMatches:
    """The matched pairs of one stage, image after image, rows ascending within each.

    Attributes:
        image: (M,) int64.
        row: (M,) int64 row of the prediction in its image.
        object: (M,) int64 position among the objects of the image.
        batch_object: (M,) int64 position among the objects of the batch.
        counts: B numbers of pairs, on the host.
    """

    image: Tensor
    row: Tensor
    object: Tensor
    batch_object: Tensor
    counts: tuple[int, ...]

    def of_images(self) -> list[Match]:
        """(rows, objects) of each image."""
        rows, objects = (torch.split(part, list(self.counts)) for part in (self.row, self.object))
        return list(zip(rows, objects, strict=True))


def fixed_matches(rows: DenoisingRows, device: torch.device) -> StageMatches:
    """The pairs of denoising queries and the objects that they were made from.

    Args:
        rows: How the denoising queries lie.
        device: Where the pairs are wanted.
    """
    image, row, found, batch_object = rows.assignment().to(device, non_blocking=True)
    counts = tuple(count * rows.groups for count in rows.counts)
    return StageMatches(image, row, found, batch_object, counts)


@dataclass(frozen=True)
class PendingMatches:
    """Costs that the device may still be computing.

    Attributes:
        numbers: Costs (objects, rows of all stages), then the candidate masks of the stages that
            have one; flat.
        rows: Number of rows Q of each stage.
        masked: Whether each stage has a candidate mask.
        counts: B numbers of objects.
    """

    numbers: Tensor
    rows: tuple[int, ...]
    masked: tuple[bool, ...]
    counts: tuple[int, ...]

    def solve(self) -> list[StageMatches]:
        """The cheapest assignment of each stage and image; waits for the device once."""
        numbers = self.numbers.cpu().numpy()
        total_rows = sum(self.rows)
        costs = numbers[: sum(self.counts) * total_rows].reshape(sum(self.counts), total_rows)
        masks = self._masks(numbers[costs.size :])
        pairs: list[_Indices] = []
        starts = np.cumsum([0, *self.counts])
        first_row = 0
        for rows, mask in zip(self.rows, masks, strict=True):
            for image, count in enumerate(self.counts):
                start = starts[image]
                block = costs[start : start + count, first_row : first_row + rows]
                row, found = _assign(block, None if mask is None else mask[image])
                pairs.append(np.stack([np.full_like(row, image), row, found, found + start]))
            first_row += rows
        return self._on_device(pairs)

    def _masks(self, numbers: npt.NDArray[np.floating]) -> list[npt.NDArray[np.bool_] | None]:
        """(B, Q) of each stage, None where all rows are candidates."""
        masks: list[npt.NDArray[np.bool_] | None] = []
        for rows, masked in zip(self.rows, self.masked, strict=True):
            size = rows * len(self.counts) if masked and len(numbers) else 0
            masks.append(numbers[:size].reshape(-1, rows) > 0 if size else None)
            numbers = numbers[size:]
        return masks

    def _on_device(self, pairs: Sequence[_Indices]) -> list[StageMatches]:
        """Matches of each stage from those of each stage and image."""
        images = len(self.counts)
        on_host = torch.from_numpy(np.concatenate(pairs, axis=1))
        together = on_host.to(self.numbers.device, non_blocking=True)
        by_stage = [
            tuple(p.shape[1] for p in pairs[i : i + images]) for i in range(0, len(pairs), images)
        ]
        parts = torch.split(together, [sum(counts) for counts in by_stage], dim=1)
        return [
            StageMatches(part[0], part[1], part[2], part[3], counts)
            for part, counts in zip(parts, by_stage, strict=True)
        ]


def _assign(
    costs: npt.NDArray[np.floating], candidates: npt.NDArray[np.bool_] | None
) -> tuple[_Indices, _Indices]:
    """Rows, ascending, and objects of the cheapest assignment.

    Args:
        costs: (T, Q).
        candidates: (Q,) rows that may match; None for all.
    """
    if not len(costs):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    allowed = None if candidates is None else np.flatnonzero(candidates)
    if allowed is not None:
        costs = costs[:, allowed]
    # The solver turns a matrix with more rows than columns; both ways give the same pairs.
    if costs.shape[0] < costs.shape[1]:
        objects, rows = linear_sum_assignment(costs)
    else:
        rows, objects = linear_sum_assignment(costs.T)
    order = np.argsort(rows)
    rows, objects = rows[order], objects[order]
    return (rows if allowed is None else allowed[rows]), objects


class HungarianMatcher:
    """One-to-one assignment of predictions to objects with the lowest total cost.

    Args:
        class_cost: Weight of the classification cost.
        bbox_cost: Weight of the L1 distance of the boxes (cxcywh).
        giou_cost: Weight of the negative generalised IoU.
        class_scores: How classes are scored, in the cost and in the criterion's loss.
        iou_eps: Added to union and hull of the generalised IoU, in the cost and in the criterion's
            loss; DINO's 1e-6.

    Source: DETR, section 3.1; Deformable DETR for the focal form of the class cost.
    """

    def __init__(
        self,
        class_cost: float = 2.0,
        bbox_cost: float = 5.0,
        giou_cost: float = 2.0,
        class_scores: ClassScores | None = None,
        iou_eps: float = 0.0,
    ) -> None:
        if class_cost == 0 and bbox_cost == 0 and giou_cost == 0:
            raise ValueError("class_cost, bbox_cost and giou_cost must not all be zero")
        self.class_cost = class_cost
        self.bbox_cost = bbox_cost
        self.giou_cost = giou_cost
        self.class_scores = SigmoidClasses() if class_scores is None else class_scores
        self.iou_eps = iou_eps

    def __call__(self, predictions: Predictions, targets: Sequence[Targets]) -> list[Match]:
        """The matches of each image.

        Args:
            predictions: Logits and boxes of one stage; rows that are no candidates never match.
            targets: Objects of the B images.

        Returns:
            For each image (rows, objects), two int64 tensors on the predictions' device of length
            min(number of candidates, number of objects), rows ascending.
        """
        (matches,) = self.prepare([predictions], BatchObjects.of(targets)).solve()
        return matches.of_images()

    @torch.no_grad()
    def prepare(self, stages: Sequence[Predictions], objects: BatchObjects) -> PendingMatches:
        """Starts the matching of several stages, without waiting for the device.

        Args:
            stages: Logits and boxes of each stage, for the same images.
            objects: Objects of the images.

        Returns:
            What gives the matches.
        """
        rows = tuple(stage.logits.shape[1] for stage in stages)
        masks = [stage.candidate_mask for stage in stages]
        masked = tuple(mask is not None for mask in masks)
        pairs = len(objects.labels) * sum(rows)
        if not pairs:
            none = objects.boxes_cxcywh.new_zeros(0)
            return PendingMatches(none, rows, masked, objects.counts)
        boxes = torch.cat([stage.boxes_cxcywh for stage in stages], dim=1)
        dtype = at_least_float32(torch.promote_types(boxes.dtype, stages[0].logits.dtype))
        flags = [mask.flatten().to(dtype) for mask in masks if mask is not None]
        numbers = boxes.new_empty(pairs + sum(len(flag) for flag in flags), dtype=dtype)
        self._fill(numbers[:pairs].view(-1, sum(rows)), stages, boxes.to(dtype), objects)
        if flags:
            torch.cat(flags, out=numbers[pairs:])
        return PendingMatches(numbers, rows, masked, objects.counts)

    def _fill(
        self, costs: Tensor, stages: Sequence[Predictions], boxes: Tensor, objects: BatchObjects
    ) -> None:
        """Writes the costs (M, rows of all stages) of all objects, some objects at a time."""
        # Each coordinate in a plane of its own, (8, B, rows): dense vectors for all that follows.
        planes = torch.cat([boxes, cxcywh_to_xyxy(boxes)], dim=-1).permute(2, 0, 1).contiguous()
        targets = objects.boxes_cxcywh.to(boxes.dtype)[:, None]
        targets = torch.cat([targets, cxcywh_to_xyxy(targets)], dim=-1)
        at_once = _PAIRS_AT_ONCE_ON_CPU if costs.device.type == "cpu" else _PAIRS_AT_ONCE
        step = max(1, at_once // costs.shape[1])
        values = [self.class_scores.comparable(s.logits) for s in stages]
        for start in range(0, len(costs), step):
            part = slice(start, start + step)
            image, label = objects.image[part], objects.labels[part]
            of_class = torch.cat(
                [
                    value[image, :, 0 if s.class_agnostic else label]
                    for value, s in zip(values, stages, strict=True)
                ],
                dim=1,
            )
            own = planes[:, image].permute(1, 2, 0)
            costs[part] = self._pair_cost(of_class.to(boxes.dtype), own, targets[part])

    @torch.no_grad()
    def cost(self, logits: Tensor, boxes: Tensor, labels: Tensor, target_boxes: Tensor) -> Tensor:
        """Cost of every pair of a prediction and an object.

        Args:
            logits: (Q, num_classes), or one more with "no object" last.
            boxes: (Q, 4) cxcywh.
            labels: (T,) int64.
            target_boxes: (T, 4) cxcywh.

        Returns:
            (Q, T).
        """
        dtype = at_least_float32(logits.dtype)
        both = [
            torch.cat([b, cxcywh_to_xyxy(b)], dim=-1)
            for b in (boxes.to(dtype)[:, None], target_boxes.to(dtype)[None])
        ]
        values = self.class_scores.comparable(logits.to(dtype))
        return self._pair_cost(values[:, labels], *both)

    def _pair_cost(self, of_class: Tensor, boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Cost of pairs.

        Args:
            of_class: (X, Y) what the class cost is taken from, of the object's class.
            boxes: (X, Y, 8) cxcywh, then corners; or what broadcasts to it.
            target_boxes: The same of the objects.

        Returns:
            (X, Y).
        """
        distance = (boxes[..., :4] - target_boxes[..., :4]).abs().sum(-1)
        giou = generalized_iou(boxes[..., 4:], target_boxes[..., 4:], self.iou_eps)
        return (
            self.bbox_cost * distance
            + self.class_cost * self.class_scores.pair_cost(of_class)
            - self.giou_cost * giou
        )
