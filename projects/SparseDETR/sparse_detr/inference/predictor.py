"""From a config and a checkpoint to detections, in three lines.

Role in the flow: what a program that uses a trained detector talks to. It reads images, resizes
them as the config's evaluation does, runs the detector in batches, and names what was found.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from detectron2.data.transforms import Augmentation, AugmentationList
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from ..data.mapper import BadSampleError
from ..engine.errors import user_errors
from ..meta_arch import TransformerDetector
from ..token_selection import KeepRatioLike
from .class_table import ClassTable
from .config_reading import classes_of, config_tree, evaluation_resizing, weights_file
from .detections import Detections
from .image_input import ImageInput, read_rgb
from .inspection import InspectedImage, inspect_image
from .model_building import build_model_for_inference
from .optimization import Precision
from .prepared_image import PreparedImage, prepare_image

SCORE_THRESHOLD = 0.3
_SINGLE = (str, os.PathLike, Image.Image, np.ndarray, Tensor)


class Predictor:
    """A detector that takes images as a person has them, and gives named boxes in their pixels.

    An image is a file name, a Pillow image, a numpy array (height, width, 3) or a tensor
    (3, height, width), in RGB: see :func:`sparse_detr.inference.image_input.read_rgb`.
    Gradients are never computed. Threads may share a predictor: they read images at the same time
    and take turns with the detector.

    Args:
        model: The detector, in evaluation mode, on its device.
        augmentations: The resizing that the detector is evaluated with.
        classes: Names and ids of the classes; None where they are unknown.
        score_threshold: Detections with a lower score are left out; 0 keeps all.
        batch_size: Images that go through the detector at once.
        config: The config that the model was built from, for the user to look at.

    Attributes:
        model: The detector. Its ``keep_ratio`` may be set.
        config: The config tree, or None.
        weights: The checkpoint file, or None.

    Raises:
        ValueError: The model is in training mode, or a number is out of range.
    """

    def __init__(
        self,
        model: TransformerDetector,
        augmentations: Sequence[Augmentation] | AugmentationList,
        classes: ClassTable | None = None,
        score_threshold: float = SCORE_THRESHOLD,
        batch_size: int = 1,
        config: DictConfig | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.model = model
        self.augmentations = (
            augmentations
            if isinstance(augmentations, AugmentationList)
            else AugmentationList(list(augmentations))
        )
        self.classes = classes
        self.score_threshold = _checked_threshold(score_threshold)
        self.batch_size = batch_size
        self.config = config
        self.weights: str | None = None
        self._turn = threading.Lock()
        self._require_evaluation_mode()

    @classmethod
    def from_config(
        cls,
        config: DictConfig | str | os.PathLike[str],
        weights: str | os.PathLike[str] | None = None,
        overrides: Sequence[str] = (),
        *,
        device: str = "auto",
        keep_ratio: KeepRatioLike | None = None,
        score_threshold: float = SCORE_THRESHOLD,
        optimize: Precision | None = None,
        dtype: torch.dtype | str | None = None,
        batch_size: int = 1,
        class_names: Sequence[str] | None = None,
        untrained: bool = False,
    ) -> Predictor:
        """Gives a predictor for a config and a checkpoint.

        Args:
            config: Name or file of a config, such as "sparse_detr/sparse_detr_r50_rho10_50ep" or
                "output/quickstart/config.yaml", or a config tree, which is not changed.
            weights: A ``.pth`` file. None takes the newest checkpoint in the config's
                ``train.output_dir``, else its ``train.init_checkpoint``.
            overrides: Changes to the config, "model.postprocess.max_detections=300".
            device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".
            keep_ratio: Keeping ratio in place of the config's, in any form that
                :func:`sparse_detr.token_selection.as_keep_ratio` takes; None leaves that.
            score_threshold: Detections with a lower score are left out; 0 keeps all.
            optimize: "exact", "bfloat16-backbone" or "bfloat16" makes the detector faster.
            dtype: "float32" or "float64"; None is float32.
            batch_size: Images that go through the detector at once.
            class_names: Names of the classes in place of the data set's.
            untrained: Keep the initial weights, which detect nothing; for trying things out.

        Returns:
            The predictor.

        Raises:
            ConfigError: The config cannot be found or read, or an override is wrong.
            UserError: There are no weights, or an argument does not fit the model.
        """
        tree = config_tree(config, overrides)
        file = weights_file(tree, weights, overrides, untrained)
        model = build_model_for_inference(tree, file, device, keep_ratio, optimize, dtype)
        resizing = evaluation_resizing(tree, model.input_format)
        # Converted released heads have rows that stand for no class.
        num_classes = model.postprocess.detected_classes or model.num_classes
        classes = classes_of(tree, num_classes, class_names)
        with user_errors("predictor", ValueError):
            predictor = cls(model, resizing, classes, score_threshold, batch_size, tree)
        predictor.weights = file
        return predictor

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes in the order of their ids; None where they are unknown."""
        return None if self.classes is None else self.classes.names

    @overload
    def __call__(  # type: ignore[overload-overlap]  # text is a sequence of texts
        self,
        images: ImageInput,
        keep_ratio: KeepRatioLike | None = None,
        score_threshold: float | None = None,
    ) -> Detections: ...

    @overload
    def __call__(
        self,
        images: Sequence[ImageInput],
        keep_ratio: KeepRatioLike | None = None,
        score_threshold: float | None = None,
    ) -> list[Detections]: ...

    def __call__(
        self,
        images: ImageInput | Sequence[ImageInput],
        keep_ratio: KeepRatioLike | None = None,
        score_threshold: float | None = None,
    ) -> Detections | list[Detections]:
        """Gives the detections of one image, or of each image of a list.

        Args:
            images: One image, or a list or tuple of them, of any sizes.
            keep_ratio: Keeping ratio of this call; None takes the model's.
            score_threshold: Threshold of this call; None takes the predictor's.

        Returns:
            Detections for one image, a list of them for a list.

        Raises:
            BadSampleError: An image cannot be read; the message says which one. A ValueError.
            ValueError: An argument is out of range.
            TypeError: Something is no image.
        """
        if isinstance(images, _SINGLE):
            self._require_evaluation_mode()
            prepared = self._prepare(0, images)
            (single,) = self._detect([prepared], keep_ratio, self._threshold(score_threshold))
            return single
        if not isinstance(images, (list, tuple)):
            raise TypeError(
                f"images must be one image or a list of images, got {type(images).__name__}; for "
                "an iterator use predictor.stream(images)"
            )
        return list(self.stream(images, keep_ratio, score_threshold))

    def stream(
        self,
        images: Iterable[ImageInput],
        keep_ratio: KeepRatioLike | None = None,
        score_threshold: float | None = None,
        on_bad_image: Callable[[BadSampleError], None] | None = None,
    ) -> Iterator[Detections]:
        """Gives the detections of many images one after the other, holding one batch at a time.

        Args:
            images: Any iterable of images, of any length; read as the results are asked for.
            keep_ratio: Keeping ratio of this call; None takes the model's.
            score_threshold: Threshold of this call; None takes the predictor's.
            on_bad_image: Called with the error of an image that cannot be read, which is then left
                out (``index`` of the results shows the gap); None raises it.

        Returns:
            An iterator of the detections, in the order of the images.

        Raises:
            BadSampleError: An image cannot be read; those before it have been given. A ValueError.
            ValueError: An argument is out of range.
            TypeError: Something is no image.
        """
        if isinstance(images, _SINGLE):
            raise TypeError(
                f"images must be several images, got one ({type(images).__name__}); use "
                "predictor(image)"
            )
        self._require_evaluation_mode()
        threshold = self._threshold(score_threshold)
        return self._stream(iter(images), keep_ratio, threshold, on_bad_image)

    def read(self, image: ImageInput) -> npt.NDArray[np.uint8]:
        """Gives an image as (height, width, 3) bytes in RGB; see :func:`read_rgb`."""
        return read_rgb(image)

    def sample(self, image: ImageInput) -> dict[str, Any]:
        """Gives Detectron2's input dict for an image: what ``model([sample])`` takes.

        Args:
            image: One image.

        Returns:
            ``image`` (3, h, w) uint8 in the model's channel order, resized as in evaluation;
            ``height`` and ``width`` of the original image; ``file_name`` of a file.
        """
        return self._prepare(0, image).sample

    def inspect(
        self,
        image: ImageInput,
        keep_ratio: KeepRatioLike | None = None,
        with_sampling: bool = False,
        all_layers: bool = False,
    ) -> InspectedImage:
        """Gives the detections of one image with what every stage returned, for pictures.

        Args:
            image: One image.
            keep_ratio: Keeping ratio of this call; None takes the model's.
            with_sampling: Keep where the decoder's cross-attention read.
            all_layers: Also predict in every stage that has a loss.

        Returns:
            The result; its ``instances`` are all detections, whatever their score.
        """
        sample = self.sample(image)
        with self._turn:
            return inspect_image(self.model, sample, keep_ratio, with_sampling, all_layers)

    def __repr__(self) -> str:
        count = self.model.num_classes
        return (
            f"Predictor({self.weights or 'untrained'}, {count} classes, {self.model.device}, "
            f"keep_ratio={self.model.keep_ratio}, score_threshold={self.score_threshold:g})"
        )

    def _stream(
        self,
        images: Iterator[ImageInput],
        keep_ratio: KeepRatioLike | None,
        threshold: float,
        on_bad_image: Callable[[BadSampleError], None] | None,
    ) -> Iterator[Detections]:
        numbered = enumerate(images)
        while batch := list(islice(numbered, self.batch_size)):
            readable: list[PreparedImage] = []
            for index, image in batch:
                try:
                    with _naming(f"images[{index}]"):
                        readable.append(self._prepare(index, image))
                except BadSampleError as error:
                    if on_bad_image is None:
                        yield from self._detect(readable, keep_ratio, threshold)
                        raise
                    on_bad_image(error)
            yield from self._detect(readable, keep_ratio, threshold)

    def _detect(
        self, images: Sequence[PreparedImage], keep_ratio: KeepRatioLike | None, threshold: float
    ) -> list[Detections]:
        """Gives the detections of one batch."""
        if not images:
            return []
        try:
            # Not inference mode: its results could never be changed in place outside of it.
            with self._turn, torch.no_grad():
                outputs = self.model([image.sample for image in images], keep_ratio=keep_ratio)
        except FloatingPointError as error:
            names = ", ".join(image.name for image in images)
            raise FloatingPointError(f"{names}: {error}") from error
        results = []
        for image, output in zip(images, outputs, strict=True):
            found = output["instances"].to("cpu")
            shown = found[found.scores >= threshold]
            results.append(
                Detections(shown, self.classes, image.index, image.file_name, image.pixels)
            )
        return results

    def _prepare(self, index: int, image: ImageInput) -> PreparedImage:
        return prepare_image(index, image, self.augmentations, self.model.input_format)

    def _threshold(self, asked: float | None) -> float:
        return self.score_threshold if asked is None else _checked_threshold(asked)

    def _require_evaluation_mode(self) -> None:
        if self.model.training:
            raise ValueError("model is in training mode, expected evaluation mode: model.eval()")


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Puts a name before the message of an image that is wrong."""
    try:
        yield
    except (BadSampleError, TypeError) as error:
        raise type(error)(f"{what}: {error}") from error


def _checked_threshold(value: Any) -> float:
    if not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(f"score_threshold must be a number in [0, 1], got {value!r}")
    return float(value)
