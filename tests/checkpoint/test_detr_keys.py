"""DETR's released names and the weights that they stand for here."""

import pytest
import torch
from detectron2.config import instantiate

from builders import small_detector
from sparse_detr.backbone.resnet_keys import detectron2_to_released, released_to_detectron2
from sparse_detr.checkpoint.detr_keys import DETR
from sparse_detr.config.loading import load_config


def test_every_released_weight_has_its_place_and_shape_and_none_is_left(key_list):
    lines = key_list("detr_r50.txt").read_text().splitlines()
    released = dict(line.split("\t") for line in lines if "\t" in line)
    config = load_config("detr/detr_r50_500ep", ["model.num_classes=91"])
    with torch.device("meta"):
        model = instantiate(config.model)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {}
    for key, shape in released.items():
        inside = released_to_detectron2(key)
        name = DETR.here(key) if inside is None else f"backbone.{inside}"
        assert name is not None, key
        found[name] = tuple(int(n) for n in shape.strip("()").split(",") if n.strip())
        back = DETR.released(name) if inside is None else detectron2_to_released(inside)
        assert back == key
    assert found == expected


def test_norms_keep_the_number_of_what_they_follow():
    # DETR numbers self-attention, cross-attention, network; here cross-attention comes first.
    assert DETR.here("transformer.decoder.layers.3.norm1.bias") == "decoder.layers.3.norm2.bias"
    assert DETR.here("transformer.decoder.layers.3.norm2.bias") == "decoder.layers.3.norm1.bias"
    assert DETR.here("transformer.decoder.layers.3.norm3.bias") == "decoder.layers.3.norm3.bias"
    assert DETR.here("transformer.encoder.layers.3.norm1.bias") == "encoder.layers.3.norm1.bias"


@pytest.mark.parametrize("system", ["detr", "detr_pre_norm_learned"])
def test_every_parameter_outside_the_backbone_has_a_released_name_of_its_own(system):
    names = [n for n, _ in small_detector(system).named_parameters() if "backbone." not in n]
    keys = [DETR.released(name) for name in names]
    assert None not in keys and len(set(keys)) == len(keys)
    assert [DETR.here(key) for key in keys] == names


@pytest.mark.parametrize(
    "key", ["transformer.level_embed", "epoch", "backbone.0.body.conv1.weight"]
)
def test_names_of_other_detectors_have_no_place(key):
    assert DETR.here(key) is None
