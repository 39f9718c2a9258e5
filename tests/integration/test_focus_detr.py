"""Focus-DETR as a whole: size, switches, controls, odd images, and a run from start to end."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from omegaconf import OmegaConf

from builders import batch, small_detector
from sparse_detr.config.loading import load_config, save_config
from sparse_detr.engine.program import run

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "focus_detr"
NAMES = sorted(path.stem for path in CONFIGS.glob("*ep.py"))


@pytest.mark.parametrize("system", ["focus_detr", "dino"])
def test_the_model_has_the_released_number_of_parameters(system: str) -> None:
    with torch.device("meta"):
        model = instantiate(load_config(f"models/{system}").model)
    count = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    # The stem's convolution is frozen: 9408 weights.
    assert count - trainable == 9_408
    dino, objects = 47_650_316, 6 * (263_168 + 512)
    assert count == (dino if system == "dino" else dino + objects + 107_521 + 3)
    millions = {"focus_detr": (49.340, 49.331), "dino": (47.650, 47.641)}[system]
    assert (round(count / 1e6, 3), round(trainable / 1e6, 3)) == millions


def test_the_published_settings_are_all_there() -> None:
    for epochs in (12, 24, 36):
        for backbone in ("r50", "r101", "swint"):
            assert f"focus_detr_{backbone}_{epochs}ep" in NAMES
    assert {"focus_detr_swinb_384_36ep", "focus_detr_swinl_384_36ep"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_name_says_epochs_and_backbone(name: str) -> None:
    config = load_config(f"focus_detr/{name}")
    epochs = re.search(r"_(\d+)ep$", name)
    assert epochs is not None and config.schedule.epochs == int(epochs[1])
    assert max(config.schedule.milestones) < config.schedule.epochs
    assert config.train.output_dir == f"output/{name}"
    target = str(config.model.backbone._target_)
    assert ("SwinBackbone" in target) is ("swin" in name)
    if "_r" in name:
        depth = re.search(r"_r(\d+)_", name)
        assert depth is not None and config.model.backbone.stages.depth == int(depth[1])
    assert str(config.model.keep_ratio) == "cascade:0.5x1,0.8,0.6,0.6,0.4,0.2"


def test_one_key_sets_every_switch_of_the_released_behaviour() -> None:
    trees = [
        OmegaConf.to_container(load_config("models/focus_detr", overrides).model, resolve=True)
        for overrides in ([], ["model.released_behaviour=true"])
    ]
    for path in (
        "criterion.token_scoring.include_padding",
        "encoder.surplus_attends",
        "token_scoring.average_over_padding",
        "token_selection.counts_from_largest",
        "token_selection.edge_tokens_compete",
        "token_selection.padding_competes",
    ):
        values = []
        for tree in trees:
            node = tree
            for key in path.split("."):
                node = node[key]
            values.append(node)
        assert values == [False, True], path


@pytest.mark.parametrize("system", ["focus_detr", "focus_deformable_detr"])
@pytest.mark.parametrize(
    ("ratio", "first", "tenths"),
    [
        ("cascade:0.5x1,0.6,0.4", 0.5, [10, 6, 4]),
        ("cascade:0.2x1,1,0.5", 0.2, [10, 10, 5]),
        (0.3, 0.3, [10]),
    ],
)
def test_the_layers_keep_what_is_asked_for_per_call(
    system: str, ratio: float | str, first: float, tenths: list[int]
) -> None:
    model = small_detector(system)
    tokens = model.extract_tokens(model.preprocess(batch([(96, 128)])))
    with torch.no_grad():
        selection = model.detect(tokens, ratio).selection
        by_layer = model.detect(tokens, "layers:0.5,0.2,0.1").selection
    kept = int(tokens.valid_counts[0] * first) + 1
    assert [layer.kept_counts[0] for layer in selection.layers] == [kept * t // 10 for t in tenths]
    expected = [int(tokens.valid_counts[0] * share) + 1 for share in (0.5, 0.2, 0.1)]
    assert [layer.kept_counts[0] for layer in by_layer.layers] == expected


def test_tokens_that_no_layer_keeps_leave_the_encoder_as_they_came() -> None:
    model = small_detector("focus_detr")
    tokens = model.extract_tokens(model.preprocess(batch([(96, 128), (64, 160)])))
    with torch.no_grad():
        selection = model.detect(tokens).selection
        memory = model.encoder(tokens, selection, 0, model.heads).memory
    updated = selection.union(memory.shape[1])
    assert torch.equal(updated, ~(memory == tokens.features).all(-1))


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("objects", [300, 6])
def test_small_images_have_fewer_tokens_than_objects(released: bool, objects: int) -> None:
    model = small_detector(
        "focus_detr",
        released_behaviour=released,
        encoder__num_objects=objects,
        feature_projection__num_groups=8,
    ).double()
    inputs = batch([(24, 33), (96, 128)], [1, 2])
    with torch.no_grad():
        for found in model(inputs) + model(inputs[:1]):
            assert found["instances"].scores.isfinite().all()
    losses = model.train()(inputs)
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("system", ["focus_detr", "focus_deformable_detr"])
@pytest.mark.parametrize("released", [False, True])
def test_a_batch_without_objects_trains(system: str, released: bool) -> None:
    model = small_detector(system, released_behaviour=released).train()
    losses = model(batch([(96, 128), (64, 160)], [0, 0]))
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["loss_foreground"] > 0
    for part in (model.token_scoring, model.encoder):
        assert all(p.grad is not None and p.grad.isfinite().all() for p in part.parameters())


def test_the_scores_learn_from_the_foreground_loss_alone() -> None:
    model = small_detector("focus_detr").train()
    losses = model(batch([(96, 128)], [3]))
    others = sum(loss for name, loss in losses.items() if name != "loss_foreground")
    gradients = torch.autograd.grad(
        others, list(model.token_scoring.parameters()), retain_graph=True, allow_unused=True
    )
    assert all(gradient is None for gradient in gradients)
    (alpha,) = torch.autograd.grad(losses["loss_foreground"], [model.token_scoring.alpha])
    assert (alpha != 0).any()


SMALL = (
    "data.train_images=16",
    "data.val_images=4",
    "data.image_size=64",
    "model.hidden_dim=64",
    "model.query_selection.num_queries=20",
    "train.log_period=1",
    "train.expected_results=[]",
    "train.eval_period_epochs=0",
    "train.checkpointer.period=2",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    """Gives a function that runs the program on drawn shapes, and the output folder."""
    folder = tmp_path_factory.mktemp("focus")
    config = load_config("quickstart")
    config.model = load_config("models/small_focus_detr").model
    config.model.num_classes = "auto"
    save_config(config, folder / "config.yaml")

    def train(name: str, *overrides: str) -> Path:
        output = folder / name
        arguments = ["--config-file", str(folder / "config.yaml"), *SMALL, *overrides]
        places = [f"data.root={folder / 'shapes'}", f"train.output_dir={output}"]
        assert run([*arguments[:2], *arguments[2:], *places]) == 0
        return output

    return train


def test_it_trains_evaluates_and_resumes_to_the_weights_of_an_uninterrupted_run(trained) -> None:
    whole = trained("whole", "train.max_iter=4")
    trained("parts", "train.max_iter=2")
    parts = trained("parts", "train.max_iter=4", "--resume")
    states = [
        torch.load(folder / "model_final.pth", weights_only=True)["model"]
        for folder in (whole, parts)
    ]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    logged = json.loads((whole / "metrics.json").read_text().splitlines()[0])
    # 64 x 64 pixels: 85 tokens; int(85 * 0.5) + 1 = 43, of which 43, 25 and 17 are kept.
    assert [logged[f"kept_tokens_layer{layer}"] for layer in range(3)] == [43, 25, 17]
    assert logged["loss_foreground"] > 0 and 0 <= logged["foreground_share"] < 1
    assert "AP" in json.loads((whole / "results.json").read_text())["results"]["bbox"]


@pytest.mark.parametrize(
    "overrides",
    [
        ("train.amp.enabled=true",),
        ("model.encoder.checkpoint_activations=true", "model.decoder.checkpoint_activations=true"),
        (
            "model.encoder.update_values=true",
            "model.criterion.token_scoring.overlapping_levels=true",
        ),
    ],
    ids=["amp", "checkpointed", "as the paper says"],
)
def test_every_way_of_training_runs_and_evaluates(trained, overrides: tuple[str, ...]) -> None:
    output = trained(re.sub(r"\W", "_", overrides[0]), "train.max_iter=1", *overrides)
    assert "AP" in json.loads((output / "results.json").read_text())["results"]["bbox"]
