"""ImageNet files load completely, or not at all."""

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from sparse_detr.backbone import SwinBackbone, fill_backbone, load_imagenet_weights
from sparse_detr.backbone.swin_keys import project_to_released, torchvision_to_project


def randomise_batch_norm(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor, std=0.1)


def test_a_torchvision_resnet_file_gives_torchvision_features(build_backbone, tmp_path):
    torch.manual_seed(0)
    classifier = torchvision.models.resnet50(weights=None).double().eval()
    randomise_batch_norm(classifier)
    torch.save(classifier.state_dict(), tmp_path / "resnet50.pth")
    backbone = build_backbone("resnet50").double().eval()

    report = load_imagenet_weights(backbone, tmp_path / "resnet50.pth")

    assert report.missing == ()
    assert {key.rpartition(".")[2] for key in report.ignored if not key.startswith("fc.")} == {
        "num_batches_tracked"
    }
    assert "265 tensors loaded" in str(report)
    images = torch.randn(1, 3, 75, 101, dtype=torch.float64)
    layers = {"layer2": "res3", "layer3": "res4", "layer4": "res5"}
    with torch.no_grad():
        expected = create_feature_extractor(classifier, layers)(images)
        features = backbone(images)
    for name, feature in expected.items():
        torch.testing.assert_close(features[name], feature, rtol=1e-9, atol=1e-9)


def test_a_torchvision_swin_file_gives_torchvision_features_where_the_two_agree(tmp_path):
    torch.manual_seed(0)
    classifier = torchvision.models.swin_t(weights=None).double().eval()
    torch.save(classifier.state_dict(), tmp_path / "swin.pth")
    backbone = SwinBackbone(out_features=("stage0", "stage1", "stage2")).double().eval()

    report = load_imagenet_weights(backbone, tmp_path / "swin.pth")

    assert {key.partition(".")[0] for key in report.missing} == {"norm0", "norm1", "norm2"}
    # At 128 pixels every map of these stages is larger than a window, so torchvision shifts too.
    images = torch.randn(1, 3, 128, 128, dtype=torch.float64)
    x = images
    with torch.no_grad():
        features = backbone(images)
        for layer, module in enumerate(classifier.features[:6]):
            x = module(x)
            if layer % 2 == 1:
                expected = nn.functional.layer_norm(x, x.shape[-1:]).permute(0, 3, 1, 2)
                feature = features[f"stage{layer // 2}"]
                torch.testing.assert_close(feature, expected, rtol=1e-9, atol=1e-9)


def test_a_file_of_the_swin_authors_layout_loads_from_under_model(build_backbone, tmp_path):
    source = torchvision.models.swin_t(weights=None).state_dict()
    named = {
        project_to_released(name, prefix=""): tensor
        for key, tensor in source.items()
        if (name := torchvision_to_project(key)) is not None
    }
    extra = {"norm.weight": torch.ones(768), "layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49)}
    torch.save({"model": {**named, **extra}}, tmp_path / "swin_authors.pth")
    backbone = build_backbone("swin_tiny")

    report = load_imagenet_weights(backbone, tmp_path / "swin_authors.pth")

    assert set(report.ignored) == set(extra)
    assert set(report.missing) == {
        f"norm{i}.{leaf}" for i in (1, 2, 3) for leaf in ("weight", "bias")
    }
    assert torch.equal(
        backbone.stages[2].blocks[4].mlp[3].weight, source["features.5.4.mlp.3.weight"]
    )


def test_weights_read_already_fill_the_backbone_and_errors_name_their_source(build_backbone):
    weights = {"bn1.running_mean": torch.arange(1.0, 17.0)}
    backbone = build_backbone("small_resnet")
    report = fill_backbone(backbone, {"state_dict": weights, "epoch": 3}, "a.pth")
    assert report.loaded == ("stem.conv1.norm.running_mean",)
    filled = backbone.state_dict()["stem.conv1.norm.running_mean"]
    assert torch.equal(filled, weights["bn1.running_mean"])
    with pytest.raises(ValueError, match=r"^a\.pth: no key names a weight"):
        fill_backbone(backbone, {"state_dict": {"epoch": 3}}, "a.pth")


def test_weights_of_another_size_change_nothing(tmp_path):
    torch.save(torchvision.models.swin_t(weights=None).state_dict(), tmp_path / "swin.pth")
    backbone = SwinBackbone(embed_dim=32)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(ValueError, match=r"shapes differ.*instead of"):
        load_imagenet_weights(backbone, tmp_path / "swin.pth")
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_weights_of_another_architecture_are_refused(build_backbone, tmp_path):
    torch.save({"conv9.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"no key names a weight of this ResNet"):
        load_imagenet_weights(build_backbone("small_resnet"), tmp_path / "other.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.pth"):
        load_imagenet_weights(SwinBackbone(embed_dim=32), tmp_path / "absent.pth")


class _Arbitrary:
    """An object whose unpickling would need its class."""


@pytest.mark.parametrize(
    "content", [b"not a weight file", b"", b"PK\x03\x04 cut off"], ids=["text", "empty", "cut off"]
)
def test_an_unreadable_file_is_named(tmp_path, content):
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.pth"):
        load_imagenet_weights(SwinBackbone(embed_dim=32), path)


@pytest.mark.parametrize("content", [_Arbitrary(), [torch.zeros(1)]], ids=["object", "list"])
def test_a_file_that_is_no_state_dict_is_named(tmp_path, content):
    path = tmp_path / "odd.pth"
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"odd\.pth"):
        load_imagenet_weights(SwinBackbone(embed_dim=32), path)


def test_a_backbone_of_another_kind_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "any.pth")
    with pytest.raises(TypeError, match="Linear"):
        load_imagenet_weights(nn.Linear(1, 1), tmp_path / "any.pth")
