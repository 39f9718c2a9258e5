"""The registered name works from Detectron2's yaml configs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model

from sparse_detr.config.loading import load_config
from sparse_detr.config.overrides import ConfigError
from sparse_detr.config.yacs import DEFAULT_CONFIG, add_sparse_detr_config
from sparse_detr.meta_arch import TransformerDetector

SMALL = [
    "model.num_classes=7",
    "model.hidden_dim=32",
    "model.feature_projection.num_groups=8",
    "model.encoder.num_layers=1",
    "model.encoder.feedforward_dim=32",
    "model.decoder.num_layers=1",
    "model.query_selection.num_queries=12",
]


def small_cfg(**entries: Any) -> CfgNode:
    cfg = get_cfg()
    add_sparse_detr_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.SPARSE_DETR.CONFIG = "quickstart"
    cfg.MODEL.SPARSE_DETR.OVERRIDES = SMALL
    for name, value in entries.items():
        setattr(cfg.MODEL.SPARSE_DETR, name, value)
    return cfg


def test_build_model_gives_the_detector_of_the_named_config_with_its_overrides() -> None:
    model = build_model(small_cfg())
    assert isinstance(model, TransformerDetector)
    assert model.num_classes == 7
    assert model.keep_ratio == load_config("quickstart").model.keep_ratio


def test_keep_ratio_of_the_yaml_config_replaces_that_of_the_lazy_config() -> None:
    assert build_model(small_cfg(KEEP_RATIO=0.75)).keep_ratio == 0.75


def test_other_forms_of_keep_ratio_pass_through_the_yaml_config() -> None:
    cfg = small_cfg()
    cfg.merge_from_list(["MODEL.SPARSE_DETR.KEEP_RATIO", "levels:0.1,0.3,0.5,1"])
    assert str(build_model(cfg).keep_ratio) == "levels:0.1,0.3,0.5,1"


def test_entries_can_be_set_by_a_yaml_file_and_by_a_list(tmp_path: Path) -> None:
    file = tmp_path / "detector.yaml"
    file.write_text(
        "MODEL:\n  META_ARCHITECTURE: SparseDETR\n  SPARSE_DETR:\n    CONFIG: quickstart\n"
        f"    KEEP_RATIO: 0.2\n    OVERRIDES: {SMALL}\n"
    )
    cfg = get_cfg()
    add_sparse_detr_config(cfg)
    cfg.merge_from_file(str(file))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.SPARSE_DETR.KEEP_RATIO", 0.4])
    assert build_model(cfg).keep_ratio == 0.4


def test_the_default_config_exists() -> None:
    assert load_config(DEFAULT_CONFIG).model.keep_ratio == 0.1


def test_default_predictor_detects_in_the_pixels_of_its_image_and_loads_weights(
    tmp_path: Path,
) -> None:
    cfg = small_cfg()
    model = build_model(cfg).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    weights = tmp_path / "model.pth"
    torch.save({"model": model.state_dict()}, weights)
    cfg.MODEL.WEIGHTS = str(weights)
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 64, 128
    image_bgr = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)

    instances = DefaultPredictor(cfg)(image_bgr)["instances"]

    assert instances.image_size == (64, 96)
    rgb = torch.from_numpy(image_bgr[:, :, ::-1].copy()).permute(2, 0, 1)
    with torch.no_grad():
        expected = model([{"image": rgb, "height": 64, "width": 96}])[0]["instances"]
    assert torch.equal(instances.pred_classes, expected.pred_classes)
    assert torch.allclose(instances.scores, expected.scores)
    assert torch.allclose(instances.pred_boxes.tensor, expected.pred_boxes.tensor, atol=1e-4)


def test_a_config_that_was_not_prepared_is_refused_with_the_fix() -> None:
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "SparseDETR"
    with pytest.raises(ValueError, match="add_sparse_detr_config"):
        build_model(cfg)


def test_the_wrong_channel_order_is_refused() -> None:
    cfg = small_cfg()
    cfg.INPUT.FORMAT = "BGR"
    with pytest.raises(ValueError, match=r"INPUT\.FORMAT is 'BGR'.*set INPUT\.FORMAT to 'RGB'"):
        build_model(cfg)


def test_a_wrong_override_is_refused_as_on_the_command_line() -> None:
    with pytest.raises(
        ConfigError, match=r"model\.num_clases.*nearest key is 'model\.num_classes'"
    ):
        build_model(small_cfg(OVERRIDES=["model.num_clases=3"]))


@pytest.mark.parametrize("ratio", [0.0, 1.5])
def test_a_keep_ratio_outside_its_range_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="keep_ratio"):
        build_model(small_cfg(KEEP_RATIO=ratio))
