"""A tiny detector that fulfils the meta-architecture's contract, and a config around it, for the
engine's tests."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from detectron2.modeling.backbone.resnet import BasicStem, ResNet
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock as TorchvisionBlock

from sparse_detr.backbone.small_resnet import make_basic_stages

TOY_CONFIG = Path(__file__).with_name("toy_config.py")


class ToyDetector(nn.Module):
    """Predicts a few boxes per image from average-pooled colours; losses as the contract asks.

    Args:
        num_classes: Classes.
        hidden: Width.
        dropout: Makes training depend on the random state.
        keep_ratio: Only checked, as the real model does.
        fail_at: Puts NaN into the head in this forward pass of training (from 1); 0 never.
        dtype: "float32" or "float64".
    """

    queries = 4

    def __init__(
        self,
        num_classes: int = 5,
        hidden: int = 8,
        dropout: float = 0.1,
        keep_ratio: float = 0.5,
        fail_at: int = 0,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        if not 0 < keep_ratio <= 1:
            raise ValueError(f"keep_ratio is {keep_ratio}, expected 0 < keep_ratio <= 1")
        self.num_classes = num_classes
        self.keep_ratio = keep_ratio
        self.fail_at = fail_at
        self.calls = 0
        self.backbone = nn.Linear(48, hidden)
        self.sampling_offsets = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, self.queries * (num_classes + 4))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.to(getattr(torch, dtype))

    def features(self, images: list[Tensor]) -> Tensor:
        pooled = [functional.adaptive_avg_pool2d(image, 4).flatten() for image in images]
        return self.backbone(torch.stack(pooled))

    def predict(self, batched_inputs: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
        images = [entry["image"].to(self.head.weight) / 255 for entry in batched_inputs]
        hidden = torch.relu(self.features(images))
        out = self.head(self.dropout(torch.relu(self.sampling_offsets(hidden))))
        out = out.view(len(images), self.queries, self.num_classes + 4)
        return out[..., : self.num_classes], out[..., self.num_classes :].sigmoid()

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        logits, boxes = self.predict(batched_inputs)
        if not self.training:
            return [
                self.detections(entry, image_logits, image_boxes)
                for entry, image_logits, image_boxes in zip(
                    batched_inputs, logits, boxes, strict=True
                )
            ]
        self.calls += 1
        self.seen += len(batched_inputs)
        if self.calls == self.fail_at:
            boxes = boxes * torch.nan
        return self.losses(batched_inputs, logits, boxes)

    def losses(
        self, batched_inputs: list[dict[str, Any]], logits: Tensor, boxes: Tensor
    ) -> dict[str, Tensor]:
        count = torch.tensor(float(sum(len(entry["instances"]) for entry in batched_inputs)))
        if comm.get_world_size() > 1:
            dist.all_reduce(count)
            count = count / comm.get_world_size()
        num_boxes = count.clamp(min=1.0).to(boxes.device)
        targets = torch.zeros_like(logits)
        distance = boxes.sum() * 0
        for index, entry in enumerate(batched_inputs):
            found = entry["instances"]
            used = min(len(found), self.queries)
            height, width = entry["image"].shape[-2:]
            scale = boxes.new_tensor([width, height, width, height])
            wanted = found.gt_boxes.tensor[:used].to(boxes) / scale
            distance = distance + (boxes[index, :used] - wanted).abs().sum()
            targets[index, torch.arange(used), found.gt_classes[:used]] = 1
        if torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu"):
            get_event_storage().put_scalar("kept_tokens", float(num_boxes))
        classes = functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
        return {
            "loss_class": classes / num_boxes,
            "loss_bbox": 5 * distance / num_boxes,
            "loss_decoder_attention_map": logits.square().mean(),
        }

    def detections(
        self, entry: dict[str, Any], logits: Tensor, boxes: Tensor
    ) -> dict[str, Instances]:
        result = Instances((entry["height"], entry["width"]))
        scale = boxes.new_tensor([entry["width"], entry["height"]] * 2)
        corners = torch.cat(
            [torch.minimum(boxes[:, :2], boxes[:, 2:]), torch.maximum(boxes[:, :2], boxes[:, 2:])],
            1,
        )
        result.pred_boxes = Boxes(corners * scale)
        result.scores, result.pred_classes = logits.sigmoid().max(-1)
        return {"instances": result}


class ToyOnResNet(ToyDetector):
    """The toy on Detectron2's ResNet, narrow: stem and two stages of a block each.

    Args:
        freeze_at: As Detectron2 counts: 2 freezes the stem and the first stage.
        **options: As for the toy.
    """

    def __init__(self, freeze_at: int = 2, **options: Any) -> None:
        super().__init__(**options)
        stages = make_basic_stages(4, (6, self.sampling_offsets.in_features), (1, 1))
        self.backbone = ResNet(BasicStem(3, 4, norm="BN"), stages, freeze_at=freeze_at)

    def features(self, images: list[Tensor]) -> Tensor:
        resized = torch.stack([functional.adaptive_avg_pool2d(image, 32) for image in images])
        return self.backbone(resized)["res3"].mean((2, 3))


class TorchvisionResNet(nn.Module):
    """The backbone of `ToyOnResNet` with torchvision's parts and names, and a classifier."""

    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 7, bias=False), nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(self.block(4, 6, 1))
        self.layer2 = nn.Sequential(self.block(6, hidden, 2))
        self.fc = nn.Linear(hidden, 10)

    @staticmethod
    def block(narrow: int, wide: int, stride: int) -> nn.Module:
        shortcut = nn.Sequential(
            nn.Conv2d(narrow, wide, 1, stride, bias=False), nn.BatchNorm2d(wide)
        )
        return TorchvisionBlock(narrow, wide, stride, shortcut)


def toy_config(shapes_root: Path, output_dir: Path, *overrides: str) -> DictConfig:
    """Gives the toy config with data below ``shapes_root``."""
    from sparse_detr.config.loading import load_config

    return load_config(
        TOY_CONFIG, [f"data.root={shapes_root}", f"train.output_dir={output_dir}", *overrides]
    )


def toy_arguments(
    resume: bool = False, eval_only: bool = False, overrides: Sequence[str] = ()
) -> argparse.Namespace:
    """Gives the part of the command line that a session reads."""
    return argparse.Namespace(
        resume=resume,
        eval_only=eval_only,
        optimize=None,
        compile=False,
        overrides=list(overrides),
    )


def run_toy(config: DictConfig, **arguments: Any) -> dict[str, dict[str, float]]:
    """Trains or evaluates in this process and gives the results."""
    from sparse_detr.engine.session import run_session

    return run_session(config, toy_arguments(**arguments))


def final_state(output_dir: Path, name: str = "model_final.pth") -> dict[str, Any]:
    """Gives the content of a checkpoint."""
    return torch.load(output_dir / name, weights_only=True)


def logged(output_dir: Path) -> list[dict[str, Any]]:
    """Gives metrics.json without what depends on the clock."""
    lines = [json.loads(line) for line in (output_dir / "metrics.json").read_text().splitlines()]
    timing = ("time", "data_time", "eta_seconds")
    return [{key: value for key, value in line.items() if key not in timing} for line in lines]


def same(left: Any, right: Any) -> bool:
    """Whether two states are bit for bit equal."""
    if isinstance(left, Tensor):
        return isinstance(right, Tensor) and left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    return bool(left == right or (left != left and right != right))
