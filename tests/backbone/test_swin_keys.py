"""Names of Swin weights in the three layouts."""

import pytest
import torchvision

from sparse_detr.backbone.swin_keys import (
    project_to_released,
    project_to_torchvision,
    released_to_project,
    torchvision_to_project,
)

RELEASED = {
    "patch_embed.proj.weight": "patch_embed.proj.weight",
    "layers.0.blocks.0.attn.qkv.weight": "stages.0.blocks.0.attn.qkv.weight",
    "layers.2.blocks.5.mlp.fc1.bias": "stages.2.blocks.5.mlp.0.bias",
    "layers.2.blocks.5.mlp.fc2.weight": "stages.2.blocks.5.mlp.3.weight",
    "layers.1.downsample.reduction.weight": "stages.1.downsample.reduction.weight",
    "norm3.weight": "norm3.weight",
}
TORCHVISION = {
    "features.0.0.weight": "patch_embed.proj.weight",
    "features.0.2.bias": "patch_embed.norm.bias",
    "features.1.0.attn.qkv.weight": "stages.0.blocks.0.attn.qkv.weight",
    "features.5.3.mlp.0.weight": "stages.2.blocks.3.mlp.0.weight",
    "features.4.reduction.weight": "stages.1.downsample.reduction.weight",
    "features.6.norm.bias": "stages.2.downsample.norm.bias",
}


@pytest.mark.parametrize(("released", "project"), RELEASED.items())
def test_released_names_map_both_ways(released, project):
    assert released_to_project(f"backbone.0.body.{released}") == project
    assert project_to_released(project) == f"backbone.0.body.{released}"


@pytest.mark.parametrize(("torchvision_name", "project"), TORCHVISION.items())
def test_torchvision_names_map_both_ways(torchvision_name, project):
    assert torchvision_to_project(torchvision_name) == project
    assert project_to_torchvision(project) == torchvision_name


@pytest.mark.parametrize(
    "key",
    [
        "backbone.0.body.layers.0.blocks.0.attn.relative_position_index",
        "backbone.0.body.layers.0.blocks.1.attn_mask",
        "backbone.0.body.head.weight",
        "backbone.0.body.norm.weight",
        "layers.0.blocks.0.norm1.weight",
        "transformer.level_embed",
    ],
)
def test_released_keys_without_counterpart_give_none(key):
    assert released_to_project(key) is None


@pytest.mark.parametrize("key", ["norm.weight", "head.bias", "features.0.1.weight", "features.1"])
def test_torchvision_keys_without_counterpart_give_none(key):
    assert torchvision_to_project(key) is None


@pytest.mark.parametrize("key", ["norm1.weight", "stages.0.norm.weight", "layers.0.weight"])
def test_project_keys_that_torchvision_lacks_give_none(key):
    assert project_to_torchvision(key) is None


def test_project_keys_that_no_checkpoint_has_give_none():
    assert project_to_released("stages.0.blocks.0.attn.relative_position_index") is None
    assert project_to_released("layers.0.blocks.0.norm1.weight") is None


def test_every_torchvision_weight_survives_the_round_trip():
    skipped = set()
    for key in torchvision.models.swin_t(weights=None).state_dict():
        name = torchvision_to_project(key)
        if name is None:
            skipped.add(key.rpartition("attn.")[2])
        else:
            assert project_to_torchvision(name) == key
            assert released_to_project(project_to_released(name)) == name
    expected = {"relative_position_index", "norm.weight", "norm.bias", "head.weight", "head.bias"}
    assert skipped == expected
