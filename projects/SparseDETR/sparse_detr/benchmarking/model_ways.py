"""The ways to run a detector that are compared with each other.

Role in the flow: `tools/benchmark_model.py` times the calls, per stage too, and measures memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import instantiate
from torch import Tensor, nn

from ..config.loading import load_config
from ..inference import optimize_for_inference
from ..meta_arch import TransformerDetector
from ..structures import ImageBatch
from .outside_models import DEFORMABLE_DETR, RT_DETR, build_outside_model
from .released_way import ReleasedDetector
from .timing import Call

OURS = "ours"
OPTIMISED = "ours, optimised"
OPTIMISED_BF16_BACKBONE = "ours, optimised, bf16 backbone"
OPTIMISED_BF16 = "ours, optimised, bf16"
RELEASED = "released way"
WAYS = (
    OURS,
    OPTIMISED,
    OPTIMISED_BF16_BACKBONE,
    OPTIMISED_BF16,
    RELEASED,
    DEFORMABLE_DETR,
    RT_DETR,
)
_PRECISIONS = {
    OPTIMISED: "exact",
    OPTIMISED_BF16_BACKBONE: "bfloat16-backbone",
    OPTIMISED_BF16: "bfloat16",
}
# Initial heads and offsets are zero: all boxes alike, all tokens looked at alike.
_WITHOUT_EFFECT_AT_FIRST = (
    "sampling_offsets.weight",
    "attention_weights.weight",
    "class_embed.weight",
    "bbox_embed.layers.2.weight",
)
_SPREAD = 0.02


@dataclass(frozen=True)
class Setting:
    """What is run.

    Attributes:
        height: Of the images, pixels; all images of a batch have one size.
        width: Of the images, pixels.
        batch: Images B.
        keep_ratio: Share of the tokens that the encoder updates; None for the dense twin, or for
            what ``system`` says.
        backbone: "r50" or "swint".
        device: Device.
        system: Config of another system; None takes Sparse DETR's or its dense twin's.
        overrides: Changes to the config, as ``key=value``.
    """

    height: int = 480
    width: int = 640
    batch: int = 1
    keep_ratio: float | None = 0.1
    backbone: str = "r50"
    device: str = "cpu"
    system: str | None = None
    overrides: Sequence[str] = ()

    @property
    def config(self) -> str:
        """Name of the config."""
        if self.system is not None:
            return self.system
        if self.keep_ratio is None:
            return f"deformable_detr/deformable_detr_{self.backbone}_topk_queries_50ep"
        return f"sparse_detr/sparse_detr_{self.backbone}_rho10_50ep"


@dataclass
class Way:
    """One way to run the detector.

    Attributes:
        name: For tables.
        call: Runs it on the images.
        predict: Gives final logits (B, Q, classes) and boxes (B, Q, 4); None for other models.
        detector: The detector itself, for its stages; None for other models.
    """

    name: str
    call: Call
    predict: Callable[[], tuple[Tensor, Tensor]] | None = None
    detector: nn.Module | None = None


def random_detector(setting: Setting, num_classes: int = 80) -> TransformerDetector:
    """Gives a detector with random weights, in evaluation mode, whose queries differ.

    Args:
        setting: Which.
        num_classes: Class logits.
    """
    tree = load_config(setting.config, setting.overrides)
    tree.model.num_classes = num_classes
    torch.manual_seed(0)
    model: TransformerDetector = instantiate(tree.model)
    if setting.keep_ratio is not None:
        model.keep_ratio = setting.keep_ratio
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(_WITHOUT_EFFECT_AT_FIRST):
                parameter.add_(_SPREAD * torch.randn_like(parameter))
    return model.eval().to(setting.device)


def random_images(setting: Setting) -> list[dict[str, Any]]:
    """Gives Detectron2's input dicts of images of smooth random colours."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(setting.batch, 3, 12, 16, generator=generator) * 255
    size = (setting.height, setting.width)
    images = nn.functional.interpolate(coarse, size=size, mode="bilinear").to(torch.uint8)
    return [{"image": image, "height": size[0], "width": size[1]} for image in images]


def build_ways(names: Sequence[str], setting: Setting) -> tuple[list[Way], list[str]]:
    """Gives the ways that can be run here, of one set of weights.

    Args:
        names: Of :data:`WAYS`.
        setting: What to run.

    Returns:
        The ways in the order of the names, and a line for each one that cannot be run.
    """
    model = random_detector(setting)
    inputs = random_images(setting)
    ways, missing = [], []
    for name in names:
        try:
            ways.append(_build_way(name, model, inputs))
        except ImportError as error:
            missing.append(f"{name} was not measured: {error} (pip install transformers)")
    return ways, missing


def _build_way(name: str, model: TransformerDetector, inputs: list[dict[str, Any]]) -> Way:
    if name in (DEFORMABLE_DETR, RT_DETR):
        run = build_outside_model(name, model.device)
        images = torch.stack(list(model.preprocess(inputs).images))
        return Way(name, lambda: run(images))
    if name == RELEASED:
        released = ReleasedDetector(model)
        images = torch.stack(list(model.preprocess(inputs).images))

        def predict_released() -> tuple[Tensor, Tensor]:
            output = released.compute(images)
            return output.logits[-1], output.boxes_cxcywh[-1]

        return _of_detector(name, released, inputs, predict_released)
    detector = model
    if name in _PRECISIONS:
        detector = optimize_for_inference(model, precision=_PRECISIONS[name])  # type: ignore[arg-type]
    batch = detector.preprocess(inputs)
    return _of_detector(name, detector, inputs, lambda: final_predictions(detector, batch))


def _of_detector(
    name: str,
    detector: nn.Module,
    inputs: list[dict[str, Any]],
    predict: Callable[[], tuple[Tensor, Tensor]],
) -> Way:
    @torch.no_grad()
    def call() -> object:
        return detector(inputs)

    return Way(name, call, torch.no_grad()(predict), detector)


def final_predictions(detector: TransformerDetector, batch: ImageBatch) -> tuple[Tensor, Tensor]:
    """Gives final logits (B, Q, classes) and boxes (B, Q, 4) of a batch."""
    last = detector.detect(detector.extract_tokens(batch)).decoder.predictions[-1]
    return last.logits, last.boxes_cxcywh
