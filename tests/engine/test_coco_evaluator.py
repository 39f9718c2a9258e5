"""Detectron2's COCO evaluator understands what the detector returns."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import LazyCall, instantiate
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import BoxMode, Instances
from torch import nn

from builders import small_detector
from sparse_detr.config.loading import load_config
from sparse_detr.data.datasets import load_custom_dataset
from sparse_detr.data.shape_drawing import SHAPE_CLASSES
from sparse_detr.engine.evaluation import evaluate_model
from sparse_detr.postprocess import TopDetections
from sparse_detr.structures import Predictions

Records = list[dict[str, Any]]


class Oracle(nn.Module):
    """Predicts the annotations as a detector's last layer would: logits and normalised boxes."""

    def __init__(self, records: Records, num_classes: int) -> None:
        super().__init__()
        self.annotations = {record["image_id"]: record["annotations"] for record in records}
        self.num_classes = num_classes
        self.postprocess = TopDetections()

    def forward(self, batched_inputs: Records) -> list[dict[str, Instances]]:
        return [{"instances": self._detect(item)} for item in batched_inputs]

    def _detect(self, item: dict[str, Any]) -> Instances:
        height, width = item["height"], item["width"]
        wanted = [a for a in self.annotations[item["image_id"]] if not a.get("iscrowd", 0)]
        logits = torch.full((1, 60, self.num_classes), -9.0)
        boxes = torch.full((1, 60, 4), 0.5)
        for row, annotation in enumerate(wanted):
            x, y, w, h = BoxMode.convert(
                annotation["bbox"], annotation["bbox_mode"], BoxMode.XYWH_ABS
            )
            logits[0, row, annotation["category_id"]] = 9.0
            boxes[0, row] = torch.tensor(
                [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
            )
        return self.postprocess(Predictions(logits, boxes), [(height, width)])[0]


def shapes_config(root: Path) -> Any:
    return load_config(
        "quickstart",
        [
            f"data.root={root}",
            "data.val_images=8",
            "data.image_size=96",
            f"train.output_dir={root / 'run'}",
        ],
    )


def evaluate(config: Any, make_model: Callable[[Records], nn.Module]) -> dict[str, float]:
    records = instantiate(config.dataloader.test.dataset)
    node = {key: value for key, value in config.dataloader.test.items() if key != "dataset"}
    loader = instantiate({**node, "dataset": records})
    evaluator = instantiate(config.dataloader.evaluator)
    assert isinstance(evaluator, COCOEvaluator)
    return evaluate_model(make_model(records), loader, evaluator)["bbox"]


def test_perfect_detections_score_100_for_every_class_at_the_images_own_size(
    tmp_path: Path,
) -> None:
    config = shapes_config(tmp_path)
    # The network sees another size than the annotations are in.
    config.dataloader.augmentation.test_short_edge_length = 64
    results = evaluate(config, lambda records: Oracle(records, len(SHAPE_CLASSES)))
    assert results["AP"] == pytest.approx(100)
    per_class = {name: results[f"AP-{name}"] for name in SHAPE_CLASSES}
    assert all(value == pytest.approx(100) or math.isnan(value) for value in per_class.values())
    assert sum(not math.isnan(value) for value in per_class.values()) >= 5


def test_a_detectors_results_give_a_table_with_every_class(tmp_path: Path) -> None:
    detector = small_detector(num_classes=len(SHAPE_CLASSES))
    results = evaluate(shapes_config(tmp_path), lambda _: detector)
    assert set(results) >= {"AP", "AP50", "AP75", "APs", "APm", "APl"}
    assert {f"AP-{name}" for name in SHAPE_CLASSES} <= set(results)
    assert 0 <= results["AP"] <= 100


def test_category_ids_with_gaps_are_mapped_back_on_real_annotations(
    data_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    coco = data_folder("coco")
    overrides = [f"train.output_dir={tmp_path}", "dataloader.test.num_workers=0"]
    config = load_config("sparse_detr/sparse_detr_r50_rho10_50ep", overrides)
    config.dataloader.augmentation.test_short_edge_length = 64
    config.dataloader.test.dataset = LazyCall(load_custom_dataset)(
        names="real_images_with_gaps_in_ids",
        json_file=str(coco / "annotations" / "instances_val2017.json"),
        image_root=str(coco / "val2017"),
    )
    results = evaluate(config, lambda records: Oracle(records, 80))
    assert results["AP"] > 99
    assert results["AP-person"] > 99
