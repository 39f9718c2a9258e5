"""What the network saw of an image, and the ground truth in its pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from detectron2.structures import Instances

from ..structures import Size
from .panels import Picture
from .predictions import annotations_as_instances


def network_input(sample: Mapping[str, Any], input_format: str) -> Picture:
    """Gives the image as the network saw it, in RGB.

    Args:
        sample: Detectron2's input dict.
        input_format: Channel order of the model.
    """
    pixels = sample["image"].permute(1, 2, 0).cpu().numpy()
    ordered = pixels[:, :, ::-1] if input_format == "BGR" else pixels
    return np.ascontiguousarray(np.clip(ordered, 0, 255).astype(np.uint8))


def ground_truth(record: Mapping[str, Any], sample: Mapping[str, Any]) -> Instances | None:
    """Gives the ground truth of a record in pixels of the original image; None without any.

    Args:
        record: Detectron2's data set dictionary.
        sample: The input dict made of it, for the size of the original image.
    """
    if "annotations" not in record:
        return None
    size = {"height": int(sample["height"]), "width": int(sample["width"])}
    return annotations_as_instances({**record, **size})


def truth_boxes(truth: Instances, image_size: Size) -> npt.NDArray[np.float64]:
    """Gives the ground truth's boxes in pixels of the network's input, (n, 4) xyxy.

    Args:
        truth: In pixels of the original image.
        image_size: (height, width) of the network's input.
    """
    height, width = truth.image_size
    scale = np.array([image_size[1] / width, image_size[0] / height] * 2)
    boxes: npt.NDArray[np.float64] = truth.gt_boxes.tensor.double().numpy() * scale
    return boxes
