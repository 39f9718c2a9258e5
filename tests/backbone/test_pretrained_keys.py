"""The backbone is found in files of pre-training by names alone."""

from __future__ import annotations

import pytest
import torch
import torchvision

from sparse_detr.backbone import fill_backbone
from sparse_detr.backbone.pretrained_keys import RESNET, SWIN, find_backbone

NUMBERED = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}


@pytest.fixture(scope="module")
def resnet50():
    return torchvision.models.resnet50(weights=None).state_dict()


def after(prefix, state, fill=None):
    return {prefix + k: v if fill is None else torch.full_like(v, fill) for k, v in state.items()}


def numbered(state):
    return {
        ".".join([NUMBERED[k.split(".")[0]], *k.split(".")[1:]]): v
        for k, v in state.items()
        if not k.startswith("fc.")
    }


def files(state):
    """Content of a file by who wrote it; where two networks are in it, the other one is all 7."""
    head = {"queue": torch.zeros(2), "queue_ptr": torch.zeros(1)}
    return {
        "torchvision": state,
        "torchvision, several processes": after("module.", state),
        "MoCo": {
            "epoch": 200,
            "state_dict": {
                **after("module.encoder_q.", state),
                **after("module.encoder_k.", state, 7),
                **after("module.", head),
            },
        },
        "MoCo v3": {
            "state_dict": {
                **after("module.momentum_encoder.", state, 7),
                **after("module.base_encoder.", state),
            }
        },
        "SimSiam": {
            "state_dict": {**after("module.encoder.", state), "module.predictor.0.weight": head}
        },
        "SwAV": {**after("module.", state), "module.prototypes.weight": torch.zeros(3, 2)},
        "DINO": {
            "student": after("module.backbone.", state, 7),
            "teacher": {**after("backbone.", state), "head.mlp.0.weight": torch.zeros(2)},
            "epoch": 3,
        },
        "BYOL": {
            "model": {
                **after("online_network.encoder.", state),
                **after("target_network.encoder.", state, 7),
            }
        },
        "SCRL": {
            "tag": "last",
            "online_network_state_dict": {
                **after("encoder.", numbered(state)),
                "projector.linear1.weight": torch.zeros(2),
            },
            "target_network_state_dict": after("encoder.", numbered(state), 7),
            "predictor_state_dict": {"linear1.weight": torch.zeros(2)},
        },
        "a released detector": {
            "model": {**after("backbone.0.body.", state), "transformer.level_embed": torch.ones(1)}
        },
    }


WRITERS = list(files({}))


@pytest.mark.parametrize("writer", WRITERS)
def test_the_right_resnet_is_found_whole(writer, resnet50, build_backbone):
    content = files(resnet50)[writer]
    source = find_backbone(content)
    assert source is not None and source.naming.family == RESNET
    backbone = build_backbone("resnet50")
    report = fill_backbone(backbone, content, "a.pth")
    assert report.missing == () and len(report.loaded) == 265
    filled = backbone.state_dict()
    assert torch.equal(filled["res4.5.conv3.weight"], resnet50["layer3.5.conv3.weight"])
    assert torch.equal(filled["stem.conv1.norm.running_var"], resnet50["bn1.running_var"])


def test_the_backbone_of_an_own_checkpoint_is_found(resnet50, build_backbone):
    own = build_backbone("resnet50").state_dict()
    content = {
        "model": {**after("backbone.", own), "heads.stages.0.class_embed.bias": torch.ones(9)},
        "ema": {"average": after("backbone.", own, 7)},
    }
    report = fill_backbone(build_backbone("resnet50"), content, "a.pth")
    assert report.missing == () and len(report.loaded) == 265


def test_every_key_has_a_place_or_a_reason(resnet50):
    for writer, content in files(resnet50).items():
        source = find_backbone(content)
        left = [k for k in source.tensors if not source.name_here(k)]
        assert all(source.ignored_reason(key) for key in left), writer


def test_two_equal_backbones_are_not_guessed_at(resnet50):
    content = {"first": resnet50, "second": resnet50}
    with pytest.raises(ValueError, match=r"several backbones .* in 'first'.* in 'second'"):
        find_backbone(content)


def test_swin_is_found_in_three_layouts(build_backbone):
    classifier = torchvision.models.swin_t(weights=None).state_dict()
    own = build_backbone("swin_tiny").state_dict()
    assert find_backbone(classifier).naming.family == SWIN
    assert find_backbone({"model": after("backbone.", own)}).prefix == "backbone."
    assert find_backbone(classifier, RESNET) is None
    authors = {"layers.0.blocks.0.attn.qkv.weight": torch.ones(1)}
    assert find_backbone({"model": authors}).container == "model"


def test_a_unit_that_no_resnet_has_is_not_ignored(resnet50):
    source = find_backbone({**resnet50, "layer1.0.fc.weight": torch.ones(1)})
    assert source.name_here("layer1.0.fc.weight") is None
    assert source.ignored_reason("layer1.0.fc.weight") is None


@pytest.mark.parametrize(("file", "model", "how"), [(101, 50, "more"), (50, 101, "fewer")])
def test_a_backbone_of_another_depth_is_refused(file, model, how, build_backbone):
    with torch.device("meta"):
        state = getattr(torchvision.models, f"resnet{file}")(weights=None).state_dict()
        backbone = build_backbone("resnet50", stages={**STAGES, "depth": model})
    with pytest.raises(ValueError, match=rf"a\.pth: the file has {how} blocks .*res4"):
        fill_backbone(backbone, state, "a.pth")


STAGES = {
    "_target_": "detectron2.modeling.backbone.resnet.ResNet.make_default_stages",
    "stride_in_1x1": False,
    "norm": "FrozenBN",
}
