"""Predictions beside the ground truth, drawn with Detectron2's Visualizer.

Role in the flow: the picture to look at first when judging a detector.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils.visualizer import Visualizer

from .fonts import readable_labels
from .panels import Picture, captioned, display_size, grid, resized

Colour = tuple[float, float, float]
_GOLDEN_RATIO = 0.618034
_LIGHTNESS = (0.55, 0.7, 0.62)


class _ClearBoxes(Visualizer):
    """Detectron2's visualiser with edges that hardly let the image through."""

    def draw_box(
        self,
        box_coord: Sequence[float],
        alpha: float = 0.95,
        edge_color: Any = "g",
        line_style: str = "-",
    ) -> Any:
        """Draws one box; see Detectron2."""
        return super().draw_box(
            box_coord, alpha=alpha, edge_color=edge_color, line_style=line_style
        )


def class_colour(class_id: int) -> Colour:
    """Gives the colour of a class, always the same, with neighbouring ids far apart.

    Args:
        class_id: Contiguous id from 0.

    Returns:
        RGB in [0, 1].
    """
    hue = (0.58 + class_id * _GOLDEN_RATIO) % 1.0
    return colorsys.hls_to_rgb(hue, _LIGHTNESS[class_id % len(_LIGHTNESS)], 0.95)


def class_name(class_id: int, class_names: Sequence[str] | None) -> str:
    """Gives the name of a class; one without a name is shown as a number."""
    if class_names is not None and 0 <= class_id < len(class_names):
        return str(class_names[class_id])
    return f"class {class_id}"


def annotations_as_instances(record: Mapping[str, Any]) -> Instances:
    """Gives the ground truth of a data set dictionary in pixels of the original image.

    Args:
        record: Detectron2's standard dictionary with ``height``, ``width`` and ``annotations``.

    Returns:
        Instances with ``gt_boxes`` (xyxy), ``gt_classes`` and ``gt_is_crowd``.
    """
    annotations = record.get("annotations", ())
    boxes = [
        BoxMode.convert(list(a["bbox"]), a.get("bbox_mode", BoxMode.XYWH_ABS), BoxMode.XYXY_ABS)
        for a in annotations
    ]
    return Instances(
        (int(record["height"]), int(record["width"])),
        gt_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        gt_classes=torch.tensor([int(a["category_id"]) for a in annotations], dtype=torch.int64),
        gt_is_crowd=torch.tensor(
            [bool(a.get("iscrowd", 0)) for a in annotations], dtype=torch.bool
        ),
    )


def draw_predictions(
    image: Picture,
    predictions: Instances,
    ground_truth: Instances | None = None,
    class_names: Sequence[str] | None = None,
    score_threshold: float = 0.3,
) -> Picture:
    """Gives a picture of the ground truth (left, where given) and the predictions (right).

    A class has the same colour in both panels.

    Args:
        image: The original image.
        predictions: ``pred_boxes`` in pixels of it, ``scores``, ``pred_classes``.
        ground_truth: ``gt_boxes``, ``gt_classes`` and, optionally, ``gt_is_crowd``.
        class_names: Names by class id; None shows ids.
        score_threshold: Predictions with a lower score are left out.

    Returns:
        The picture; small images are shown enlarged.

    Raises:
        ValueError: The image is not (height, width, 3) uint8.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"image must be (height, width, 3) uint8 in RGB, got {image.shape} {image.dtype}"
        )
    shown = predictions[predictions.scores >= score_threshold]
    panels = []
    if ground_truth is not None:
        truth = draw_boxes(
            image,
            ground_truth.gt_boxes,
            ground_truth.gt_classes,
            _truth_labels(ground_truth, class_names),
        )
        panels.append(captioned(truth, f"Ground truth: {_counted(len(ground_truth), 'object')}"))
    labels = [
        f"{class_name(class_id, class_names)} {score:.0%}"
        for class_id, score in zip(shown.pred_classes.tolist(), shown.scores.tolist(), strict=True)
    ]
    drawn = draw_boxes(image, shown.pred_boxes, shown.pred_classes, labels)
    caption = (
        f"Predictions: {_counted(len(shown), 'box', 'boxes')} with score ≥ {score_threshold:g}"
    )
    if not len(shown) and len(predictions):
        caption += f" (best: {float(predictions.scores.max()):.2g})"
    panels.append(captioned(drawn, caption))
    return grid(panels, columns=len(panels))


def _truth_labels(ground_truth: Instances, class_names: Sequence[str] | None) -> list[str]:
    labels = [class_name(class_id, class_names) for class_id in ground_truth.gt_classes.tolist()]
    if not ground_truth.has("gt_is_crowd"):
        return labels
    crowd = ground_truth.gt_is_crowd.tolist()
    return [f"{text} (crowd)" if many else text for text, many in zip(labels, crowd, strict=True)]


def _counted(count: int, singular: str, plural: str | None = None) -> str:
    return f"{count} {singular if count == 1 else plural or singular + 's'}"


def draw_boxes(
    image: Picture,
    boxes: Boxes,
    classes: torch.Tensor,
    labels: Sequence[str],
    size: tuple[int, int] | None = None,
) -> Picture:
    """Gives the image with boxes and labels; a class has always the same colour.

    Args:
        image: The original image.
        boxes: n boxes in pixels of it.
        classes: (n,) class ids.
        labels: n texts, shown as they are.
        size: (height, width) of the picture, pixels; None takes the display size.

    Returns:
        The picture.
    """
    size = size or display_size(image.shape[0], image.shape[1])
    scale = [size[1] / image.shape[1], size[0] / image.shape[0]] * 2
    scaled: npt.NDArray[np.float64] = boxes.tensor.detach().cpu().double().numpy() * np.array(scale)
    with readable_labels():
        visualiser = _ClearBoxes(resized(image, size))
        visualiser.overlay_instances(
            boxes=scaled,
            # Between two dollar signs matplotlib would read a formula.
            labels=[label.replace("$", r"\$") for label in labels],
            assigned_colors=[class_colour(class_id) for class_id in classes.tolist()],
        )
        drawn: Picture = np.ascontiguousarray(visualiser.output.get_image())
    return drawn
