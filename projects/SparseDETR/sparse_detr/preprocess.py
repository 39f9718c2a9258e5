"""From Detectron2's input dicts to normalised images and targets.

Role in the flow: images -> **preprocess** -> backbone; and targets -> criterion (training).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .layers.boxes import xyxy_to_cxcywh
from .structures import ImageBatch, ShapeCache, Targets, is_plain


class PixelStatistics:
    """Mean and standard deviation of the colours, as tensors of any type and device.

    Numbers, not buffers: a float32 buffer would stay rounded in a float64 model.

    Args:
        mean: Of each channel.
        std: Of each channel.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = tuple(float(v) for v in mean)
        self.std = tuple(float(v) for v in std)
        self._tensors: ShapeCache[tuple[Tensor, Tensor]] = ShapeCache()

    def like(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation, (3, 1, 1) each, in the type and on the device of a tensor."""

        def make() -> tuple[Tensor, Tensor]:
            mean, std = (tensor.new_tensor(v).view(3, 1, 1) for v in (self.mean, self.std))
            return mean, std

        if not is_plain(tensor.detach()):
            return make()
        return self._tensors.get((tensor.dtype, tensor.device), make)


def normalised_batch(
    inputs: Sequence[dict[str, Any]], pixel_mean: Tensor, pixel_std: Tensor
) -> ImageBatch:
    """Normalised images from Detectron2's input dicts.

    Args:
        inputs: One dict per image with ``image`` (3, height, width), and optionally ``height``,
            ``width`` (of the original image) and ``image_id`` or ``file_name``.
        pixel_mean: (3, 1, 1) in the units of the image.
        pixel_std: (3, 1, 1).

    Raises:
        ValueError: An empty batch, or an image that is not (3, height, width) or has no pixel.
    """
    if not inputs:
        raise ValueError("batched_inputs must hold at least one image, got an empty list")
    images, sizes, ids = [], [], []
    for position, item in enumerate(inputs):
        image = item["image"]
        is_image = isinstance(image, Tensor) and image.dim() == 3 and image.shape[0] == 3
        if not is_image or 0 in image.shape:
            got = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
            raise ValueError(
                f"batched_inputs[{position}]['image'] must be a tensor (3, height, width) with "
                f"at least one pixel, got {got}"
            )
        height, width = item.get("height", image.shape[1]), item.get("width", image.shape[2])
        # Moved before it is converted: bytes are a quarter of the transfer.
        pixels = image.to(pixel_mean.device).to(pixel_mean.dtype)
        images.append((pixels - pixel_mean).div_(pixel_std))
        sizes.append((int(height), int(width)))
        ids.append(item.get("image_id", item.get("file_name", position)))
    return ImageBatch(tuple(images), tuple(sizes), tuple(ids))


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
