"""What was found in one image: boxes in its pixels, with names, as a picture, as COCO records.

Role in the flow: the end of prediction.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from PIL import Image

from ..engine.checkpoint_file import replacing
from .class_table import ClassTable
from .image_input import read_rgb

_JPEG_QUALITY = 95


@dataclass(frozen=True, repr=False, eq=False)
class Detections:
    """Detections of one image, best first.

    Attributes:
        instances: Detectron2's Instances with ``pred_boxes`` (xyxy, pixels of the original image),
            ``scores`` and ``pred_classes``, on the CPU.
        classes: Names of the classes and their ids in the data set; None where they are unknown.
        index: Position of the image among those that were given.
        file_name: File of the image; None for an image that was given as pixels.
    """

    instances: Instances
    classes: ClassTable | None
    index: int
    file_name: str | None
    _pixels: npt.NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.instances)

    def __repr__(self) -> str:
        height, width = self.instances.image_size
        where = self.file_name or f"image {self.index}"
        return f"Detections({where}, {width}x{height}: {self.summary()})"

    @property
    def image(self) -> npt.NDArray[np.uint8]:
        """The image, (height, width, 3) in RGB: a file is read again, pixels are not copied."""
        if self._pixels is not None:
            return self._pixels
        assert self.file_name is not None
        return read_rgb(self.file_name)

    def labels(self) -> list[str]:
        """Gives the class name of each detection; "class 3" where the name is unknown."""
        names = () if self.classes is None else self.classes.names
        return [
            names[class_id] if class_id < len(names) else f"class {class_id}"
            for class_id in self.instances.pred_classes.tolist()
        ]

    def summary(self) -> str:
        """Gives the counts in words: "2 person, 1 dog", or "nothing"."""
        counts = Counter(self.labels()).most_common()
        return ", ".join(f"{number} {label}" for label, number in counts) or "nothing"

    def draw(
        self, scale: float = 1.0, image: npt.NDArray[np.uint8] | None = None
    ) -> npt.NDArray[np.uint8]:
        """Gives the image with boxes, class names and scores, drawn with Detectron2's visualiser.

        Args:
            scale: Size of the picture in sizes of the image; small images need more than 1 for
                readable labels.
            image: (height, width, 3) bytes in RGB to draw on, such as the next frame of a video;
                None takes the image itself.

        Returns:
            (round(height * scale), round(width * scale), 3) in RGB.

        Raises:
            ValueError: ``scale`` is not positive, or ``image`` has another size.
            BadSampleError: The image's file is gone.
        """
        # The pictures of inspected images import this package.
        from ..visualization.predictions import draw_boxes

        if not scale > 0:
            raise ValueError(f"scale must be a positive number, got {scale!r}")
        image = self.image if image is None else image
        height, width = self.instances.image_size
        if image.shape != (height, width, 3):
            raise ValueError(
                f"image must be {(height, width, 3)} as detected in, got {image.shape}"
            )
        labels = [
            f"{label} {score:.0%}"
            for label, score in zip(self.labels(), self.instances.scores.tolist(), strict=True)
        ]
        return draw_boxes(
            image,
            self.instances.pred_boxes,
            self.instances.pred_classes,
            labels,
            (max(1, round(height * scale)), max(1, round(width * scale))),
        )

    def save(self, path: str | os.PathLike[str], scale: float = 1.0) -> Path:
        """Writes what :meth:`draw` gives, in place of a file of that name once it is whole.

        Args:
            path: The file; its suffix says the format. Its folder is made.
            scale: See :meth:`draw`.

        Returns:
            The file.

        Raises:
            ValueError: The suffix names no format that Pillow writes.
            OSError: The file cannot be written.
        """
        target = Path(path)
        kind = Image.registered_extensions().get(target.suffix.lower())
        if kind is None or kind not in Image.SAVE:
            raise ValueError(
                f"path {str(target)!r} ends in {target.suffix!r}, expected a format of pictures "
                "such as .png or .jpg"
            )
        picture = Image.fromarray(self.draw(scale))
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary, temporary.open("wb") as stream:
            picture.save(stream, format=kind, quality=_JPEG_QUALITY)
        return target

    def to_coco(self, image_id: int | str) -> list[dict[str, Any]]:
        """Gives the detections as COCO's results: what its evaluation reads.

        Args:
            image_id: Id of the image in the annotation file.

        Returns:
            One dict per detection: ``image_id``, ``category_id``, ``bbox`` (x, y, width, height;
            pixels) and ``score``. The category ids are those of the data set; where that is
            unknown they are the class ids, counted from 0.
        """
        records: list[dict[str, Any]] = instances_to_coco_json(self.instances, image_id)
        if self.classes is not None:
            for record in records:
                record["category_id"] = self.classes.category_ids[record["category_id"]]
        return records
