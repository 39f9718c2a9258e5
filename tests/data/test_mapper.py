import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fvcore.transforms.transform import CropTransform
from PIL import Image

from sparse_detr.data import mapper
from sparse_detr.data.augmentation import RandomHorizontalFlip, RandomSizeCrop, ResizeShorterSide
from sparse_detr.data.mapper import (
    BadSampleError,
    ClassIdError,
    DetrDatasetMapper,
    clip_and_keep,
)

Sample = dict[str, Any]


def plain_mapper(is_train: bool = True, **options: Any) -> DetrDatasetMapper:
    return DetrDatasetMapper(is_train, augmentations=[], **options)


def test_training_output_has_the_models_types_and_shapes(sample: Sample) -> None:
    result = plain_mapper()(sample)
    assert result["image"].dtype == torch.uint8 and result["image"].shape == (3, 48, 64)
    assert result["image"].is_contiguous()
    instances = result["instances"]
    assert instances.image_size == (48, 64)
    assert instances.gt_boxes.tensor.dtype == torch.float32
    assert instances.gt_boxes.tensor.tolist() == [[4, 6, 24, 16], [30, 20, 42, 34]]
    assert instances.gt_classes.tolist() == [0, 1] and instances.gt_classes.dtype == torch.int64
    assert (result["height"], result["width"], result["image_id"]) == (48, 64, 7)
    assert "annotations" not in result


def test_the_input_dictionary_is_not_changed(sample: Sample) -> None:
    before = copy.deepcopy(sample)
    plain_mapper()(sample)
    assert sample == before


def test_evaluation_output_has_no_targets(sample: Sample) -> None:
    result = plain_mapper(is_train=False)(sample)
    assert "annotations" not in result and "instances" not in result


def test_pixels_are_rgb_and_bgr_reverses_them(sample: Sample) -> None:
    expected = np.asarray(Image.open(sample["file_name"]).convert("RGB")).transpose(2, 0, 1)
    rgb = plain_mapper()(sample)["image"].numpy()
    bgr = plain_mapper(image_format="BGR")(sample)["image"].numpy()
    np.testing.assert_array_equal(rgb, expected)
    np.testing.assert_array_equal(bgr, expected[::-1])


def test_crowd_regions_never_become_targets(sample: Sample) -> None:
    sample["annotations"][0]["iscrowd"] = 1
    assert plain_mapper()(sample)["instances"].gt_classes.tolist() == [1]


@pytest.mark.parametrize("annotations", [[], None])
def test_images_without_annotation_give_empty_targets(sample: Sample, annotations: Any) -> None:
    if annotations is None:
        del sample["annotations"]
    else:
        sample["annotations"] = annotations
    instances = plain_mapper()(sample)["instances"]
    assert instances.gt_boxes.tensor.shape == (0, 4) and instances.gt_classes.shape == (0,)


def test_boxes_are_clipped_and_dropped_when_nothing_is_left(sample: Sample) -> None:
    boxes = [[-5.0, -5.0, 10.0, 10.0], [60.0, 40.0, 50.0, 50.0], [70.0, 0.0, 5.0, 5.0]]
    boxes += [[3.0, 3.0, 0.0, 4.0], [20.0, 20.0, -8.0, 4.0]]
    sample["annotations"] = [
        {"bbox": box, "bbox_mode": 1, "category_id": i} for i, box in enumerate(boxes)
    ]
    instances = plain_mapper()(sample)["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[0, 0, 5, 5], [60, 40, 64, 48]]
    assert instances.gt_classes.tolist() == [0, 1]


def test_a_reversed_box_is_dropped_even_when_the_image_is_flipped(sample: Sample) -> None:
    # A flip orders the corners again, which would turn the fault into a valid-looking box.
    sample["annotations"] = [{"bbox": [20.0, 20.0, -8.0, 4.0], "bbox_mode": 1, "category_id": 0}]
    mapper = DetrDatasetMapper(True, [RandomHorizontalFlip(1.0)])
    assert len(mapper(sample)["instances"]) == 0


def test_boxes_outside_the_crop_are_dropped_with_their_classes(sample: Sample) -> None:
    crop = [ResizeShorterSide(48), RandomSizeCrop((16, 24))]
    mapper = DetrDatasetMapper(True, [], augmentation_with_crop=crop, crop_probability=1.0)
    counts = set()
    for seed in range(40):
        np.random.seed(seed)
        result = mapper(sample)
        instances, (height, width) = result["instances"], result["image"].shape[1:]
        assert instances.image_size == (height, width)
        boxes = instances.gt_boxes.tensor
        assert (boxes[:, 2:] > boxes[:, :2]).all() and (boxes >= 0).all()
        assert (boxes <= torch.tensor([width, height, width, height])).all()
        assert len(instances.gt_classes) == len(boxes)
        counts.add(len(boxes))
    assert 0 in counts and max(counts) >= 1


def test_the_class_of_a_box_that_survives_the_crop_is_its_own(sample: Sample) -> None:
    window = CropTransform(28, 18, 20, 20)  # holds the second box only
    instances = DetrDatasetMapper(True, [window])(sample)["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[2, 2, 14, 16]]
    assert instances.gt_classes.tolist() == [1]


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 0), (0.5, 100), (1.0, 200)])
def test_the_crop_branch_is_taken_as_often_as_asked(
    sample: Sample, probability: float, expected: int
) -> None:
    mapper = DetrDatasetMapper(
        True, [ResizeShorterSide(20)], [ResizeShorterSide(10)], crop_probability=probability
    )
    np.random.seed(1)
    cropped = sum(mapper(sample)["image"].shape[1] == 10 for _ in range(200))
    assert abs(cropped - expected) <= (25 if 0 < probability < 1 else 0)


def test_evaluation_ignores_the_crop_branch(sample: Sample) -> None:
    mapper = DetrDatasetMapper(
        False, [ResizeShorterSide(20)], [ResizeShorterSide(10)], crop_probability=1.0
    )
    assert mapper(sample)["image"].shape[1] == 20


@pytest.mark.parametrize("class_id", [2, 80, -1])
def test_class_id_out_of_range_names_file_annotation_and_class(
    sample: Sample, class_id: int
) -> None:
    sample["annotations"][1].update(category_id=class_id, id=345)
    with pytest.raises(ClassIdError) as caught:
        plain_mapper(num_classes=2)(sample)
    for part in (sample["file_name"], "annotation 1 (id 345)", f"class {class_id}", "[0, 2)"):
        assert part in str(caught.value)


def test_class_id_of_the_wrong_type_is_refused(sample: Sample) -> None:
    sample["annotations"][0]["category_id"] = "1"
    with pytest.raises(ClassIdError, match="expected an integer"):
        plain_mapper(num_classes=2)(sample)


@pytest.mark.parametrize(
    "box",
    [
        [1.0, 2.0, 3.0],
        [1.0, 2.0, float("nan"), 3.0],
        [0, 0, float("inf"), 1],
        [0, 0, 10**400, 1],
        None,
        list("abcd"),
    ],
)
def test_malformed_boxes_name_file_and_annotation(sample: Sample, box: Any) -> None:
    sample["annotations"][1]["bbox"] = box
    with pytest.raises(BadSampleError) as caught:
        plain_mapper()(sample)
    assert sample["file_name"] in str(caught.value) and "annotation 1" in str(caught.value)
    assert repr(box) in str(caught.value)


def test_missing_image_is_named(sample: Sample) -> None:
    Path(sample["file_name"]).unlink()
    with pytest.raises(BadSampleError, match=r"a\.png does not exist"):
        plain_mapper()(sample)


@pytest.mark.parametrize("address", ["http://a.example/b.png", "detectron2://b.png"])
def test_an_address_is_refused_before_anything_could_be_downloaded(
    sample: Sample, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(mapper, "read_image", lambda *args, **options: pytest.fail("was opened"))
    sample["file_name"] = address
    with pytest.raises(BadSampleError, match=f"image {address} is an address, expected a file"):
        plain_mapper()(sample)


@pytest.mark.parametrize("kept", [0, 8, 40, 2000])
def test_truncated_or_empty_image_is_named(sample: Sample, kept: int) -> None:
    file = Path(sample["file_name"])
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(BadSampleError, match=r"a\.png cannot be read"):
        plain_mapper()(sample)


def test_truncated_jpeg_is_named(sample: Sample, tmp_path: Path) -> None:
    file = tmp_path / "cut.jpg"
    Image.open(sample["file_name"]).save(file)
    file.write_bytes(file.read_bytes()[:1500])
    sample["file_name"] = str(file)
    with pytest.raises(BadSampleError, match=r"cut\.jpg cannot be read"):
        plain_mapper()(sample)


def test_wrong_image_size_tells_both_sizes(sample: Sample) -> None:
    sample["width"] = 65
    with pytest.raises(BadSampleError, match=r"is 64x48 .* says 65x48"):
        plain_mapper()(sample)


def test_exif_rotation_is_applied_and_checked(sample: Sample, tmp_path: Path) -> None:
    image = Image.open(sample["file_name"])
    exif = image.getexif()
    exif[0x0112] = 6  # rotate by 90 degrees
    file = tmp_path / "rotated.jpg"
    image.save(file, exif=exif)
    sample.update(file_name=str(file), annotations=[])
    with pytest.raises(BadSampleError, match="48x64"):
        plain_mapper()(sample)
    sample.update(width=48, height=64)
    assert plain_mapper()(sample)["image"].shape == (3, 64, 48)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "png"), ("RGBA", "png"), ("P", "png"), ("CMYK", "jpg"), ("1", "png"), ("LA", "png")],
)
def test_every_image_mode_becomes_three_channels(
    sample: Sample, tmp_path: Path, mode: str, suffix: str
) -> None:
    file = tmp_path / f"image.{suffix}"
    Image.open(sample["file_name"]).convert(mode).save(file)
    sample["file_name"] = str(file)
    assert plain_mapper()(sample)["image"].shape == (3, 48, 64)


def test_xyxy_boxes_are_understood(sample: Sample) -> None:
    sample["annotations"] = [{"bbox": [4.0, 6.0, 24.0, 16.0], "bbox_mode": 0, "category_id": 0}]
    assert plain_mapper()(sample)["instances"].gt_boxes.tensor.tolist() == [[4, 6, 24, 16]]


def test_clip_and_keep_tells_which_boxes_are_left() -> None:
    boxes = np.array([[0.0, 0.0, 5.0, 5.0], [9.0, 9.0, 12.0, 12.0], [8.0, 0.0, 99.0, 4.0]])
    clipped, kept = clip_and_keep(boxes, (6, 9))
    assert kept.tolist() == [True, False, True]
    assert clipped.tolist() == [[0, 0, 5, 5], [8, 0, 9, 4]]


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="image_format"):
        plain_mapper(image_format="HSV")
    with pytest.raises(ValueError, match="crop_probability"):
        plain_mapper(crop_probability=2.0)
    with pytest.raises(TypeError, match="num_classes"):
        plain_mapper(num_classes="auto")
