"""Ground truth of one image, as the criterion wants it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..layers.boxes import xyxy_to_cxcywh


@dataclass(frozen=True)
class Targets:
    """Objects of one image.

    Attributes:
        labels: (T,) int64 contiguous class ids.
        boxes_cxcywh: (T, 4) normalised to the image.
    """

    labels: Tensor
    boxes_cxcywh: Tensor


def targets_of(inputs: Sequence[dict[str, Any]], num_classes: int, like: Tensor) -> list[Targets]:
    """Targets from Detectron2's input dicts.

    Args:
        inputs: One dict per image with ``instances`` (gt_boxes xyxy in pixels of the image that
            the network sees, gt_classes).
        num_classes: Number of classes; labels are checked on the host, where a wrong one can
            still be named.
        like: Tensor that gives type and device of the boxes.

    Raises:
        ValueError: No instances, or a label outside [0, num_classes).
    """
    targets = []
    for position, item in enumerate(inputs):
        name = item.get("file_name", item.get("image_id", position))
        if "instances" not in item:
            raise ValueError(f"batched_inputs[{position}] ({name}) must have 'instances' to train")
        instances = item["instances"]
        labels = torch.as_tensor(instances.gt_classes, dtype=torch.int64)
        wrong = labels[(labels < 0) | (labels >= num_classes)]
        if len(wrong):
            raise ValueError(
                f"gt_classes of {name} must be in [0, {num_classes}), got {int(wrong[0])}; set "
                "model.num_classes to the number of classes of the data set"
            )
        height, width = instances.image_size
        boxes = instances.gt_boxes.tensor.to(like)
        boxes = boxes / boxes.new_tensor([width, height, width, height])
        targets.append(Targets(labels.to(like.device), xyxy_to_cxcywh(boxes)))
    return targets
