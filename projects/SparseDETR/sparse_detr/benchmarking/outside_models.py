"""Detectors of the transformers package with a ResNet-50, of random weights, for comparison.

Nothing is downloaded: the configurations name every size, the weights are drawn.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

DEFORMABLE_DETR = "transformers DeformableDetr"
RT_DETR = "transformers RT-DETR"


def build_outside_model(name: str, device: torch.device) -> Callable[[Tensor], object]:
    """Gives a function from images (B, 3, H, W) to predictions.

    Args:
        name: :data:`DEFORMABLE_DETR` (two stages, box refinement, 300 queries) or
            :data:`RT_DETR`, each in its default size.
        device: Where.

    Raises:
        ImportError: The transformers package is not installed.
    """
    transformers = importlib.import_module("transformers")
    torch.manual_seed(0)
    if name == DEFORMABLE_DETR:
        backbone = transformers.ResNetConfig(out_features=["stage2", "stage3", "stage4"])
        config = transformers.DeformableDetrConfig(
            backbone_config=backbone, two_stage=True, with_box_refine=True
        )
        model: nn.Module = transformers.DeformableDetrForObjectDetection(config)
    elif name == RT_DETR:
        model = transformers.RTDetrForObjectDetection(transformers.RTDetrConfig())
    else:
        raise ValueError(f"name must be {DEFORMABLE_DETR!r} or {RT_DETR!r}, got {name!r}")
    model = model.eval().to(device)

    @torch.no_grad()
    def predict(images: Tensor) -> object:
        if name == RT_DETR:
            return model(pixel_values=images)
        mask = torch.ones_like(images[:, 0], dtype=torch.long)
        return model(pixel_values=images, pixel_mask=mask)

    return predict
