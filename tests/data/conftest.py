"""Small COCO-format data sets for the tests of the data side."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


class CocoFolder:
    """A folder with two valid images and three annotations, to be damaged by a test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images = root / "images"
        self.json = root / "annotations.json"
        self.images.mkdir(parents=True)
        self.data: dict[str, Any] = {
            "images": [
                {"id": 7, "file_name": "a.png", "width": 64, "height": 48},
                {"id": 9, "file_name": "b.png", "width": 40, "height": 60},
            ],
            "annotations": [
                self.annotation(1, 7, 2, [4.0, 6.0, 20.0, 10.0]),
                self.annotation(2, 7, 5, [30.0, 20.0, 12.0, 14.0]),
                self.annotation(3, 9, 2, [1.0, 2.0, 30.0, 40.0]),
            ],
            "categories": [{"id": 2, "name": "cat"}, {"id": 5, "name": "dog"}],
        }
        for entry in self.data["images"]:
            self.write_image(entry["file_name"], entry["width"], entry["height"])

    @staticmethod
    def annotation(identity: int, image: int, category: int, box: list[float]) -> dict[str, Any]:
        return {
            "id": identity,
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }

    def write_image(self, name: str, width: int, height: int) -> None:
        rng = np.random.default_rng(width)
        pixels = rng.integers(0, 256, size=(height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(self.images / name)

    def save(self) -> Path:
        self.json.write_text(json.dumps(self.data))
        return self.json


@pytest.fixture
def coco_folder(tmp_path: Path) -> CocoFolder:
    return CocoFolder(tmp_path / "dataset")


@pytest.fixture
def sample(coco_folder: CocoFolder) -> dict[str, Any]:
    """A Detectron2 dictionary of the first image, classes contiguous."""
    return {
        "file_name": str(coco_folder.images / "a.png"),
        "image_id": 7,
        "width": 64,
        "height": 48,
        "annotations": [
            {"bbox": [4.0, 6.0, 20.0, 10.0], "bbox_mode": 1, "category_id": 0, "iscrowd": 0},
            {"bbox": [30.0, 20.0, 12.0, 14.0], "bbox_mode": 1, "category_id": 1, "iscrowd": 0},
        ],
    }
