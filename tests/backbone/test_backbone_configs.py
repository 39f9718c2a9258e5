"""The configured backbones against reference vectors, and what must hold for all of them."""

import json

import numpy as np
import pytest
import torch

from sparse_detr.backbone.resnet_keys import released_to_detectron2
from sparse_detr.backbone.swin_keys import released_to_project
from sparse_detr.testing.seed_recipe import seeded_tensor

BACKBONES = ("resnet50", "swin_tiny", "small_resnet")
CHANNELS = {
    "resnet50": {"res3": 512, "res4": 1024, "res5": 2048},
    "swin_tiny": {"stage1": 192, "stage2": 384, "stage3": 768},
    "small_resnet": {"res3": 32, "res4": 64, "res5": 128},
}
# Counted on the released models; the small one is this project's own.
FROZEN_AND_TRAINED = {
    "resnet50": (222_400, 23_232_512),
    "swin_tiny": (304_086, 27_216_420),
    "small_resnet": (0, 702_096),
}
GOLDENS = {
    "resnet50": ("r50", released_to_detectron2),
    "swin_tiny": ("swint", released_to_project),
}


def load_reference(golden_file, name):
    """The reference arrays and the seeded weights under this project's names."""
    stem, rename = GOLDENS[name]
    arrays = np.load(golden_file(f"backbone_{stem}.npz"))
    shapes = json.loads(golden_file(f"backbone_{stem}_keys.json").read_text())
    weights = {}
    for key, shape in shapes.items():
        # An integer buffer follows from the architecture; it is computed, never drawn.
        if not key.endswith("relative_position_index"):
            # The file leaves "backbone." out of its keys; the recipe draws from the whole name.
            whole = f"backbone.{key}"
            drawn = seeded_tensor(whole, shape, int(arrays["recipe_seed"]))
            weights[rename(whole)] = torch.from_numpy(drawn)
    return arrays, weights


def run_reference(build_backbone, golden_file, name, dtype):
    arrays, weights = load_reference(golden_file, name)
    backbone = build_backbone(name).to(dtype).eval()
    backbone.load_state_dict(weights, strict=True)
    with torch.no_grad():
        features = backbone(torch.from_numpy(arrays["input"]).to(dtype))
    return [
        float(np.abs(feature.double().numpy() - arrays[f"feat{level}"]).max())
        for level, feature in enumerate(features.values())
    ]


@pytest.mark.parametrize("name", GOLDENS)
def test_features_equal_the_released_code_in_float64(build_backbone, golden_file, name):
    errors = run_reference(build_backbone, golden_file, name, torch.float64)
    assert len(errors) == 3
    assert max(errors) < 1e-9


@pytest.mark.parametrize("name", GOLDENS)
def test_float32_stays_close_to_float64(build_backbone, golden_file, name):
    errors = run_reference(build_backbone, golden_file, name, torch.float32)
    assert 0 < max(errors) < 5e-5


@pytest.mark.parametrize("name", BACKBONES)
def test_output_shape_names_channels_and_strides(build_backbone, name):
    shapes = build_backbone(name).output_shape()
    assert {key: shape.channels for key, shape in shapes.items()} == CHANNELS[name]
    assert [shape.stride for shape in shapes.values()] == [8, 16, 32]


@pytest.mark.parametrize("name", BACKBONES)
def test_no_size_divisibility_is_asked_for(build_backbone, name):
    # The batch must not be padded further: that would change token counts.
    assert build_backbone(name).size_divisibility == 0


@pytest.mark.parametrize("name", BACKBONES)
def test_frozen_and_trained_parameter_counts(build_backbone, name):
    parameters = list(build_backbone(name).parameters())
    frozen = sum(p.numel() for p in parameters if not p.requires_grad)
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    assert (frozen, trained) == FROZEN_AND_TRAINED[name]


@pytest.mark.parametrize("size", [(1, 1), (1, 31), (5, 3), (31, 33), (33, 31), (64, 97)])
@pytest.mark.parametrize("name", BACKBONES)
def test_any_image_size_gives_ceiled_feature_sizes(build_backbone, name, size):
    backbone = build_backbone(name).eval()
    with torch.no_grad():
        features = backbone(torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0)))
    for key, shape in backbone.output_shape().items():
        expected = tuple(-(-extent // shape.stride) for extent in size)
        assert features[key].shape == (1, shape.channels, *expected)
        assert torch.isfinite(features[key]).all()


@pytest.mark.parametrize("name", BACKBONES)
def test_an_image_gives_the_same_alone_and_in_a_batch(build_backbone, name):
    backbone = build_backbone(name).double().eval()
    images = torch.randn(2, 3, 45, 70, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        together = backbone(images)
        alone = backbone(images[1:])
    for key, feature in alone.items():
        torch.testing.assert_close(feature, together[key][1:], rtol=0, atol=1e-10)


def _no_drop_path(name: str) -> dict[str, float]:
    return {"drop_path_rate": 0.0} if name == "swin_tiny" else {}


@pytest.mark.parametrize("name", BACKBONES)
def test_gradients_reach_every_trained_parameter_and_no_frozen_one(build_backbone, name):
    torch.manual_seed(0)
    backbone = build_backbone(name, **_no_drop_path(name)).train()
    images = torch.randn(2, 3, 64, 80)
    sum(feature.square().mean() for feature in backbone(images).values()).backward()
    for key, parameter in backbone.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key
            assert parameter.grad.abs().sum() > 0, key
        else:
            assert parameter.grad is None, key


def test_resnet50_batch_norm_is_frozen_in_train_mode(build_backbone):
    backbone = build_backbone("resnet50").train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    first, second = backbone(images), backbone(images)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    assert not [key for key, _ in backbone.named_parameters() if "norm" in key]


def test_small_resnet_batch_norm_learns_statistics(build_backbone):
    backbone = build_backbone("small_resnet").train()
    before = backbone.stem.conv1.norm.running_mean.clone()
    backbone(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert not torch.equal(backbone.stem.conv1.norm.running_mean, before)


@pytest.mark.parametrize("name", BACKBONES)
def test_bfloat16_autocast_stays_near_float32(build_backbone, name):
    torch.manual_seed(0)
    backbone = build_backbone(name).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        exact = backbone(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = backbone(images)
    for key, feature in exact.items():
        error = (rounded[key].float() - feature).norm() / feature.norm()
        assert error < 0.05, key


@pytest.mark.parametrize("name", GOLDENS)
def test_released_keys_cover_the_state_dict_one_to_one(build_backbone, golden_file, name):
    stem, rename = GOLDENS[name]
    shapes = json.loads(golden_file(f"backbone_{stem}_keys.json").read_text())
    renamed = {
        rename(f"backbone.{key}"): tuple(shape)
        for key, shape in shapes.items()
        if not key.endswith("relative_position_index")
    }
    own = {key: tuple(value.shape) for key, value in build_backbone(name).state_dict().items()}
    assert renamed == own
