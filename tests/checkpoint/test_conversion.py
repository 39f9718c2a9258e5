"""Files: full-size ones convert both ways, hostile ones end as one message and leave nothing."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from released_files import (
    SPARSE_ARGUMENTS,
    plain_weights,
    released_variant,
    save_released,
    seeded_state,
    variant_arguments,
    variant_config,
)

from sparse_detr.checkpoint.class_rows import CLASSES_KEPT, coco_category_ids
from sparse_detr.checkpoint.conversion import convert_checkpoint
from sparse_detr.engine.errors import UserError
from sparse_detr.engine.weights import load_weights
from sparse_detr.inference.model_building import build_model_for_inference
from sparse_detr.testing.full_size_case import run_full_size_case


def read(path):
    return torch.load(path, weights_only=True)


def build(path, **options):
    return build_model_for_inference(path, path, "cpu", **options)


def test_a_full_size_resnet_detector_gives_the_outputs_of_the_released_program(
    key_list, golden_file, tmp_path
):
    golden = golden_file("full_r50_rho0.1.npz")
    vectors = np.load(golden)
    seed = int(vectors["recipe_seed"])
    state = seeded_state(key_list("state_dict_r50_sparse_0.1.json"), seed)
    source = save_released(state, tmp_path / "released.pth", **SPARSE_ARGUMENTS)
    del state

    convert_checkpoint(source, tmp_path / "raw.pth", classes=CLASSES_KEPT)
    comparison = run_full_size_case(golden, build(tmp_path / "raw.pth", dtype="float64"))
    assert comparison.passed, comparison.line()

    convert_checkpoint(source, tmp_path / "coco.pth", report_file=tmp_path / "report.json")
    model = build(tmp_path / "coco.pth", dtype="float64")
    width, height = (int(v) for v in vectors["original_wh"])
    image = torch.from_numpy(vectors["image_uint8_hwc"]).permute(2, 0, 1)
    inputs = [{"image": image, "height": height, "width": width}]
    with torch.no_grad():
        output = model.detect(model.extract_tokens(model.preprocess(inputs)))
    ids = list(coco_category_ids())
    found = output.decoder.predictions[-1]
    expected = torch.from_numpy(vectors["pred_logits"])[..., ids].double()
    torch.testing.assert_close(found.logits, expected, rtol=1e-6, atol=1e-6)
    boxes = torch.from_numpy(vectors["pred_boxes"])
    torch.testing.assert_close(found.boxes_cxcywh, boxes, rtol=0, atol=1e-9)

    report = json.loads((tmp_path / "report.json").read_text())
    assert len(report["keys"]) == 760 and report["counts"]["mapped"] == 624
    assert report["config"] == "sparse_detr/sparse_detr_r50_rho10_50ep"

    convert_checkpoint(tmp_path / "coco.pth", tmp_path / "back.pth", to_released=True)
    back, released = read(tmp_path / "back.pth")["model"], _released(source)
    assert back.keys() == released.keys()
    assert all(torch.equal(tensor, released[key]) for key, tensor in back.items())


def _released(path):
    with torch.serialization.safe_globals([argparse.Namespace]):
        return read(path)["model"]


def test_a_full_size_swin_detector_loads_completely_and_runs(key_list, tmp_path):
    state = seeded_state(key_list("state_dict_swint_sparse_0.1.json"))
    source = save_released(state, tmp_path / "released.pth", **{**SPARSE_ARGUMENTS, "rho": 0.3})
    convert_checkpoint(source, tmp_path / "swin.pth")
    model = build(tmp_path / "swin.pth")
    assert load_weights(model, tmp_path / "swin.pth").missing_fraction == 0
    assert model.keep_ratio == 0.3
    image = torch.randint(0, 256, (3, 96, 130), dtype=torch.uint8)
    with torch.no_grad():
        found = model([{"image": image, "height": 192, "width": 260}])[0]["instances"]
    assert len(found) == 100 and found.pred_classes.max() < 80


@pytest.mark.parametrize("legacy", [False, True])
def test_weights_in_any_wrapping_are_found(tmp_path, legacy):
    state = released_variant("single scale")
    wrapped = {
        "model.pth": {"model": state, "args": argparse.Namespace(rho=0.0, odd=[None])},
        "state_dict.pth": {"state_dict": state, "epoch": 3},
        "bare.pth": state,
        "processes.pth": {"model": {f"module.{key}": value for key, value in state.items()}},
    }
    names = set()
    for name, content in wrapped.items():
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=not legacy)
        convert_checkpoint(tmp_path / name, tmp_path / "out.pth")
        names.add(tuple(read(tmp_path / "out.pth")["model"]))
    assert len(names) == 1


def test_arguments_of_another_kind_are_passed_over(tmp_path):
    arguments = {**variant_arguments("sparse"), "rho": "0.5", "num_queries": {"a": 1}}
    source = save_released(released_variant("sparse"), tmp_path / "in.pth", **arguments)
    report = convert_checkpoint(source, tmp_path / "out.pth")
    assert any("keeping ratio" in remark for remark in report.remarks)


def test_the_moving_average_of_a_training_is_what_goes_back(tmp_path):
    weights = dict(plain_weights(variant_config("single scale")))
    average = {name: tensor + 0.5 for name, tensor in weights.items()}
    content = {"model": weights, "ema": {"average": average, "updates": 3}, "iteration": 9}
    torch.save(content, tmp_path / "own.pth")
    report = convert_checkpoint(tmp_path / "own.pth", tmp_path / "out.pth", to_released=True)
    found = read(tmp_path / "out.pth")["model"]["transformer.level_embed"]
    assert torch.equal(found, average["position_embedding.level_embed"])
    assert any("moving average" in remark for remark in report.remarks)


class _Runs:
    """What a hostile pickle holds: a call."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (str(self.marker),))


WHOLE = {"model": {"transformer.level_embed": torch.zeros(40000)}}


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("folder/readme.txt", "nothing here")


def _cut(path: Path, modern: bool) -> None:
    torch.save(WHOLE, path, _use_new_zipfile_serialization=modern)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _foreign(path: Path) -> None:
    torch.save({"model": {"stem.weight": torch.zeros(2), "head.weight": torch.zeros(2)}}, path)


WRITERS = {
    "code": lambda p, runs: torch.save({**WHOLE, "args": runs}, p),
    "code, legacy": lambda p, runs: torch.save(
        {**WHOLE, "args": runs}, p, _use_new_zipfile_serialization=False
    ),
    "code in the arguments": lambda p, runs: torch.save(
        {**WHOLE, "args": argparse.Namespace(a=runs)}, p
    ),
    "plain pickle": lambda p, runs: p.write_bytes(pickle.dumps({"model": runs})),
    "empty": lambda p, runs: p.write_bytes(b""),
    "text": lambda p, runs: p.write_text("this is no checkpoint\n" * 20),
    "zip": lambda p, runs: _zip(p),
    "tar": lambda p, runs: _tar(p),
    "script": lambda p, runs: torch.jit.script(torch.nn.Linear(2, 2)).save(p),
    "list": lambda p, runs: torch.save([torch.zeros(2)], p),
    "no tensors": lambda p, runs: torch.save({"model": {"a": 1}}, p),
    "cut short": lambda p, runs: _cut(p, modern=True),
    "cut short, legacy": lambda p, runs: _cut(p, modern=False),
    "foreign": lambda p, runs: _foreign(p),
}
HOSTILE = {
    "code": r"refused.*posix.mkdir|nt.mkdir",
    "code, legacy": r"refused.*mkdir",
    "code in the arguments": r"refused.*mkdir",
    "plain pickle": "refused|cannot be read",
    "empty": "cannot be read",
    "text": "cannot be read|refused",
    "zip": "cannot be read",
    "tar": "refused: it is a tar archive",
    "script": "refused: it is a TorchScript program",
    "list": "holds list, expected a dict",
    "no tensors": "not recognised",
    "cut short": "cannot be read",
    "cut short, legacy": "cannot be read",
    "foreign": r"not recognised as a detector or a backbone \(keys: stem.weight, head.weight\); "
    r"known are .*; Focus-DETR; DINO of detrex; .*SMCA, single scale; PnP-DETR; DETR; ResNet",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_one_message_and_nothing_of_it_runs(kind, tmp_path):
    source, marker, out = (tmp_path / name for name in ("in.pth", "marker", "out.pth"))
    WRITERS[kind](source, _Runs(marker))
    with pytest.raises(UserError, match=HOSTILE[kind]) as caught:
        convert_checkpoint(source, out, report_file=tmp_path / "report.json")
    message = str(caught.value)
    assert "\n" not in message and str(source) in message and "weights_only" not in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.pth"]


def test_a_file_that_does_not_fit_leaves_an_older_output_as_it_was(tmp_path):
    state = {**released_variant("single scale"), "extra.weight": torch.zeros(1)}
    source = save_released(state, tmp_path / "in.pth")
    (tmp_path / "out.pth").write_text("older")
    with pytest.raises(UserError, match=r"in\.pth: 1 key without a place: extra.weight"):
        convert_checkpoint(source, tmp_path / "out.pth")
    assert (tmp_path / "out.pth").read_text() == "older"


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("out.bin", "must end in .pth"),
        ("none/out.pth", "folder .* does not exist"),
        ("in.pth", "is the input"),
    ],
)
def test_an_output_that_cannot_be_is_said_before_the_input_is_read(out, message, tmp_path):
    (tmp_path / "in.pth").write_text("never read")
    with pytest.raises(UserError, match=message):
        convert_checkpoint(tmp_path / "in.pth", tmp_path / out)


def test_the_wrong_direction_is_said(tmp_path):
    torch.save({"model": plain_weights(variant_config("single scale"))}, tmp_path / "own.pth")
    with pytest.raises(UserError, match="of this project already; --to released"):
        convert_checkpoint(tmp_path / "own.pth", tmp_path / "out.pth")
    save_released(released_variant("single scale"), tmp_path / "released.pth")
    with pytest.raises(UserError, match="in the released format already"):
        convert_checkpoint(tmp_path / "released.pth", tmp_path / "out.pth", to_released=True)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="not recognised as a checkpoint of this project"):
        convert_checkpoint(tmp_path / "other.pth", tmp_path / "out.pth", to_released=True)


@pytest.mark.parametrize("depth", [50, 101])
def test_a_classifier_is_recognised_as_a_backbone_and_goes_both_ways(depth, tmp_path):
    source = getattr(torchvision.models, f"resnet{depth}")(weights=None).state_dict()
    torch.save(source, tmp_path / "in.pth")
    report = convert_checkpoint(tmp_path / "in.pth", tmp_path / "out.pth")
    assert f"backbone, ResNet-{depth} (torchvision's ResNet)" in report.recognised
    assert report.config == "" and report.count("mapped") + report.count("ignored") == len(source)
    assert any("depth=101" in remark for remark in report.remarks) == (depth == 101)
    convert_checkpoint(tmp_path / "out.pth", tmp_path / "back.pth", to_released=True)
    back = read(tmp_path / "back.pth")["model"]
    used = {k: v for k, v in source.items() if k.split(".")[-1] != "num_batches_tracked"}
    assert back.keys() == {key for key in used if not key.startswith("fc.")}
    assert all(torch.equal(tensor, source[key]) for key, tensor in back.items())


def test_a_swin_classifier_is_recognised_as_a_backbone(tmp_path):
    source = torchvision.models.swin_t(weights=None).state_dict()
    torch.save(source, tmp_path / "in.pth")
    report = convert_checkpoint(tmp_path / "in.pth", tmp_path / "out.pth")
    assert "Swin-T (torchvision's Swin)" in report.recognised
    assert report.count("re-initialised") == 6
    assert "backbone.stages.2.blocks.5.mlp.3.bias" in read(tmp_path / "out.pth")["model"]
    convert_checkpoint(tmp_path / "out.pth", tmp_path / "authors.pth", to_released=True)
    again = convert_checkpoint(tmp_path / "authors.pth", tmp_path / "again.pth")
    assert "the Swin authors' layout" in again.recognised
    first, second = read(tmp_path / "out.pth")["model"], read(tmp_path / "again.pth")["model"]
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update({"layer1.0.fc.weight": torch.zeros(1)}), "layer1.0.fc.weight"),
        (lambda s: s.pop("layer4.2.bn3.bias"), "1 key of the backbone missing"),
        (lambda s: s.update({"conv1.weight": torch.zeros(64, 3, 3, 3)}), "conv1.weight has shape"),
        (lambda s: s.update({"bn1.bias": torch.full((64,), torch.inf)}), "NaN or infinity.*bn1.bi"),
        (
            lambda s: [s.pop(k) for k in list(s) if k.startswith("layer3.5")],
            "ResNet with 5 blocks in its third stage",
        ),
    ],
)
def test_a_backbone_that_does_not_fit_is_refused(change, message, tmp_path):
    with torch.device("meta"):
        names = torchvision.models.resnet50(weights=None).state_dict()
    state = {key: torch.zeros(()).expand(tensor.shape) for key, tensor in names.items()}
    change(state)
    torch.save(state, tmp_path / "in.pth")
    with pytest.raises(UserError, match=message):
        convert_checkpoint(tmp_path / "in.pth", tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()
