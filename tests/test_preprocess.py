"""Ground truth as the criterion wants it."""

import pytest
import torch
from detectron2.structures import Boxes, Instances

from sparse_detr.preprocess import PixelStatistics, targets_of


def item(boxes, labels, size=(50, 100), **more):
    instances = Instances(
        size, gt_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)), gt_classes=torch.tensor(labels)
    )
    return {"instances": instances, **more}


def test_boxes_become_centre_and_size_relative_to_the_image():
    (target,) = targets_of([item([[10.0, 5.0, 30.0, 45.0]], [2])], 3, torch.zeros(1))
    torch.testing.assert_close(target.boxes_cxcywh, torch.tensor([[0.2, 0.5, 0.2, 0.8]]))
    assert target.labels.tolist() == [2]


def test_boxes_take_the_type_of_the_model():
    (target,) = targets_of([item([[0.0, 0.0, 1.0, 1.0]], [0])], 1, torch.zeros(1).double())
    assert target.boxes_cxcywh.dtype == torch.float64


def test_an_image_without_objects_gives_empty_targets():
    empty = Instances((5, 5), gt_boxes=Boxes(torch.zeros(0, 4)), gt_classes=torch.zeros(0).long())
    (target,) = targets_of([{"instances": empty}], 3, torch.zeros(1))
    assert target.labels.shape == (0,) and target.boxes_cxcywh.shape == (0, 4)


@pytest.mark.parametrize("label", [-1, 3, 90])
def test_a_label_outside_the_classes_is_refused_with_the_name_of_its_image(label):
    with pytest.raises(ValueError, match=rf"gt_classes of bad\.png .*got {label}; set model"):
        targets_of(
            [item([[0.0, 0.0, 1.0, 1.0]] * 2, [0, label], file_name="bad.png")], 3, torch.zeros(1)
        )


def test_training_without_annotations_is_refused():
    with pytest.raises(ValueError, match="'instances' to train"):
        targets_of([{"file_name": "a.png"}], 3, torch.zeros(1))


def test_colour_statistics_take_type_and_device_of_a_tensor_without_rounding_twice():
    statistics = PixelStatistics([0.1, 0.2, 0.3], [1, 2, 3])
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        mean, std = statistics.like(torch.nn.Parameter(torch.zeros(1, dtype=dtype)))
        assert mean.shape == std.shape == (3, 1, 1) and not mean.requires_grad
        assert torch.equal(mean.flatten(), torch.tensor([0.1, 0.2, 0.3], dtype=dtype))
        assert torch.equal(std.flatten(), torch.tensor([1, 2, 3], dtype=dtype))
    assert statistics.like(torch.zeros(1))[0] is statistics.like(torch.ones(5))[0]
