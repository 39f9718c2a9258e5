"""Names of ResNet weights, both ways."""

import pytest
import torchvision

from sparse_detr.backbone.resnet_keys import detectron2_to_released, released_to_detectron2

PAIRS = {
    "backbone.0.body.conv1.weight": "stem.conv1.weight",
    "backbone.0.body.bn1.running_var": "stem.conv1.norm.running_var",
    "backbone.0.body.layer1.0.conv1.weight": "res2.0.conv1.weight",
    "backbone.0.body.layer3.5.bn2.bias": "res4.5.conv2.norm.bias",
    "backbone.0.body.layer4.0.downsample.0.weight": "res5.0.shortcut.weight",
    "backbone.0.body.layer4.0.downsample.1.running_mean": "res5.0.shortcut.norm.running_mean",
}


@pytest.mark.parametrize(("released", "detectron2"), PAIRS.items())
def test_names_map_both_ways(released, detectron2):
    assert released_to_detectron2(released) == detectron2
    assert detectron2_to_released(detectron2) == released


@pytest.mark.parametrize(
    "key",
    [
        "backbone.0.body.fc.weight",
        "backbone.0.body.bn1.num_batches_tracked",
        "backbone.0.body.layer5.0.conv1.weight",
        "backbone.0.body.bn2.weight",
        "backbone.0.body.downsample.0.weight",
        "conv1.weight",
        "input_proj.0.0.weight",
    ],
)
def test_released_keys_without_counterpart_give_none(key):
    assert released_to_detectron2(key) is None


@pytest.mark.parametrize(
    "key",
    ["conv1.weight", "stem.conv2.weight", "stem.shortcut.weight", "res6.0.conv1.weight", "res2.0"],
)
def test_detectron2_keys_without_counterpart_give_none(key):
    assert detectron2_to_released(key) is None


@pytest.mark.parametrize("depth", [18, 50])
def test_every_torchvision_weight_survives_the_round_trip(depth):
    model = getattr(torchvision.models, f"resnet{depth}")(weights=None)
    skipped = set()
    for key in model.state_dict():
        name = released_to_detectron2(key, prefix="")
        if name is None:
            skipped.add(key.rpartition(".")[2] if "bn" in key or "downsample" in key else key)
        else:
            assert detectron2_to_released(name, prefix="") == key
    assert skipped == {"num_batches_tracked", "fc.weight", "fc.bias"}
