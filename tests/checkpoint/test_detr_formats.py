"""Released files of DETR: what they are told by, their classes, and the way back."""

from argparse import Namespace

import pytest
import torch
from detectron2.config import instantiate

from sparse_detr.checkpoint.class_rows import (
    CLASSES_91,
    CLASSES_KEPT,
    coco_category_ids,
)
from sparse_detr.checkpoint.conversion_errors import ConversionError
from sparse_detr.checkpoint.detr_formats import DETR_FILES
from sparse_detr.checkpoint.released_formats import format_for, format_of
from sparse_detr.checkpoint.table_conversion import from_table, to_table
from sparse_detr.config.loading import load_config

CLASSIFIER = "heads.stages.0.class_embed.bias"


@pytest.fixture(scope="module")
def released():
    """A file with 91 category ids, every tensor with a value of its own."""
    config = load_config("detr/detr_r50_500ep", ["model.num_classes=91"])
    with torch.device("meta"):
        state = instantiate(config.model).state_dict()
    weights = {
        DETR_FILES.released(name): torch.full(tensor.shape, float(index))
        for index, (name, tensor) in enumerate(state.items())
    }
    weights["class_embed.bias"] = torch.arange(92.0)
    return weights


def test_the_80_classes_and_no_object_are_kept_in_order(released):
    found = from_table(DETR_FILES, released, {})
    assert found.weights[CLASSIFIER].tolist() == [*coco_category_ids(), 91]
    assert found.weights["heads.stages.0.class_embed.weight"].shape == (81, 256)
    assert len(found.unused_rows[CLASSIFIER]) == 11
    assert found.config.overrides == ("model.released_behaviour=True",)


def test_category_ids_can_be_kept(released):
    found = from_table(DETR_FILES, released, {}, CLASSES_KEPT)
    assert torch.equal(found.weights[CLASSIFIER], released["class_embed.bias"])
    assert "model.num_classes=91" in found.config.overrides


def test_all_logits_can_be_kept_with_the_80_classes_first(released):
    found = from_table(DETR_FILES, released, {}, CLASSES_91)
    rows = found.weights[CLASSIFIER].tolist()
    assert rows[:80] == list(coco_category_ids())
    assert rows[91] == 91
    assert sorted(rows) == list(range(92))
    assert found.config.overrides[1:] == (
        "model.num_classes=91",
        "+model.postprocess.detected_classes=80",
    )
    assert found.config.load().model.postprocess.detected_classes == 80
    assert not found.unused_rows
    assert not any("left out" in remark for remark in found.report.remarks)


def test_logits_that_training_here_did_not_keep_come_back_without_weights(released):
    found = from_table(DETR_FILES, released, {})
    converted = to_table(DETR_FILES, found.weights, found.config, {}, True)
    notes = {entry.target: entry.note for entry in converted.report.entries}
    assert "re-initialised" in notes["class_embed.weight"]
    back = converted.weights
    ids = list(coco_category_ids())
    assert back["class_embed.bias"].shape == (92,)
    assert torch.equal(back["class_embed.bias"][ids], released["class_embed.bias"][ids])
    others = [row for row in range(91) if row not in ids]
    assert not back["class_embed.weight"][others].any()
    assert (back["class_embed.bias"][others] < -4).all()


def test_a_file_that_says_nothing_of_dilation_is_taken_for_plain_and_that_is_told(released):
    found = from_table(DETR_FILES, released, {})
    assert found.config.name == "detr/detr_r50_500ep"
    assert any("taken for plain" in remark for remark in found.report.remarks)
    dilated = from_table(DETR_FILES, released, {"args": Namespace(dilation=True)})
    assert dilated.config.name == "detr/detr_r50_dc5_500ep"
    assert not any("taken for plain" in remark for remark in dilated.report.remarks)


def test_there_and_back_gives_the_same_weights(released):
    here = from_table(DETR_FILES, released, {}, CLASSES_KEPT).weights
    assert format_of(released) is DETR_FILES and format_for(here) is DETR_FILES
    back = to_table(DETR_FILES, here, None).weights
    assert back.keys() == released.keys()
    assert all(torch.equal(back[key], released[key]) for key in back)


def test_other_numbers_of_queries_and_layers_are_stored(released):
    fewer = {k: v for k, v in released.items() if not k.startswith("transformer.encoder.layers.5")}
    fewer["query_embed.weight"] = torch.zeros(30, 256)
    overrides = from_table(DETR_FILES, fewer, {}).config.overrides
    assert {"model.encoder.num_layers=5", "model.query_selection.num_queries=30"} < set(overrides)


def test_keys_of_a_relative_are_left_over(released):
    with pytest.raises(ConversionError, match=r"norm4"):
        from_table(
            DETR_FILES, {**released, "transformer.decoder.layers.0.norm4.bias": torch.ones(256)}, {}
        )


def test_learned_positions_are_refused_with_the_reason(released):
    learned = {**released, "backbone.1.row_embed.weight": torch.ones(50, 128)}
    with pytest.raises(ConversionError, match="learned positions have no shipped run config"):
        from_table(DETR_FILES, learned, {})
