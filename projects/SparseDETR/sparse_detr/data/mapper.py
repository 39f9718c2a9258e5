"""From a data set dictionary to the dictionary that the meta-architecture reads.

Role in the flow: reads and checks one image with its annotations, augments both, and makes tensors.
Bad input is named here, on the host, where the file is still known.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.data.detection_utils import SizeMismatchError, check_image_size, read_image
from detectron2.data.transforms import AugInput, Augmentation, AugmentationList
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image, UnidentifiedImageError

IMAGE_FORMATS = ("RGB", "BGR")


class BadSampleError(ValueError):
    """An image or annotation that cannot be used; a loader may be told to skip it."""


class ClassIdError(ValueError):
    """A class id that does not fit the number of classes; never skipped, the set-up is wrong."""


class DetrDatasetMapper:
    """Gives Detectron2's model input for one data set dictionary.

    Training: crowd regions are dropped, boxes are clipped to the image and dropped where empty,
    before the augmentation and again after it. Images without a box are kept, with empty
    `instances`. Evaluation: annotations are left out.

    Args:
        is_train: whether annotations are wanted.
        augmentations: augmentations of a sample that is not cropped; those of every sample in
            evaluation.
        augmentation_with_crop: augmentations of a sample that is cropped, training only; None for
            never.
        crop_probability: how often a training sample takes `augmentation_with_crop`.
        image_format: "RGB" (as released) or "BGR".
        num_classes: the model's class count; class ids are checked against it. None: not checked.

    Raises:
        ValueError: an argument is out of range.
        TypeError: `num_classes` is not an integer.

    Source: data pipeline of the released code, which keeps images without annotation.
    """

    def __init__(
        self,
        is_train: bool,
        augmentations: Sequence[Augmentation],
        augmentation_with_crop: Sequence[Augmentation] | None = None,
        crop_probability: float = 0.5,
        image_format: str = "RGB",
        num_classes: int | None = None,
    ) -> None:
        if image_format not in IMAGE_FORMATS:
            raise ValueError(
                f"image_format: got {image_format!r}, expected one of {', '.join(IMAGE_FORMATS)}"
            )
        if not 0.0 <= crop_probability <= 1.0:
            raise ValueError(
                f"crop_probability: got {crop_probability}, expected a number in [0, 1]"
            )
        if num_classes is not None and not isinstance(num_classes, int):
            raise TypeError(
                f"num_classes: got {num_classes!r}, expected an integer or None; 'auto' has to be "
                "resolved from the data before the loaders are built"
            )
        self.is_train = is_train
        self.augmentations = AugmentationList(list(augmentations))
        with_crop = augmentation_with_crop if is_train else None
        self.augmentation_with_crop = (
            None if with_crop is None else AugmentationList(list(with_crop))
        )
        self.crop_probability = crop_probability
        self.image_format = image_format
        self.num_classes = num_classes

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Gives the model input of one sample.

        Args:
            dataset_dict: Detectron2's standard dictionary (file_name, height, width, image_id,
                annotations); not changed.

        Returns:
            The dictionary without `annotations`, with `image` (3, h, w) uint8 and, in training,
            `instances` with `gt_boxes` (n, 4) XYXY in pixels of `image` and `gt_classes` (n,).

        Raises:
            BadSampleError: unreadable image, wrong image size, or a malformed box.
            ClassIdError: a class id outside [0, num_classes).
        """
        sample = {k: copy.copy(v) for k, v in dataset_dict.items() if k != "annotations"}
        image = self._read(sample)
        boxes, classes = np.zeros((0, 4)), np.zeros(0, dtype=np.int64)
        if self.is_train:
            boxes, classes = self._read_annotations(dataset_dict, image.shape[:2])
        aug_input = AugInput(image, boxes=boxes)
        self._pick_augmentation()(aug_input)
        pixels = np.ascontiguousarray(aug_input.image.transpose(2, 0, 1))
        # A copy where numpy still shares the decoder's read-only memory.
        sample["image"] = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
        if self.is_train:
            sample["instances"] = _to_instances(
                aug_input.boxes, classes, (int(pixels.shape[1]), int(pixels.shape[2]))
            )
        return sample

    def _pick_augmentation(self) -> AugmentationList:
        if self.augmentation_with_crop is None or np.random.random() >= self.crop_probability:
            return self.augmentations
        return self.augmentation_with_crop

    def _read(self, sample: dict[str, Any]) -> npt.NDArray[np.uint8]:
        """Gives the image (h, w, 3) of a sample and fills in its size."""
        file_name = sample["file_name"]
        image = read_image_file(file_name, self.image_format)
        try:
            check_image_size(sample, image)
        except SizeMismatchError as error:
            raise BadSampleError(
                f"image {file_name} is {image.shape[1]}x{image.shape[0]} pixels (width x height, "
                "after its EXIF rotation), but the annotation file says "
                f"{sample.get('width')}x{sample.get('height')}; correct the annotation file"
            ) from error
        return image

    def _read_annotations(
        self, dataset_dict: dict[str, Any], image_shape: tuple[int, int]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Gives the usable boxes (n, 4) XYXY in pixels and classes (n,) of the unchanged image."""
        boxes: list[tuple[float, ...]] = []
        classes: list[int] = []
        for index, annotation in enumerate(dataset_dict.get("annotations", ())):
            if annotation.get("iscrowd", 0):
                continue
            where = _describe(dataset_dict["file_name"], index, annotation)
            boxes.append(_box_xyxy(annotation, where))
            classes.append(self._check_class(annotation.get("category_id"), where))
        array = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        array, kept = clip_and_keep(array, image_shape)
        return array, np.asarray(classes, dtype=np.int64)[kept]

    def _check_class(self, class_id: object, where: str) -> int:
        if isinstance(class_id, bool) or not isinstance(class_id, int | np.integer):
            raise ClassIdError(f"{where}: class is {class_id!r}, expected an integer")
        if class_id < 0 or (self.num_classes is not None and class_id >= self.num_classes):
            limit = "num_classes" if self.num_classes is None else self.num_classes
            raise ClassIdError(
                f"{where}: class {class_id} is outside [0, {limit}); set model.num_classes to the "
                "number of categories of the data set"
            )
        return int(class_id)


def read_image_file(
    file_name: str | os.PathLike[str], image_format: str = "RGB"
) -> npt.NDArray[np.uint8]:
    """Gives an image file as Detectron2 reads it: eight bits, turned as its EXIF data say.

    Args:
        file_name: the file.
        image_format: "RGB" or "BGR".

    Returns:
        (height, width, 3); alpha is dropped, a palette is looked up.

    Raises:
        BadSampleError: it is missing, an address, or cannot be read.
    """
    if "://" in str(file_name):
        # Detectron2 would download it.
        raise BadSampleError(f"image {file_name} is an address, expected a file")
    if not os.path.isfile(file_name):
        what = "is a folder" if os.path.isdir(file_name) else "does not exist"
        raise BadSampleError(f"image {file_name} {what}")
    try:
        image: npt.NDArray[np.uint8] = read_image(os.fspath(file_name), format=image_format)
    except (
        OSError,
        UnidentifiedImageError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:
        # Pillow raises SyntaxError for a broken PNG and OSError for a truncated file.
        foreign = isinstance(error, UnidentifiedImageError)
        reason = "it is damaged, or of a format that Pillow does not know" if foreign else error
        raise BadSampleError(f"image {file_name} cannot be read: {reason}") from error
    return image


def clip_and_keep(
    boxes_xyxy: npt.NDArray[np.float64], image_shape: tuple[int, int]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Gives the clipped boxes that are not empty, and which ones they are.

    Args:
        boxes_xyxy: (n, 4), pixels.
        image_shape: (height, width), pixels.

    Returns:
        Boxes (m, 4) and a mask (n,) of the boxes kept.
    """
    height, width = image_shape
    clipped = np.clip(boxes_xyxy, 0, np.array([width, height, width, height], dtype=np.float64))
    kept = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    return clipped[kept], kept


def _describe(file_name: str, index: int, annotation: dict[str, Any]) -> str:
    identity = f" (id {annotation['id']})" if "id" in annotation else ""
    return f"image {file_name}, annotation {index}{identity}"


def _box_xyxy(annotation: dict[str, Any], where: str) -> tuple[float, ...]:
    """Gives one box as XYXY, pixels; a reversed box stays reversed and is dropped as empty."""
    box = annotation.get("bbox")
    if box is None or len(box) != 4:
        raise BadSampleError(f"{where}: bbox is {box!r}, expected four numbers")
    try:
        x0, y0, third, fourth = (float(v) for v in box)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadSampleError(f"{where}: bbox is {box!r}, expected four numbers") from error
    if not all(math.isfinite(v) for v in (x0, y0, third, fourth)):
        raise BadSampleError(f"{where}: bbox is {box!r}, expected finite numbers")
    mode = BoxMode(annotation.get("bbox_mode", BoxMode.XYWH_ABS))
    if mode == BoxMode.XYWH_ABS:
        return (x0, y0, x0 + third, y0 + fourth)
    if mode == BoxMode.XYXY_ABS:
        return (x0, y0, third, fourth)
    raise BadSampleError(f"{where}: bbox_mode is {mode}, expected XYWH_ABS or XYXY_ABS")


def _to_instances(
    boxes_xyxy: npt.NDArray[np.float64],
    classes: npt.NDArray[np.int64],
    image_shape: tuple[int, int],
) -> Instances:
    """Gives Detectron2's targets after clipping to the augmented image."""
    boxes, kept = clip_and_keep(np.asarray(boxes_xyxy, dtype=np.float64), image_shape)
    instances = Instances(image_shape)
    instances.gt_boxes = Boxes(torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.as_tensor(classes[kept], dtype=torch.int64)
    return instances
