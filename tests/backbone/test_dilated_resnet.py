"""The dilated ResNet is torchvision's."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torchvision.models.feature_extraction import create_feature_extractor

from sparse_detr.backbone import fill_backbone, make_dilated_stages


def test_dilated_features_are_those_of_torchvision(build_backbone):
    torch.manual_seed(0)
    classifier = torchvision.models.resnet50(
        weights=None, replace_stride_with_dilation=[False, False, True]
    )
    classifier = classifier.double().eval()
    backbone = build_backbone("resnet50_dc5", out_features=["res5"]).double().eval()
    assert fill_backbone(backbone, classifier.state_dict(), "file").missing == ()
    images = torch.randn(1, 3, 65, 97, dtype=torch.float64)
    with torch.no_grad():
        expected = create_feature_extractor(classifier, {"layer4": "res5"})(images)["res5"]
        found = backbone(images)["res5"]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert backbone.output_shape()["res5"].stride == 16


def test_a_depth_without_three_convolutions_is_refused():
    with pytest.raises(ValueError, match="depth must be 50, 101 or 152, got 18"):
        make_dilated_stages(18)
