"""Files of DINO, detrex's and its authors', become this project's detectors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

from sparse_detr.backbone.resnet_keys import detectron2_to_released
from sparse_detr.checkpoint.class_rows import CLASSES_91, CLASSES_KEPT, coco_category_ids
from sparse_detr.checkpoint.conversion import convert_checkpoint
from sparse_detr.checkpoint.conversion_errors import ConversionError
from sparse_detr.checkpoint.dino_formats import DETREX_DINO, ORIGINAL_DINO
from sparse_detr.checkpoint.released_formats import format_of
from sparse_detr.checkpoint.stored_config import config_of_checkpoint
from sparse_detr.checkpoint.table_conversion import from_table, to_table
from sparse_detr.config.loading import load_config
from sparse_detr.engine.errors import UserError

CONFIG = "dino/dino_r50_4scale_12ep"
# One backbone of every kind that a file can hold.
NAMES = ("r50", "r101", "swint", "swinb_384", "swinl", "swinl_384")


def detector(name: str = CONFIG, classes: int = 80):
    config = load_config(name, [f"model.num_classes={classes}"]).model
    with torch.device("meta"):
        model = instantiate(config)
    # One row of memory for each tensor, as many different ones as there are tensors.
    return {
        key: torch.full((1,), float(index)).expand(tensor.shape)
        for index, (key, tensor) in enumerate(model.state_dict().items())
    }


def detrex_file():
    return to_table(DETREX_DINO, detector(), None).weights


def test_a_detrex_file_has_the_official_names_and_as_many():
    released = detrex_file()
    assert len(released) == 634
    assert sum(key.startswith("backbone.") for key in released) == 265
    for key, shape in {
        "neck.convs.2.conv.weight": (256, 2048, 1, 1),
        "neck.extra_convs.0.norm.bias": (256,),
        "transformer.level_embeds": (4, 256),
        "transformer.tgt_embed.weight": (900, 256),
        "transformer.decoder.layers.5.attentions.0.attn.in_proj_weight": (768, 256),
        "transformer.decoder.ref_point_head.layers.0.weight": (256, 512),
        "transformer.encoder.layers.0.attentions.0.sampling_offsets.weight": (256, 256),
        "transformer.encoder.layers.3.ffns.0.layers.0.0.weight": (2048, 256),
        "transformer.decoder.bbox_embed.6.layers.2.weight": (4, 256),
        "label_enc.weight": (80, 256),
    }.items():
        assert tuple(released[key].shape) == shape, key


@pytest.mark.parametrize("name", NAMES)
def test_every_backbone_is_recognised_and_comes_back_as_it_was(name):
    own = detector(f"dino/dino_{name}_4scale_12ep")
    released = to_table(DETREX_DINO, own, None).weights
    assert format_of(released) is DETREX_DINO
    found = from_table(DETREX_DINO, released, {})
    assert found.config.name == f"dino/dino_{name}_4scale_12ep"
    assert set(found.weights) == set(own)
    assert all(found.weights[key].equal(tensor) for key, tensor in own.items())


@pytest.mark.parametrize(("iteration", "temperature"), [(89_999, 10000.0), (179_999, 20.0)])
def test_the_schedule_tells_the_position_encoding(iteration, temperature):
    found = from_table(DETREX_DINO, detrex_file(), {"iteration": iteration})
    model = found.config.load().model
    assert model.position_embedding.temperature == temperature
    assert model.released_behaviour and not found.report.remarks


def test_a_file_that_does_not_tell_its_schedule_is_remarked_on():
    found = from_table(DETREX_DINO, detrex_file(), {})
    assert any("position encoding" in remark for remark in found.report.remarks)


def original_file():
    """A file of the authors: 91 class logits, one more label, heads copied."""
    own = detector(classes=91)
    released = {}
    for name, tensor in own.items():
        if name.startswith("backbone."):
            released[detectron2_to_released(name.removeprefix("backbone."))] = tensor
        else:
            released[ORIGINAL_DINO.released(name)] = tensor
    for key in list(released):
        match = re.fullmatch(r"(class|bbox)_embed\.(\d)\.(.+)", key)
        if match:
            released[key] = released[f"{match[1]}_embed.0.{match[3]}"]
            released[f"transformer.decoder.{key}"] = released[key]
    rows = torch.arange(91.0)
    for key in list(released):
        if re.search(r"class_embed.*bias", key):
            released[key] = rows
    released["label_enc.weight"] = torch.arange(92.0)[:, None].expand(92, 256)
    return released


def test_a_file_of_the_authors_gets_eighty_classes_and_their_position_encoding():
    released = original_file()
    assert "transformer.enc_out_class_embed.weight" in released
    assert format_of(released) is ORIGINAL_DINO
    found = from_table(ORIGINAL_DINO, released, {})
    ids = torch.tensor(coco_category_ids()).float()
    for stage in range(7):
        assert found.weights[f"heads.stages.{stage}.class_embed.bias"].equal(ids)
    labels = found.weights["query_selection.denoising.label_embedding.weight"]
    assert labels[:, 0].equal(ids)
    config = found.config.load().model
    assert (config.position_embedding.temperature, config.position_embedding.offset) == (20.0, 0.0)
    assert config.num_classes == 80


def test_a_file_of_the_authors_may_keep_all_logits_with_the_80_classes_first():
    found = from_table(ORIGINAL_DINO, original_file(), {}, CLASSES_91)
    ids = torch.tensor(coco_category_ids()).float()
    bias = found.weights["heads.stages.0.class_embed.bias"]
    labels = found.weights["query_selection.denoising.label_embedding.weight"][:, 0]
    assert bias[:80].equal(ids)
    assert labels.equal(bias)
    assert found.config.load().model.postprocess.detected_classes == 80


def test_a_file_of_the_authors_may_keep_its_category_ids():
    found = from_table(ORIGINAL_DINO, original_file(), {}, CLASSES_KEPT)
    assert found.weights["heads.stages.0.class_embed.bias"].equal(torch.arange(91.0))
    labels = found.weights["query_selection.denoising.label_embedding.weight"]
    assert labels[:, 0].equal(torch.arange(91.0))


def test_copies_that_differ_are_refused():
    released = detrex_file()
    key = "transformer.decoder.class_embed.2.weight"
    released[key] = released[key] + 1
    with pytest.raises(ConversionError, match=re.escape(key)):
        from_table(DETREX_DINO, released, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("transformer.enc_output.bias"), "enc_output.bias"),
        (lambda w: w.update({"transformer.surprise": torch.zeros(1)}), "transformer.surprise"),
        (lambda w: w.update({"transformer.level_embeds": torch.zeros(5, 256)}), "another shape"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(change, message):
    released = detrex_file()
    change(released)
    with pytest.raises(ConversionError, match=re.escape(message)):
        from_table(DETREX_DINO, released, {})


def test_files_are_converted_there_and_back(tmp_path: Path):
    torch.save({"model": detector(), "iteration": 7}, tmp_path / "own.pth")
    convert_checkpoint(tmp_path / "own.pth", tmp_path / "detrex.pth", to_released=True)
    report = convert_checkpoint(tmp_path / "detrex.pth", tmp_path / "back.pth")
    assert "DINO of detrex; ResNet-50" in report.summary()
    back = torch.load(tmp_path / "back.pth")["model"]
    assert all(back[key].equal(tensor) for key, tensor in detector().items())
    assert config_of_checkpoint(tmp_path / "back.pth").model.released_behaviour
    with pytest.raises(UserError, match="keeping ratio"):
        convert_checkpoint(tmp_path / "detrex.pth", tmp_path / "x.pth", keep_ratio=0.3)
