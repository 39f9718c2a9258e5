"""Every shipped config is whole, short and consistent."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from omegaconf import OmegaConf

from builders import batch
from sparse_detr.config.loading import load_config, save_config

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
RUN_FILES = sorted(
    path
    for path in CONFIGS.rglob("*.py")
    if path.relative_to(CONFIGS).parts[0] not in ("common", "models")
)
NAMES = [path.relative_to(CONFIGS).with_suffix("").as_posix() for path in RUN_FILES]


def test_the_published_settings_are_all_there() -> None:
    for backbone in ("r50", "swint"):
        for percent in (10, 20, 30, 40, 50):
            assert f"sparse_detr/sparse_detr_{backbone}_rho{percent}_50ep" in NAMES
        for variant in ("base", "box_refinement", "two_stage", "topk_queries"):
            assert f"deformable_detr/deformable_detr_{backbone}_{variant}_50ep" in NAMES
    for backbone in ("r50", "r50_dc5", "r101", "r101_dc5", "swint"):
        assert f"detr/detr_{backbone}_500ep" in NAMES
    for epochs in (50, 150, 300):
        assert f"detr/detr_r50_{epochs}ep" in NAMES
    for variant in ("objectness", "random", "no_auxiliary", "12layers", "12layers_no_auxiliary"):
        assert f"sparse_detr/sparse_detr_r50_rho10_{variant}_50ep" in NAMES


@pytest.mark.parametrize("path", RUN_FILES, ids=NAMES)
def test_a_run_file_states_in_forty_lines_what_differs(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 40


@pytest.mark.parametrize("name", NAMES)
def test_a_config_resolves_and_survives_being_saved(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    assert set(config) >= {"model", "dataloader", "optimizer", "schedule", "train"}
    resolved = OmegaConf.to_container(config, resolve=True)
    save_config(config, tmp_path / "config.yaml")
    again = load_config(tmp_path / "config.yaml")
    assert OmegaConf.to_container(again, resolve=True) == _plain(resolved)


def _plain(node: Any) -> Any:
    """The tree with callables as the dotted names that a saved config holds."""
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_plain(value) for value in node]
    if callable(node):
        return f"{node.__module__}.{node.__qualname__}"
    return node


@pytest.mark.parametrize("name", [n for n in NAMES if "rho" in n])
def test_the_name_says_the_keeping_ratio(name: str) -> None:
    config = load_config(name)
    percent = re.search(r"rho(\d+)", name)
    assert percent is not None
    assert config.model.keep_ratio == pytest.approx(int(percent[1]) / 100)
    epochs = re.search(r"_(\d+)ep$", name)
    assert epochs is not None and config.schedule.epochs == int(epochs[1])
    assert config.train.output_dir.endswith(Path(name).name)


def test_the_published_settings_of_detrs_relatives_are_all_there() -> None:
    for epochs in (50, 108, 250):
        assert f"smca/smca_r50_{epochs}ep" in NAMES
    for variant in ("fixed_scale", "isotropic", "cross_term", "head_shared"):
        assert f"smca/smca_r50_{variant}_50ep" in NAMES
    for variant in ("r50", "separate_r50", "separate_7x7_r50", "separate_7x7_r101"):
        assert f"smca/smca_multi_scale_{variant}_50ep" in NAMES
    for backbone in ("r50", "r101"):
        for epochs in (50, 108):
            assert f"smca/smca_multi_scale_reconstruction_{backbone}_{epochs}ep" in NAMES
    for backbone in ("r50", "r50_dc5"):
        assert f"pnp_detr/pnp_detr_{backbone}_500ep" in NAMES


RELATIVES = [n for n in NAMES if n.startswith(("smca/", "pnp_detr/")) and n.endswith("ep")]


@pytest.mark.parametrize("name", RELATIVES)
def test_the_name_of_a_relative_of_detr_says_epochs_backbone_and_variant(name: str) -> None:
    config = load_config(name)
    epochs = re.search(r"_(\d+)ep$", name)
    assert epochs is not None and config.schedule.epochs == int(epochs[1])
    assert config.schedule.milestones[0] < config.schedule.epochs
    assert (config.optimizer.lr, config.optimizer.lr_backbone) == (1e-4, 1e-5)
    assert config.train.clip.max_norm == 0.1 and config.optimizer.batch_rule == "none"
    assert config.train.output_dir.endswith(Path(name).name)
    model = config.model
    assert model.backbone.stages.depth == (101 if "r101" in name else 50)
    assert ("make_dilated_stages" in str(model.backbone.stages._target_)) is ("dc5" in name)
    if name.startswith("pnp_detr"):
        assert model.token_selection.num_pooled == (100 if "dc5" in name else 30)
        return
    convolves = "ConvolutionEncoder" in str(model.encoder._target_)
    assert convolves is ("multi_scale" in name and "reconstruction" not in name)
    assert model.num_levels == len(model.decoder.level_factors)
    assert (convolves and model.encoder.separate_crossings) is ("separate" in name)


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("detr/") and "ep" in n])
def test_the_name_of_a_detr_says_epochs_backbone_and_stride(name: str) -> None:
    config = load_config(name)
    epochs = re.search(r"_(\d+)ep$", name)
    assert epochs is not None and config.schedule.epochs == int(epochs[1])
    assert (config.optimizer.lr, config.optimizer.lr_backbone) == (1e-4, 1e-5)
    assert config.train.clip.max_norm == 0.1 and config.optimizer.weight_decay == 1e-4
    assert config.train.output_dir.endswith(Path(name).name)
    if "swint" in name:
        return
    stages = config.model.backbone.stages
    assert stages.depth == (101 if "r101" in name else 50)
    assert ("make_dilated_stages" in str(stages._target_)) is ("dc5" in name)


@pytest.mark.parametrize("name", [n for n in NAMES if "swint" in n])
def test_swin_configs_build_swin(name: str) -> None:
    config = load_config(name)
    assert "SwinBackbone" in str(config.model.backbone._target_)
    single = config.model.num_levels == 1
    expected = ["stage3"] if single else ["stage1", "stage2", "stage3"]
    assert list(config.model.feature_projection.in_channels) == expected


@pytest.mark.parametrize("name", [n for n in NAMES if "rho" in n and "r50" in n])
def test_the_name_says_what_tokens_are_selected_by_and_what_is_left_out(name: str) -> None:
    model = load_config(name).model
    target = str(model.token_scoring._target_)
    wanted = {"objectness": "ObjectnessScoring", "random": "RandomScoring"}
    expected = [kind for word, kind in wanted.items() if word in name] or ["ScoringNetwork"]
    assert expected[0] in target
    loss = "TokenScoringLoss" if expected == ["ScoringNetwork"] else "CorrLog"
    assert loss in str(model.criterion.token_scoring._target_)
    assert model.heads.encoder_auxiliary is ("no_auxiliary" not in name)
    assert model.encoder.num_layers == (12 if "12layers" in name else 6)
    assert ("DenseEncoder" in str(model.encoder._target_)) is ("dense_attention" in name)


SMALL = sorted(path.stem for path in (CONFIGS / "models").glob("small_*.py"))


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_a_small_model_trains_a_step_and_predicts(name: str, released: bool) -> None:
    overrides = ["model.num_classes=5", f"model.released_behaviour={released}"]
    model = instantiate(load_config(f"models/{name}", overrides).model).train()
    inputs = batch([(96, 128), (64, 160)], [2, 3])
    sum(model(inputs).values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    with torch.no_grad():
        found = [item["instances"] for item in model.eval()(inputs)]
    expected = getattr(model.postprocess, "max_detections", 100)
    assert all(len(instances) == expected for instances in found)


def test_one_key_sets_every_switch_of_the_released_behaviour() -> None:
    name = "sparse_detr/sparse_detr_swint_rho10_50ep"
    default = OmegaConf.to_container(load_config(name), resolve=True)
    released = OmegaConf.to_container(
        load_config(name, ["model.released_behaviour=true"]), resolve=True
    )
    changed = sorted(_differences(default["model"], released["model"]))
    assert changed == [
        "backbone.drop_path_in_frozen_stages",
        "criterion.supervise_all_rows",
        "criterion.token_scoring.include_padding",
        "criterion.token_scoring.surplus_counts",
        "pad_before_backbone",
        "position_embedding.encode_padding",
        "postprocess.keep_boxes_outside",
        "query_selection.any_token_competes",
        "released_behaviour",
        "token_scoring.average_over_padding",
        "token_selection.edge_tokens_compete",
        "token_selection.padding_competes",
    ]


def _differences(a: Any, b: Any, prefix: str = "") -> list[str]:
    if isinstance(a, dict):
        return [d for key in a for d in _differences(a[key], b[key], f"{prefix}.{key}")]
    return [] if a == b else [prefix.lstrip(".")]


def test_the_quickstart_has_one_gate_and_it_is_on_the_ap_of_boxes() -> None:
    (gate,) = load_config("quickstart").train.expected_results
    assert list(gate[:2]) == ["bbox", "AP"]
    assert len(gate) in (3, 4) and all(bound > 0 for bound in gate[2:])


def test_one_key_sets_the_class_count_everywhere() -> None:
    config = load_config("quickstart", ["model.num_classes=7"])
    model = instantiate(config.model)
    assert model.num_classes == model.heads.num_classes == 7
    assert all(stage.class_embed.out_features == 7 for stage in model.heads.stages)
    assert config.dataloader.train.mapper.num_classes == 7
    model.train()
    losses = model(batch([(64, 64)], [2], num_classes=7))
    assert all(value.isfinite() for value in losses.values())
