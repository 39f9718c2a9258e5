"""Small detectors on real backbones whose norms and biases are not the initial ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from builders import batch, small_detector
from sparse_detr.config.loading import load_config
from sparse_detr.meta_arch import TransformerDetector
from sparse_detr.structures import DetectorOutput

BACKBONES = ("small_resnet", "resnet50", "swin_tiny")


def perturb(module: nn.Module, generator: torch.Generator) -> None:
    """Moves norms, statistics and biases away from zero and one, where folding would not show."""
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(1 + 0.5 * noise.abs())
            elif tensor.dim() == 1 and tensor.is_floating_point():
                tensor.add_(0.2 * noise)


def backbone_detector(
    name: str, system: str = "sparse_detr", **overrides: Any
) -> TransformerDetector:
    """A small detector on one of :data:`BACKBONES`, in evaluation mode."""
    config = load_config(f"models/backbones/{name}")
    model = load_config(f"models/{system}").model
    channels = dict(config.in_channels)
    if model.num_levels == 1:
        channels = dict([list(channels.items())[-1]])
    groups = model.feature_projection.num_groups
    detector = small_detector(
        system,
        randomised=False,
        backbone=config.backbone,
        feature_projection__in_channels=channels,
        feature_projection__num_groups=groups and 8,
        released_behaviour=False,
        **overrides,
    )
    generator = torch.Generator().manual_seed(2)
    perturb(detector, generator)
    with torch.no_grad():
        for parameter_name, parameter in detector.named_parameters():
            # Initially zero: every token would be scored and every box placed alike.
            if not parameter_name.startswith("backbone.") and parameter.dim() == 2:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.5 * noise * parameter.shape[-1] ** -0.5)
    return detector


def output_of(
    detector: TransformerDetector, sizes: list[tuple[int, int]], keep_ratio: float | None = None
) -> DetectorOutput:
    """What every stage returns for random images of these sizes."""
    with torch.no_grad():
        tokens = detector.extract_tokens(detector.preprocess(batch(sizes)))
        return detector.detect(tokens, keep_ratio)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest value."""
    actual, expected = actual.detach(), expected.detach()
    return float((actual - expected).abs().max() / expected.abs().max())


def disagreement(actual: DetectorOutput, expected: DetectorOutput) -> float:
    """The larger of the relative errors of the final logits and boxes."""
    ours, theirs = actual.decoder.predictions[-1], expected.decoder.predictions[-1]
    return max(
        relative_error(ours.logits, theirs.logits),
        relative_error(ours.boxes_cxcywh, theirs.boxes_cxcywh),
    )
