"""A backbone that computes in another layout or type than the rest of the detector.

Role in the flow: in place of the backbone of an optimised detector.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn

Run = Callable[[Tensor], dict[str, Tensor]]


class WrappedBackbone(Backbone):
    """Casts the images, runs the backbone, casts its maps back.

    Args:
        backbone: The backbone, already in its type and layout.
        dtype: That type.
        run: Called in place of the backbone, for example what torch.compile made of it.
    """

    def __init__(self, backbone: nn.Module, dtype: torch.dtype, run: Run | None = None) -> None:
        super().__init__()
        self.inner = backbone
        self.dtype = dtype
        # In a tuple, so that it is not a module of its own beside the inner one.
        self._run = (backbone if run is None else run,)
        self.train(backbone.training)

    @property
    def size_divisibility(self) -> int:
        """Multiple that the padded sizes of images must have; 0 for any size."""
        return int(getattr(self.inner, "size_divisibility", 0))

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and strides of the maps by name."""
        shapes: dict[str, ShapeSpec] = self.inner.output_shape()  # type: ignore[operator]
        return shapes

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps by name, in the type of the images.

        Args:
            images: (B, 3, H, W).
        """
        prepared = images.to(self.dtype, memory_format=torch.channels_last)
        maps = self._run[0](prepared)
        return {name: m.to(images.dtype) for name, m in maps.items()}
