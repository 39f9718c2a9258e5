"""The training loss as released: dense targets, full cost matrices, the attention map twice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ...class_scores import SigmoidClasses
from ...criterion import SetCriterion
from ...layers.boxes import cxcywh_to_xyxy, generalized_iou
from ...structures import Sampling, Size, Targets
from ...testing.released_attention_map import released_attention_map
from .output import ReleasedOutput

Match = list[tuple[Tensor, Tensor]]


def released_loss(
    output: ReleasedOutput,
    targets: Sequence[Targets],
    criterion: SetCriterion,
    spatial_shapes: Sequence[Size],
) -> Tensor:
    """Total loss of a batch without padding.

    Args:
        output: Of the released way.
        targets: Objects of the B images.
        criterion: Gives weights and matching costs.
        spatial_shapes: L pairs (H_l, W_l).

    Source: Sparse DETR, sections 3.2 and 3.5; released code for the steps.
    """
    num_boxes = max(1, sum(len(target.labels) for target in targets))
    stages = [*zip(output.logits, output.boxes_cxcywh, strict=True)]
    stages += [output.first_stage, *output.auxiliary]
    total = sum(
        (_stage_loss(logits, boxes, targets, criterion, num_boxes) for logits, boxes in stages),
        output.logits.new_zeros(()),
    )
    if output.token_scores is not None and output.kept_indices is not None:
        total = total + criterion.token_scoring_weight * _scoring_loss(output, spatial_shapes)
    return total


def _stage_loss(
    logits: Tensor,
    boxes: Tensor,
    targets: Sequence[Targets],
    criterion: SetCriterion,
    num_boxes: int,
) -> Tensor:
    matches = released_match(logits, boxes, targets, criterion)
    image = torch.cat([torch.full_like(rows, i) for i, (rows, _) in enumerate(matches)])
    row = torch.cat([rows for rows, _ in matches])
    labels = torch.cat([t.labels[o] for t, (_, o) in zip(targets, matches, strict=True)])
    wanted = torch.cat([t.boxes_cxcywh[o] for t, (_, o) in zip(targets, matches, strict=True)])
    classes = logits.shape[-1]
    dense = torch.full(logits.shape[:2], classes, dtype=torch.int64, device=logits.device)
    dense[image, row] = labels
    one_hot = logits.new_zeros((*logits.shape[:2], classes + 1))
    one_hot.scatter_(2, dense[..., None], 1)
    alpha = _focal_alpha(criterion)
    focal = _focal_loss(logits, one_hot[..., :-1], alpha) / num_boxes
    found = boxes[image, row]
    l1 = F.l1_loss(found, wanted, reduction="none").sum() / num_boxes
    giou = generalized_iou(cxcywh_to_xyxy(found)[:, None], cxcywh_to_xyxy(wanted)[None])
    giou_loss = (1 - giou.diagonal()).sum() / num_boxes
    return (
        criterion.class_weight * focal
        + criterion.bbox_weight * l1
        + criterion.giou_weight * giou_loss
    )


def _focal_alpha(criterion: SetCriterion) -> float:
    scores = criterion.matcher.class_scores
    if not isinstance(scores, SigmoidClasses):
        raise ValueError(
            "criterion.matcher.class_scores must be SigmoidClasses for the released way of Sparse "
            f"DETR, got {type(scores).__name__}"
        )
    return scores.alpha


def _focal_loss(logits: Tensor, target: Tensor, alpha: float) -> Tensor:
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    right = probability * target + (1 - probability) * (1 - target)
    loss = entropy * ((1 - right) ** 2)
    share = alpha * target + (1 - alpha) * (1 - target)
    return (share * loss).mean(1).sum() * logits.shape[1]


@torch.no_grad()
def released_match(
    logits: Tensor, boxes: Tensor, targets: Sequence[Targets], criterion: SetCriterion
) -> Match:
    """Rows and objects that belong together, from the costs of all rows and all objects."""
    matcher = criterion.matcher
    batch, queries = logits.shape[:2]
    probability = logits.flatten(0, 1).sigmoid()
    rows = boxes.flatten(0, 1)
    labels = torch.cat([target.labels for target in targets])
    wanted = torch.cat([target.boxes_cxcywh for target in targets])
    alpha = _focal_alpha(criterion)
    negative = (1 - alpha) * (probability**2) * (-(1 - probability + 1e-8).log())
    positive = alpha * ((1 - probability) ** 2) * (-(probability + 1e-8).log())
    classes = positive[:, labels] - negative[:, labels]
    distance = torch.cdist(rows, wanted, p=1)
    overlap = generalized_iou(cxcywh_to_xyxy(rows)[:, None], cxcywh_to_xyxy(wanted)[None])
    cost = matcher.bbox_cost * distance + matcher.class_cost * classes - matcher.giou_cost * overlap
    cost = cost.view(batch, queries, -1).cpu()
    matches = []
    counts = [len(target.labels) for target in targets]
    for image, part in enumerate(torch.split(cost, counts, dim=-1)):
        row, target = linear_sum_assignment(part[image].numpy())
        device = logits.device
        matches.append((torch.as_tensor(row).to(device), torch.as_tensor(target).to(device)))
    return matches


def _scoring_loss(output: ReleasedOutput, spatial_shapes: Sequence[Size]) -> Tensor:
    """The token scoring loss; the map is made a second time for what is only logged."""
    assert output.token_scores is not None and output.kept_indices is not None
    locations, weights = output.decoder_sampling
    layers = [
        Sampling(locations[:, layer], weights[:, layer]) for layer in range(locations.shape[1])
    ]
    attention = released_attention_map(layers, spatial_shapes)
    number = output.kept_indices.shape[1]
    top = torch.topk(attention, number, dim=1).indices
    target = torch.zeros_like(attention)
    for image, count in enumerate(output.kept_counts):
        target[image].scatter_(0, top[image][:count], 1)
    loss = F.multilabel_soft_margin_loss(output.token_scores, target)
    released_attention_map(layers, spatial_shapes)  # again, for the share that is only logged
    return loss
