"""Writes the pictures of many images: predictions beside the ground truth, and kept tokens.

Role in the flow: behind `tools/visualize_predictions.py`, and for programs that end with pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from detectron2.data.detection_utils import read_image
from detectron2.structures import Instances
from PIL import Image

from ..inference import InspectedImage, inspect_image
from ..meta_arch import TransformerDetector
from .kept_tokens import draw_kept_tokens, kept_levels
from .panels import Picture
from .predictions import annotations_as_instances, draw_predictions

Record = Mapping[str, Any]
Mapper = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class PictureOptions:
    """What the pictures show.

    Attributes:
        class_names: Names by class id; None shows ids.
        score_threshold: Predictions with a lower score are left out.
        keep_ratio: Keeping ratio in (0, 1]; None takes the model's own.
    """

    class_names: Sequence[str] | None = None
    score_threshold: float = 0.3
    keep_ratio: float | None = None


def write_pictures(
    model: TransformerDetector,
    mapper: Mapper,
    records: Iterable[Record],
    output_dir: Path,
    options: PictureOptions,
) -> Iterator[tuple[Path, ...]]:
    """Writes the pictures of one image after the other.

    ``<image>_predictions.png`` shows the predictions, beside the ground truth where the record has
    ``annotations``; ``<image>_kept_tokens.png`` shows the kept tokens, where the model selects any.

    Args:
        model: The detector, in evaluation mode.
        mapper: The test loader's mapper.
        records: Detectron2's data set dictionaries.
        output_dir: Folder of the pictures; it is made.
        options: What is shown.

    Yields:
        The files of each image, as soon as they are written.

    Raises:
        BadSampleError: An image cannot be read.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    used: set[str] = set()
    for record in records:
        sample = mapper(dict(record))
        inspected = inspect_image(model, sample, options.keep_ratio)
        truth = None
        if "annotations" in record:
            truth = annotations_as_instances({**record, **_size(sample)})
        name = _unused_name(Path(record["file_name"]).stem, used)
        pictures = {"predictions": _predictions(record, inspected, truth, options)}
        if inspected.output.selection is not None:
            shown = _network_input(sample, model.input_format)
            boxes = _boxes_in_input(truth, inspected)
            pictures["kept_tokens"] = draw_kept_tokens(
                shown, kept_levels(inspected), inspected.padded_size, boxes
            )
        yield tuple(
            _save(picture, output_dir / f"{name}_{kind}.png") for kind, picture in pictures.items()
        )


def _size(sample: Mapping[str, Any]) -> dict[str, int]:
    return {"height": int(sample["height"]), "width": int(sample["width"])}


def _predictions(
    record: Record, inspected: InspectedImage, truth: Instances | None, options: PictureOptions
) -> Picture:
    original: Picture = read_image(record["file_name"], format="RGB")
    return draw_predictions(
        original, inspected.instances, truth, options.class_names, options.score_threshold
    )


def _network_input(sample: Mapping[str, Any], input_format: str) -> Picture:
    """Gives the image as the network saw it, in RGB."""
    pixels = sample["image"].permute(1, 2, 0).cpu().numpy()
    ordered = pixels[:, :, ::-1] if input_format == "BGR" else pixels
    return np.ascontiguousarray(np.clip(ordered, 0, 255).astype(np.uint8))


def _boxes_in_input(
    truth: Instances | None, inspected: InspectedImage
) -> npt.NDArray[np.floating] | None:
    """Gives the ground truth's boxes in pixels of the network's input."""
    if truth is None:
        return None
    height, width = truth.image_size
    scale = [inspected.image_size[1] / width, inspected.image_size[0] / height] * 2
    boxes: npt.NDArray[np.floating] = truth.gt_boxes.tensor.numpy() * np.array(scale)
    return boxes


def _unused_name(stem: str, used: set[str]) -> str:
    """Gives ``stem``, with a number behind it where an earlier image has it already."""
    name, number = stem, 2
    while name in used:
        name, number = f"{stem}_{number}", number + 1
    used.add(name)
    return name


def _save(picture: Picture, path: Path) -> Path:
    Image.fromarray(picture).save(path)
    return path
