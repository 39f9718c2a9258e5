"""Writes the pictures of many images: predictions beside the ground truth, and kept tokens.

Role in the flow: behind `tools/visualize_predictions.py`, and for programs that end with pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data.detection_utils import read_image
from detectron2.structures import Instances

from ..inference import InspectedImage, inspect_image
from ..meta_arch import TransformerDetector
from ..token_selection import KeepRatioLike
from .kept_tokens import draw_kept_tokens, kept_levels, num_pooled
from .network_input import ground_truth, network_input, truth_boxes
from .panels import Picture
from .picture_files import save_picture, unused_name
from .predictions import draw_predictions

Record = Mapping[str, Any]
Mapper = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class PictureOptions:
    """What the pictures show.

    Attributes:
        class_names: Names by class id; None shows ids.
        score_threshold: Predictions with a lower score are left out.
        keep_ratio: Keeping ratio, a number or any of its text forms; None takes the model's own.
    """

    class_names: Sequence[str] | None = None
    score_threshold: float = 0.3
    keep_ratio: KeepRatioLike | None = None


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
        truth = ground_truth(record, sample)
        name = unused_name(Path(record["file_name"]).stem, used)
        pictures = {"predictions": _predictions(record, inspected, truth, options)}
        selection = inspected.output.selection
        if selection is not None:
            shown = network_input(sample, model.input_format)
            boxes = None if truth is None else truth_boxes(truth, inspected.image_size)
            pictures["kept_tokens"] = draw_kept_tokens(
                shown,
                kept_levels(inspected),
                inspected.padded_size,
                boxes,
                num_pooled(selection),
            )
        yield tuple(
            save_picture(picture, output_dir / f"{name}_{kind}.png")
            for kind, picture in pictures.items()
        )


def _predictions(
    record: Record, inspected: InspectedImage, truth: Instances | None, options: PictureOptions
) -> Picture:
    original: Picture = read_image(record["file_name"], format="RGB")
    return draw_predictions(
        original, inspected.instances, truth, options.class_names, options.score_threshold
    )
