"""One image through the detector, with everything kept that a picture may show.

Role in the flow: the flow of the meta-architecture, stage by stage, for tools that draw.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from ..layers.gaussian_attention import GaussianAttention, GaussianPrior
from ..meta_arch import TransformerDetector
from ..structures import DetectorOutput, Size
from ..token_selection import KeepRatioLike


@dataclass(frozen=True)
class LayerPriors:
    """The Gaussian priors that a decoder layer's cross-attention had.

    Attributes:
        priors: Of each level.
        spatial_shapes: (H_l, W_l) of each, cells of the padded image.
        level_weights: (B, Q, L) what each level counts; None where all count alike.
    """

    priors: tuple[GaussianPrior, ...]
    spatial_shapes: tuple[Size, ...]
    level_weights: Tensor | None = None


@dataclass(frozen=True)
class InspectedImage:
    """What the detector did with one image.

    Attributes:
        instances: Detections in pixels of the original image, on the CPU.
        output: What every stage returned, for a batch of this one image.
        image_size: (height, width) of the network's input, pixels.
        padded_size: The same with the padding that the backbone saw.
        strides: Pixels of the padded image per cell, for each of the L levels, as the backbone
            states them; the cells of an image whose size is no multiple are slightly smaller.
        gaussian_priors: Of each decoder layer, where its attention has them; empty unless the
            sampling is asked for.
    """

    instances: Instances
    output: DetectorOutput
    image_size: Size
    padded_size: Size
    strides: tuple[int, ...]
    gaussian_priors: tuple[LayerPriors, ...] = ()


def level_strides(model: TransformerDetector) -> tuple[int, ...]:
    """Gives the nominal stride of each level, pixels per cell.

    Args:
        model: A detector whose backbone states its strides, as Detectron2's do.

    Returns:
        L strides; each level after the backbone's doubles the one before it.
    """
    shapes = model.backbone.output_shape()  # type: ignore[operator]  # a Detectron2 backbone
    strides = [int(shapes[name].stride) for name in model.feature_projection.in_channels]
    while len(strides) < len(model.feature_projection.projections):
        strides.append(2 * strides[-1])
    return tuple(strides)


@contextmanager
def _priors_of(decoder: nn.Module, wanted: bool) -> Iterator[list[LayerPriors]]:
    """Gives a list that fills with the priors of the layers, in the order in which they run."""
    found: list[LayerPriors] = []

    def keep(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        priors, shapes, level_weights = arguments[3:6]
        found.append(LayerPriors(tuple(priors), tuple(shapes), level_weights))

    attentions = [m for m in decoder.modules() if isinstance(m, GaussianAttention) and wanted]
    handles = [attention.register_forward_pre_hook(keep) for attention in attentions]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def inspect_image(
    model: TransformerDetector,
    sample: dict[str, Any],
    keep_ratio: KeepRatioLike | None = None,
    with_sampling: bool = False,
    all_layers: bool = False,
) -> InspectedImage:
    """Gives the detections of one image together with the stages' results.

    Args:
        model: The detector, in evaluation mode.
        sample: Detectron2's input dict, as the test loader's mapper gives it.
        keep_ratio: Keeping ratio of this call; None takes the model's own.
        with_sampling: Keep where the decoder's cross-attention read, and the priors that it had.
        all_layers: Also predict in every stage that has a loss, each decoder layer among them.

    Returns:
        The result; equal to what ``model([sample])`` detects.

    Raises:
        ValueError: The model is in training mode, or an argument does not fit it.
    """
    if model.training:
        raise ValueError("model is in training mode, expected evaluation mode; call model.eval()")
    images = model.preprocess([sample])
    (padded,) = groups = model.padded_groups(images)
    tokens = model.tokens_of(groups)
    with _priors_of(model.decoder, with_sampling) as priors:
        output = model.detect(tokens, keep_ratio, all_layers, with_sampling)
    (instances,) = model.postprocess(output.decoder.predictions[-1], images.original_sizes)
    return InspectedImage(
        instances=instances.to("cpu"),
        output=output,
        image_size=images.image_sizes[0],
        padded_size=(int(padded.pixels.shape[-2]), int(padded.pixels.shape[-1])),
        strides=level_strides(model),
        gaussian_priors=tuple(priors),
    )
