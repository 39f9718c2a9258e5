"""Every kind of released detector finds its config and its names, and the way back."""

from __future__ import annotations

import json

import pytest
import torch
from released_files import (
    VARIANTS,
    plain_weights,
    released_variant,
    seeded_state,
    variant_arguments,
    variant_config,
)

from sparse_detr.checkpoint.class_rows import (
    CLASSES_80,
    CLASSES_91,
    CLASSES_KEPT,
    coco_category_ids,
)
from sparse_detr.checkpoint.conversion_errors import ConversionError
from sparse_detr.checkpoint.detector_conversion import (
    detector_from_released,
    detector_to_released,
)
from sparse_detr.checkpoint.report import ADDED, IGNORED, MAPPED, REINITIALISED

LISTS = ("r50_sparse_0.1", "swint_sparse_0.1", "r50_deformable", "r50_deformable_bbr_topk")


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(tensor, other[key]) and tensor.dtype == other[key].dtype
        for key, tensor in one.items()
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_recognised_and_keeps_every_weight(name):
    config = variant_config(name)
    found = detector_from_released(released_variant(name), variant_arguments(name), CLASSES_KEPT)
    assert same(found.weights, plain_weights(config))
    assert found.config.load().model == config.load().model
    assert found.report.count(REINITIALISED) == found.report.count(ADDED) == 0


@pytest.mark.parametrize("name", VARIANTS)
def test_names_and_shapes_alone_tell_everything_but_what_is_said(name):
    found = detector_from_released(released_variant(name), {}, CLASSES_KEPT)
    model, wanted = found.config.load().model, variant_config(name).load().model
    remarks = " ".join(found.report.remarks)
    if model.keep_ratio != wanted.keep_ratio:
        assert "keeping ratio" in remarks
        model.keep_ratio = wanted.keep_ratio
    if model.query_selection.num_queries != wanted.query_selection.num_queries:
        assert "number of queries" in remarks
        model.query_selection.num_queries = wanted.query_selection.num_queries
    if model.backbone != wanted.backbone:
        assert "dilated" in remarks
        model.backbone = wanted.backbone
    assert model == wanted


@pytest.mark.parametrize(
    ("name", "classes"),
    [*((name, CLASSES_80) for name in VARIANTS if name != "two-stage, one head")]
    + [(name, CLASSES_91) for name in ("sparse", "two-stage", "single stage, Swin-T")],
)
def test_the_way_there_and_back_changes_no_bit(name, classes):
    released = released_variant(name)
    found = detector_from_released(released, variant_arguments(name), classes)
    is_sorted = found.config.load().model.num_classes == 80 or classes == CLASSES_91
    is_sorted = is_sorted and len(released["class_embed.0.weight"]) == 91
    back = detector_to_released(found.weights, found.config, found.unused_rows, is_sorted)
    assert same(back.weights, released)
    assert back.report.count(REINITIALISED) == 0
    assert {e.target for e in back.report.entries} == set(released)


@pytest.mark.parametrize("name", LISTS)
def test_the_lists_of_released_names_come_back_whole(name, key_list):
    path = key_list(f"state_dict_{name}.json")
    listed = json.loads(path.read_text())
    released = seeded_state(path, seed=3)
    found = detector_from_released(released, {}, CLASSES_80)
    copies = sum(entry.note == "copy of a head" for entry in found.report.entries)
    assert copies == len(listed["alias"])
    assert found.report.count(MAPPED) + found.report.count(IGNORED) == len(listed["keys"])
    back = detector_to_released(found.weights, found.config, found.unused_rows, True)
    assert same(back.weights, released)


def test_the_classes_of_coco_are_taken_in_the_order_of_the_data_set():
    released = released_variant("top-k")
    found = detector_from_released(released, variant_arguments("top-k"))
    for stage in range(7):
        for leaf in ("weight", "bias"):
            rows = found.weights[f"heads.stages.{stage}.class_embed.{leaf}"]
            expected = released[f"class_embed.{stage}.{leaf}"][list(coco_category_ids())]
            assert torch.equal(rows, expected)
    assert found.config.load().model.num_classes == 80


def test_91_logits_stay_with_those_of_no_class_behind_and_out_of_the_detections():
    released = released_variant("top-k")
    found = detector_from_released(released, variant_arguments("top-k"), CLASSES_91)
    ids = list(coco_category_ids())
    rows = found.weights["heads.stages.5.class_embed.bias"]
    assert torch.equal(rows[:80], released["class_embed.5.bias"][ids])
    assert set(rows[80:].tolist()) == set(released["class_embed.5.bias"].tolist()) - set(
        rows[:80].tolist()
    )
    model = found.config.load().model
    assert (model.num_classes, model.postprocess.detected_classes) == (91, 80)
    assert found.unused_rows == {}


def test_the_object_logit_of_the_original_two_stage_detector_stays_the_first():
    released = released_variant("two-stage")
    for classes, rows in ((CLASSES_80, 80), (CLASSES_91, 91)):
        found = detector_from_released(released, variant_arguments("two-stage"), classes)
        first_stage = found.weights["heads.stages.6.class_embed.bias"]
        assert torch.equal(first_stage, released["class_embed.6.bias"][:rows])
        decoder = found.weights["heads.stages.5.class_embed.bias"]
        assert torch.equal(decoder[:80], released["class_embed.5.bias"][list(coco_category_ids())])


def test_a_head_that_serves_both_purposes_cannot_be_sorted():
    released = released_variant("two-stage, one head")
    arguments = {**variant_arguments("two-stage, one head"), "eff_specific_head": False}
    with pytest.raises(ConversionError, match="--keep-class-ids"):
        detector_from_released(released, arguments)
    kept = detector_from_released(released, arguments, CLASSES_KEPT)
    assert kept.config.load().model.query_selection.class_specific is False


def test_other_counts_of_classes_are_kept_and_that_is_said():
    name = "top-k, 100 queries, 20 classes"
    found = detector_from_released(released_variant(name), variant_arguments(name))
    assert found.config.load().model.num_classes == 20
    assert any("20 class logits" in remark for remark in found.report.remarks)


def test_80_trained_classes_go_back_with_rows_that_never_win():
    found = detector_from_released(released_variant("sparse"), variant_arguments("sparse"))
    back = detector_to_released(found.weights, found.config, {}, True)
    unused = [row for row in range(91) if row not in coco_category_ids()]
    assert (back.weights["class_embed.0.weight"][unused] == 0).all()
    assert (back.weights["class_embed.0.bias"][unused].sigmoid() < 0.0101).all()
    ids = list(coco_category_ids())
    assert torch.equal(
        back.weights["class_embed.0.bias"][ids], found.weights["heads.stages.0.class_embed.bias"]
    )
    assert back.report.count(REINITIALISED) == 24


def test_counters_of_profilers_and_norms_are_ignored_with_a_reason():
    released = released_variant("single stage")
    extra = {
        "transformer.total_ops": torch.zeros(1),
        "total_params": torch.zeros(1),
        "backbone.0.body.bn1.num_batches_tracked": torch.tensor(4),
    }
    found = detector_from_released({**released, **extra}, {}, CLASSES_KEPT)
    notes = {e.key: e.note for e in found.report.entries if e.action == IGNORED}
    assert "profiler" in notes["transformer.total_ops"] and "profiler" in notes["total_params"]
    assert "batch counter" in notes["backbone.0.body.bn1.num_batches_tracked"]


def broken(change):
    state = dict(released_variant("sparse"))
    change(state)
    return state


def rename(state):
    state["transformer.encoder.layers.0.lineer1.weight"] = state.pop(
        "transformer.encoder.layers.0.linear1.bias"
    )


def spoil(state):
    tensor = state["transformer.enc_output.bias"].clone()
    tensor[3] = float("nan")
    state["transformer.enc_output.bias"] = tensor


CHANGES = {
    "left over": (
        lambda s: s.update({"transformer.encoder.layers.0.linear3.weight": torch.zeros(2)}),
        r"1 key without a place: .*linear3.weight \(nearest: transformer.encoder.layers.0.lin",
    ),
    "renamed": (rename, r"lineer1.weight \(nearest: transformer.encoder.layers.0.linear1.weight"),
    "missing": (
        lambda s: s.pop("transformer.encoder.layers.2.norm1.bias"),
        r"1 key of the detector missing in the file: transformer.encoder.layers.2.norm1.bias",
    ),
    "shape": (
        lambda s: s.update({"input_proj.0.0.weight": torch.zeros(256, 512, 3, 3)}),
        r"input_proj.0.0.weight has shape \[256, 512, 3, 3\], expected \[256, 512, 1, 1\]",
    ),
    "hidden size": (
        lambda s: s.update({"transformer.level_embed": torch.zeros(4, 128)}),
        r"the detector has 128 channels, the released ones have 256",
    ),
    "levels": (
        lambda s: s.update({"transformer.level_embed": torch.zeros(3, 256)}),
        r"the detector has 3 levels",
    ),
    "flat": (
        lambda s: s.update({"transformer.level_embed": torch.zeros(256)}),
        r"transformer.level_embed has shape \[256\]",
    ),
    "not finite": (spoil, r"NaN or infinity.*transformer.enc_output.bias"),
    "differing copy": (
        lambda s: s.update({"transformer.decoder.class_embed.3.bias": torch.zeros(91)}),
        r"transformer.decoder.class_embed.3.bias has to repeat class_embed.3.bias",
    ),
    "copy of nothing": (
        lambda s: s.pop("class_embed.3.bias"),
        r"transformer.decoder.class_embed.3.bias has to repeat class_embed.3.bias",
    ),
    "head too many": (
        lambda s: s.update({"class_embed.12.weight": torch.zeros(91, 256)}),
        r"there are 13 heads, expected 7 or, with auxiliary ones of the encoder, 12",
    ),
    "layer gap": (
        lambda s: [s.pop(k) for k in list(s) if k.startswith("transformer.encoder.layers.2.")],
        r"layers of the encoder must be numbered from 0 on, got \[0, 1, 3, 4, 5\]",
    ),
    "other ResNet": (
        lambda s: [s.pop(k) for k in list(s) if k.startswith("backbone.0.body.layer3.5.")],
        r"the ResNet has 5 blocks in layer3",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_does_not_fit_is_one_clear_message(name):
    change, message = CHANGES[name]
    with pytest.raises(ConversionError, match=message) as caught:
        detector_from_released(broken(change), variant_arguments("sparse"))
    assert "\n" not in str(caught.value)


def test_windows_of_another_size_are_refused():
    state = dict(released_variant("sparse, Swin-T"))
    key = "backbone.0.body.layers.0.blocks.0.attn.relative_position_index"
    assert key in state
    state[key] = state[key].flip(0)
    with pytest.raises(ConversionError, match="windows of 7 x 7"):
        detector_from_released(state, {})


def test_a_part_that_was_never_released_has_no_way_back():
    weights = dict(plain_weights(variant_config("sparse")))
    weights["token_scoring.head.class_embed.weight"] = torch.zeros(80, 256)
    with pytest.raises(ConversionError, match=r"1 key without a place: token_scoring\.head"):
        detector_to_released(weights, variant_config("sparse"), {}, False)


def test_a_keeping_ratio_can_be_given_and_only_where_tokens_are_scored():
    found = detector_from_released(released_variant("sparse"), {}, keep_ratio=0.4)
    assert found.config.name.endswith("rho40_50ep") and found.config.load().model.keep_ratio == 0.4
    with pytest.raises(ConversionError, match="scores no tokens"):
        detector_from_released(released_variant("top-k"), {}, keep_ratio=0.4)
