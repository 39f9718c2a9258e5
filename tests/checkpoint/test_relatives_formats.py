"""Files of DETR's relatives, and of DETR beside them: what they are told by, and both ways."""

from argparse import Namespace

import pytest
import torch
from detectron2.config import instantiate

from sparse_detr.checkpoint.class_rows import (
    CLASSES_80,
    CLASSES_91,
    CLASSES_KEPT,
    coco_category_ids,
)
from sparse_detr.checkpoint.conversion_errors import ConversionError
from sparse_detr.checkpoint.detr_formats import DETR_FILES
from sparse_detr.checkpoint.pnp_detr_formats import PNP_DETR_FORMATS
from sparse_detr.checkpoint.released_formats import format_for, format_of
from sparse_detr.checkpoint.smca_formats import (
    SMCA_FILES,
    SMCA_MULTI_SCALE_FILES,
    SMCA_MULTI_SCALE_SEPARATE_FILES,
)
from sparse_detr.checkpoint.table_conversion import from_table, to_table
from sparse_detr.config.loading import load_config

BIAS = "heads.stages.0.class_embed.bias"
PNP_DETR_FILES, ONE_SCORE_LAYER, TWO_KEY_LAYERS, BOTH = PNP_DETR_FORMATS
# Classes of the released code; a row for "no object" comes on top in all but SMCA.
RELEASED_CLASSES = {"smca": 92, "pnp_detr": 91, "detr": 91}
DETECTORS = [
    ("smca/smca_r50_50ep", (), SMCA_FILES),
    ("smca/smca_r50_fixed_scale_50ep", (), SMCA_FILES),
    ("smca/smca_r50_isotropic_50ep", (), SMCA_FILES),
    ("smca/smca_r50_cross_term_50ep", (), SMCA_FILES),
    ("smca/smca_multi_scale_r50_50ep", (), SMCA_MULTI_SCALE_FILES),
    ("smca/smca_multi_scale_r50_50ep", ("model.encoder.pointwise=False",), SMCA_MULTI_SCALE_FILES),
    ("smca/smca_multi_scale_separate_r50_50ep", (), SMCA_MULTI_SCALE_SEPARATE_FILES),
    ("smca/smca_multi_scale_separate_7x7_r50_50ep", (), SMCA_MULTI_SCALE_SEPARATE_FILES),
    ("smca/smca_multi_scale_separate_7x7_r101_50ep", (), SMCA_MULTI_SCALE_SEPARATE_FILES),
    ("pnp_detr/pnp_detr_r50_500ep", (), PNP_DETR_FILES),
    ("pnp_detr/pnp_detr_r50_500ep", ("model.token_scoring.score_dim=16",), PNP_DETR_FILES),
    ("pnp_detr/pnp_detr_r50_500ep", ("model.token_scoring.score_dim=null",), ONE_SCORE_LAYER),
    ("pnp_detr/pnp_detr_r50_500ep", ("model.token_selection.key_layers=2",), TWO_KEY_LAYERS),
    (
        "pnp_detr/pnp_detr_r50_500ep",
        ("model.token_selection.key_layers=2", "model.token_scoring.score_dim=null"),
        BOTH,
    ),
]


def released_file(config, overrides, target):
    """A file with a row for each category id, every tensor with a value of its own."""
    classes = RELEASED_CLASSES[config.split("/")[0]]
    model = load_config(config, [*overrides, f"model.num_classes={classes}"]).model
    with torch.device("meta"):
        state = instantiate(model).state_dict()
    weights = {
        name: torch.full(tensor.shape, float(index)).to(tensor.dtype)
        for index, (name, tensor) in enumerate(state.items())
    }
    weights[BIAS] = torch.arange(92.0)
    return to_table(target, weights, None).weights


@pytest.mark.parametrize(("config", "overrides", "target"), DETECTORS)
def test_a_file_is_told_from_others_and_comes_back_as_it_was(config, overrides, target):
    released = released_file(config, overrides, target)
    assert format_of(released) is target

    found = from_table(target, released, {}, CLASSES_KEPT)

    assert found.config.name == config
    assert set(overrides) <= set(found.config.overrides)
    assert "model.released_behaviour=True" in found.config.overrides
    assert format_for(found.weights) is target
    back = to_table(target, found.weights, None).weights
    assert back.keys() == released.keys()
    assert all(torch.equal(back[key], released[key]) for key in released)


@pytest.mark.parametrize(
    ("name", "config", "target"),
    [
        ("smca_ss_type3", "smca/smca_r50_50ep", SMCA_FILES),
        ("smca_ms_44dot4_enc6", "smca/smca_multi_scale_r50_50ep", SMCA_MULTI_SCALE_FILES),
        (
            "smca_ms_main_enc5",
            "smca/smca_multi_scale_separate_r50_50ep",
            SMCA_MULTI_SCALE_SEPARATE_FILES,
        ),
        ("pnp_r50", "pnp_detr/pnp_detr_r50_500ep", PNP_DETR_FILES),
        ("pnp_r50_dc5", "pnp_detr/pnp_detr_r50_dc5_500ep", PNP_DETR_FILES),
        ("detr_r50", "detr/detr_r50_500ep", DETR_FILES),
    ],
)
def test_keys_and_shapes_are_those_of_the_code(name, config, target, key_list):
    lines = key_list(f"{name}.txt").read_text().splitlines()
    expected = dict(line.split("\t") for line in lines)

    released = released_file(config, (), target)

    assert {key: str(tuple(tensor.shape)) for key, tensor in released.items()} == expected


@pytest.fixture(scope="module")
def smca():
    return released_file("smca/smca_r50_50ep", (), SMCA_FILES)


@pytest.fixture(scope="module")
def pnp_detr():
    return released_file("pnp_detr/pnp_detr_r50_500ep", (), PNP_DETR_FILES)


def test_the_classes_of_smca_are_sorted_and_its_spare_logit_is_set_aside(smca):
    found = from_table(SMCA_FILES, smca, {})
    assert found.weights[BIAS].tolist() == list(coco_category_ids())
    others = sorted(set(range(92)) - set(coco_category_ids()))
    assert sorted(found.unused_rows[BIAS].tolist()) == others
    assert not any("num_classes" in change for change in found.config.overrides)


def test_all_logits_of_smca_but_the_spare_one_can_be_kept(smca):
    found = from_table(SMCA_FILES, smca, {}, CLASSES_91)
    rows = found.weights[BIAS].tolist()
    assert rows[:80] == list(coco_category_ids())
    assert sorted(rows) == list(range(91))
    assert found.unused_rows[BIAS].tolist() == [91]
    assert found.config.load().model.postprocess.detected_classes == 80


@pytest.mark.parametrize("classes", [CLASSES_80, CLASSES_91])
@pytest.mark.parametrize(
    ("config", "target"),
    [
        ("smca/smca_r50_50ep", SMCA_FILES),
        ("pnp_detr/pnp_detr_r50_500ep", PNP_DETR_FILES),
        ("detr/detr_r50_500ep", DETR_FILES),
    ],
)
def test_sorted_classes_come_back_in_the_order_of_category_ids(config, target, classes):
    released = released_file(config, (), target)
    found = from_table(target, released, {}, classes)
    back = to_table(target, found.weights, found.config, found.unused_rows, True).weights
    assert back.keys() == released.keys()
    assert all(torch.equal(back[key], released[key]) for key in released)


@pytest.mark.parametrize("classes", [CLASSES_80, CLASSES_91])
def test_logits_that_were_not_kept_come_back_as_some_that_never_win(smca, classes):
    found = from_table(SMCA_FILES, smca, {}, classes)
    back = to_table(SMCA_FILES, found.weights, found.config, {}, True).weights
    ids = list(coco_category_ids())
    assert torch.equal(back["class_embed.bias"][ids], smca["class_embed.bias"][ids])
    assert back["class_embed.bias"].shape == (92,)
    assert back["class_embed.bias"][91] < -4
    assert not back["class_embed.weight"][91].any()


def test_no_object_of_pnp_detr_stays_last(pnp_detr):
    found = from_table(PNP_DETR_FILES, pnp_detr, {})
    assert found.weights[BIAS].tolist() == [*coco_category_ids(), 91]


def test_what_weights_do_not_tell_of_pnp_detr_is_read_from_the_arguments_or_remarked(pnp_detr):
    silent = from_table(PNP_DETR_FILES, pnp_detr, {})
    assert silent.config.name == "pnp_detr/pnp_detr_r50_500ep"
    assert len([r for r in silent.report.remarks if "the file does not say" in r]) == 2

    pooled = "transformer.sampler.k_proj."
    more = {f"{pooled}weight": torch.ones(100, 256), f"{pooled}bias": torch.ones(100)}
    arguments = Namespace(dilation=True, pos_embed_kproj=True)
    told = from_table(PNP_DETR_FILES, {**pnp_detr, **more}, {"args": arguments})
    assert told.config.name == "pnp_detr/pnp_detr_r50_dc5_500ep"
    selection = told.config.load().model.token_selection
    assert (selection.num_pooled, selection.position_in_keys) == (100, True)
    assert not any("the file does not say" in remark for remark in told.report.remarks)


def test_detr_and_its_relatives_are_not_mistaken_for_each_other(smca, pnp_detr):
    plain = {
        key: tensor
        for key, tensor in pnp_detr.items()
        if not key.startswith("transformer.sampler.")
    }
    assert format_of(plain) is DETR_FILES
    assert format_of(smca) is SMCA_FILES
    assert format_of(pnp_detr) is PNP_DETR_FILES


def test_priors_of_no_known_form_are_refused(smca):
    strange = {**smca, "transformer.decoder.layers.0.point3.weight": torch.ones(40, 256)}
    with pytest.raises(ConversionError, match="the widths of its priors are of no known form"):
        from_table(SMCA_FILES, strange, {})


def test_priors_shared_by_the_heads_have_no_released_form():
    model = load_config("smca/smca_r50_head_shared_50ep").model
    with torch.device("meta"):
        state = instantiate(model).state_dict()
    weights = {name: torch.zeros(tensor.shape) for name, tensor in state.items()}
    with pytest.raises(ConversionError, match="its priors are not those of 8 heads"):
        to_table(SMCA_FILES, weights, None)
