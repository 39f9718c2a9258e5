"""One image through the detector, with everything kept that a picture may show.

Role in the flow: the flow of the meta-architecture, stage by stage, for tools that draw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from detectron2.structures import Instances

from ..meta_arch import TransformerDetector
from ..structures import DetectorOutput, Size
from ..token_selection import KeepRatioLike


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
    """

    instances: Instances
    output: DetectorOutput
    image_size: Size
    padded_size: Size
    strides: tuple[int, ...]


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
        with_sampling: Keep where the decoder's cross-attention read.
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
    output = model.detect(tokens, keep_ratio, all_layers, with_sampling)
    (instances,) = model.postprocess(output.decoder.predictions[-1], images.original_sizes)
    return InspectedImage(
        instances=instances.to("cpu"),
        output=output,
        image_size=images.image_sizes[0],
        padded_size=(int(padded.pixels.shape[-2]), int(padded.pixels.shape[-1])),
        strides=level_strides(model),
    )
