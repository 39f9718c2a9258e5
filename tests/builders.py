"""Small models and batches that many tests share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import LazyCall, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from sparse_detr.config.loading import load_config
from sparse_detr.meta_arch import TransformerDetector

# Files in configs/models, one for each way in which the parts are put together.
SYSTEMS = (
    "deformable_detr",
    "deformable_detr_box_refinement",
    "deformable_detr_two_stage",
    "efficient_detr",
    "sparse_detr",
    "sparse_detr_objectness",
    "sparse_detr_random",
    "single_scale_detr",
    "detr",
    "detr_pre_norm_learned",
    "sparse_single_scale_detr",
    "dino",
    "sparse_dino",
    "focus_detr",
    "focus_deformable_detr",
    "smca",
    "smca_multi_scale",
    "smca_multi_scale_separate",
    "smca_multi_scale_reconstruction",
    "pnp_detr",
)


class PoolingBackbone(Backbone):
    """A backbone of one strided convolution per level."""

    def __init__(self, channels: int = 8, strides: Sequence[int] = (8, 16, 32)) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(3, channels, kernel_size=stride, stride=stride, padding=stride // 2)
            for stride in strides
        )
        self.channels = channels
        self.strides = tuple(strides)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps by name."""
        return {f"c{i}": conv(images).relu() for i, conv in enumerate(self.convolutions)}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and strides by name."""
        return {
            f"c{i}": ShapeSpec(channels=self.channels, stride=stride)
            for i, stride in enumerate(self.strides)
        }


def small_config(system: str = "sparse_detr", **overrides: Any) -> Any:
    """A model config of a system, shrunk to hidden size 32 and two layers.

    Args:
        system: Name of a file in ``configs/models``.
        overrides: Values by dotted key below ``model``, dots written as two underscores.
    """
    config = load_config(f"models/{system}")
    model = config.model
    strides = [32] if model.num_levels == 1 else [8, 16, 32]
    model.backbone = LazyCall(PoolingBackbone)(channels=8, strides=strides)
    model.feature_projection.in_channels = {f"c{i}": 8 for i in range(len(strides))}
    model.hidden_dim = 32
    model.num_classes = 5
    # An encoder of convolutions has no heads to share with the decoder.
    (model.encoder if "num_heads" in model.encoder else model.decoder).num_heads = 4
    model.encoder.num_layers = 3
    model.encoder.feedforward_dim = 48
    model.encoder.dropout = 0.0
    model.decoder.num_layers = 2
    model.query_selection.num_queries = 10
    if str(model.keep_ratio).startswith("cascade:"):
        model.keep_ratio = "cascade:0.5x1,0.6,0.4"
        model.encoder.num_objects = 6
    elif model.keep_ratio is not None and "num_pooled" in model.token_selection:
        model.keep_ratio = 0.3
        model.token_selection.num_pooled = 4
        # Drawn anew in every step: a test that compares steps sets its own.
        model.token_selection.training_ratios = None
    elif model.keep_ratio is not None:
        model.keep_ratio = 0.3
    for key, value in overrides.items():
        node = model
        *parents, last = key.split("__")
        for name in parents:
            node = node[name]
        node[last] = value
    return config


def small_detector(
    system: str = "sparse_detr", randomised: bool = True, **overrides: Any
) -> TransformerDetector:
    """A small detector in evaluation mode.

    Args:
        system: Name of a file in ``configs/models``.
        randomised: Draw weights that differ from the initial ones, where heads and offsets are
            zero and many mistakes would not show.
        overrides: See :func:`small_config`.
    """
    torch.manual_seed(0)
    detector: TransformerDetector = instantiate(small_config(system, **overrides).model)
    if randomised:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in detector.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(
                    noise * (0.3 if parameter.dim() == 1 else parameter.shape[-1] ** -0.5)
                )
    return detector.eval()


def batch(
    sizes: list[tuple[int, int]], num_objects: list[int] | None = None, num_classes: int = 5
) -> list[dict[str, Any]]:
    """Detectron2 input dicts of random images.

    Args:
        sizes: (height, width) of each image, pixels.
        num_objects: Objects of each image; None leaves the annotations out.
        num_classes: Labels are drawn below it.
    """
    generator = torch.Generator().manual_seed(sum(h * 7 + w for h, w in sizes))
    inputs: list[dict[str, Any]] = []
    for index, (height, width) in enumerate(sizes):
        image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
        item: dict[str, Any] = {
            "image": image,
            "height": height,
            "width": width,
            "image_id": index,
            "file_name": f"image{index}.png",
        }
        if num_objects is not None:
            count = num_objects[index]
            corner = torch.rand(count, 2, generator=generator) * 0.6
            extent = 0.1 + torch.rand(count, 2, generator=generator) * 0.3
            scale = torch.tensor([width, height, width, height])
            item["instances"] = Instances(
                (height, width),
                gt_boxes=Boxes(torch.cat([corner, corner + extent], dim=1) * scale),
                gt_classes=torch.randint(0, num_classes, (count,), generator=generator),
            )
        inputs.append(item)
    return inputs
