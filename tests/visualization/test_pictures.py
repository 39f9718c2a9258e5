"""Pictures of many images: files, names, and the frame each is drawn in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import BoxMode
from PIL import Image

from builders import small_detector
from sparse_detr.data.augmentation import ResizeShorterSide
from sparse_detr.data.mapper import BadSampleError, DetrDatasetMapper
from sparse_detr.visualization import PictureOptions, write_pictures


@pytest.fixture
def record(tmp_path: Path) -> dict[str, Any]:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "scene.png")
    annotation = {"bbox": [8, 6, 40, 30], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1}
    return {"file_name": str(tmp_path / "scene.png"), "image_id": 3, "annotations": [annotation]}


def mapper(image_format: str = "RGB") -> DetrDatasetMapper:
    resize = ResizeShorterSide(90, 200)
    return DetrDatasetMapper(False, [resize], image_format=image_format)


def written(model: Any, records: list[dict[str, Any]], output: Path, **options: Any) -> list[Any]:
    form = model.input_format
    return list(write_pictures(model, mapper(form), records, output, PictureOptions(**options)))


def test_a_sparse_detector_gets_two_pictures_per_image(
    record: dict[str, Any], tmp_path: Path
) -> None:
    output = tmp_path / "a" / "b"
    files = written(small_detector(), [record], output)
    assert files == [(output / "scene_predictions.png", output / "scene_kept_tokens.png")]
    assert all(Image.open(path).mode == "RGB" for path in files[0])


def test_a_dense_detector_gets_predictions_only(record: dict[str, Any], tmp_path: Path) -> None:
    files = written(small_detector("deformable_detr"), [record], tmp_path / "out")
    assert [[path.name for path in each] for each in files] == [["scene_predictions.png"]]


def test_ground_truth_panel_appears_only_where_there_are_annotations(
    record: dict[str, Any], tmp_path: Path
) -> None:
    bare = {key: value for key, value in record.items() if key != "annotations"}
    ((with_truth, _), (without, _)) = written(small_detector(), [record, bare], tmp_path / "out")
    assert without.name == "scene_2_predictions.png"
    assert Image.open(with_truth).width > 1.9 * Image.open(without).width


def test_pictures_do_not_depend_on_the_models_channel_order(
    record: dict[str, Any], tmp_path: Path
) -> None:
    model = small_detector()
    (rgb,) = written(model, [record], tmp_path / "rgb")
    reversed_colours = {
        "input_format": "BGR",
        "pixel_mean": [103.53, 116.28, 123.675],
        "pixel_std": [57.375, 57.12, 58.395],
    }
    model = small_detector(**reversed_colours)
    with torch.no_grad():
        for convolution in model.backbone.convolutions:
            convolution.weight.copy_(convolution.weight.flip(1))
    (bgr,) = written(model, [record], tmp_path / "bgr")
    panels = [np.asarray(Image.open(path)).astype(int)[42:400, 12:500] for path in (rgb[1], bgr[1])]
    assert np.array_equal(*panels)


def test_an_unreadable_image_stops_after_the_pictures_before_it(
    record: dict[str, Any], tmp_path: Path
) -> None:
    missing = {"file_name": str(tmp_path / "absent.png")}
    pictures = write_pictures(
        small_detector(), mapper(), [record, missing], tmp_path / "out", PictureOptions()
    )
    assert len(next(pictures)) == 2
    with pytest.raises(BadSampleError, match=r"absent\.png does not exist"):
        next(pictures)
