"""``train.backbone_weights``: what it fills, what it refuses, and when its absence is said."""

import argparse
from pathlib import Path

import pytest
import torch
from torch import nn
from toy import TOY_CONFIG, TorchvisionResNet, ToyOnResNet, final_state, run_toy, toy_config

from sparse_detr.config.loading import load_config
from sparse_detr.engine.backbone_weights import load_backbone_weights
from sparse_detr.engine.errors import UserError

UNCHANGED = (
    "optimizer.lr=0",
    "optimizer.lr_backbone=0",
    "optimizer.weight_decay=0",
    "train.max_iter=1",
)
WARNING = "parameters of the backbone are frozen at random values"


@pytest.fixture(scope="module")
def torchvision_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in torchvision's layout for the backbone of `ToyOnResNet`."""
    path = tmp_path_factory.mktemp("weights") / "resnet.pth"
    torch.manual_seed(5)
    torch.save(TorchvisionResNet().state_dict(), path)
    return path


def train_on_resnet(shapes_root: Path, output: Path, *options: str, **arguments: bool) -> str:
    """Runs one iteration without moving the weights and gives the log."""
    config = load_config(
        TOY_CONFIG.with_name("toy_resnet_config.py"),
        [f"data.root={shapes_root}", f"train.output_dir={output}", *UNCHANGED, *options],
    )
    run_toy(config, **arguments)
    return (output / "log.txt").read_text()


def test_a_torchvision_file_fills_the_backbone_and_nothing_else(torchvision_file: Path) -> None:
    torch.manual_seed(0)
    model = ToyOnResNet()
    head = model.head.weight.detach().clone()
    load_backbone_weights(model, str(torchvision_file))
    source = torch.load(torchvision_file, weights_only=True)
    pairs = {
        "stem.conv1.weight": "conv1.weight",
        "stem.conv1.norm.running_var": "bn1.running_var",
        "res2.0.conv2.weight": "layer1.0.conv2.weight",
        "res3.0.shortcut.weight": "layer2.0.downsample.0.weight",
        "res3.0.shortcut.norm.bias": "layer2.0.downsample.1.bias",
    }
    filled = model.backbone.state_dict()
    for own, name in pairs.items():
        assert torch.equal(filled[own], source[name]), own
    assert torch.equal(model.head.weight, head)


def test_the_file_is_read_once(torchvision_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda file, **kw: read.append(file) or load(file, **kw))
    load_backbone_weights(ToyOnResNet(), str(torchvision_file))
    assert read == [torchvision_file]


def test_a_training_starts_from_the_file_and_the_log_says_so(
    shapes_root: Path, tmp_path: Path, torchvision_file: Path
) -> None:
    option = f"train.backbone_weights={torchvision_file}"
    log = train_on_resnet(shapes_root, tmp_path / "run", option)
    weights = final_state(tmp_path / "run")["model"]
    source = torch.load(torchvision_file, weights_only=True)
    assert torch.equal(weights["backbone.res2.0.conv1.weight"], source["layer1.0.conv1.weight"])
    assert f"Backbone weights of {torchvision_file}: 35 tensors loaded" in log
    assert WARNING not in log


def test_a_frozen_random_backbone_is_said_once_and_not_when_resuming(
    shapes_root: Path, tmp_path: Path
) -> None:
    log = train_on_resnet(shapes_root, tmp_path / "run")
    assert log.count(WARNING) == 1
    # Four convolutions; frozen norms hold no parameters. The second stage is trained: three
    # convolutions with a norm of two parameters each.
    assert "4 of the 13 " + WARNING in log and "train.backbone_weights=FILE" in log
    assert train_on_resnet(shapes_root, tmp_path / "run", resume=True).count(WARNING) == 1
    start = f"train.init_checkpoint={tmp_path / 'run' / 'model_final.pth'}"
    assert WARNING not in train_on_resnet(shapes_root, tmp_path / "tuned", start)


def test_a_backbone_that_is_not_frozen_may_start_at_random(
    shapes_root: Path, tmp_path: Path
) -> None:
    run_toy(toy_config(shapes_root, tmp_path / "run", "train.max_iter=1"))
    assert WARNING not in (tmp_path / "run" / "log.txt").read_text()


def test_a_model_without_backbone_is_refused_by_the_keys_name(torchvision_file: Path) -> None:
    with pytest.raises(UserError, match=r"train.backbone_weights .* no part named backbone"):
        load_backbone_weights(nn.Linear(2, 2), str(torchvision_file))


def test_a_file_of_another_size_changes_nothing(tmp_path: Path) -> None:
    torch.save(TorchvisionResNet(hidden=12).state_dict(), tmp_path / "wide.pth")
    model = ToyOnResNet()
    before = model.backbone.stem.conv1.weight.detach().clone()
    with pytest.raises(UserError, match=r"train.backbone_weights: .* shapes differ"):
        load_backbone_weights(model, str(tmp_path / "wide.pth"))
    assert torch.equal(model.backbone.stem.conv1.weight, before)


def test_arguments_beside_the_weights_are_no_hindrance(tmp_path: Path) -> None:
    content = {"state_dict": TorchvisionResNet().state_dict(), "args": argparse.Namespace(lr=1.0)}
    torch.save(content, tmp_path / "trained.pth")
    model = ToyOnResNet()
    load_backbone_weights(model, str(tmp_path / "trained.pth"))
    expected = content["state_dict"]["conv1.weight"]
    assert torch.equal(model.backbone.stem.conv1.weight, expected)
