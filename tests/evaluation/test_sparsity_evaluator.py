"""The evaluator of token selection: any order, any number of processes, beside COCOEvaluator."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from sparsity_workers import SIZES, evaluate_share, evaluated

from builders import batch, small_detector
from sparse_detr.config.loading import load_config, save_config
from sparse_detr.engine.evaluation import evaluate_model
from sparse_detr.engine.launching import ProcessPlan, launch
from sparse_detr.engine.program import run
from sparse_detr.evaluation import SparsityEvaluator, WithTokenUse
from sparse_detr.evaluation.objects import objects_by_image, tokens_on_objects
from sparse_detr.evaluation.selection_file import load_selections

SMALL = [
    "model.hidden_dim=32",
    "model.feature_projection.num_groups=8",
    "model.encoder.num_layers=2",
    "model.encoder.feedforward_dim=32",
    "model.decoder.num_layers=2",
    "model.query_selection.num_queries=12",
    "data.image_size=64",
    "data.train_images=2",
    "data.val_images=5",
    "dataloader.test.batch_size=2",
    "train.device=cpu",
]


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir()
    together.mkdir()
    expected = evaluated(str(alone), slice(None), False)
    assert launch(evaluate_share, ProcessPlan(per_machine=2), (str(together),)) == 0
    assert _same(json.loads((together / "results_0.json").read_text()), expected)
    assert json.loads((together / "results_1.json").read_text()) == {}
    one, other = (load_selections(folder / "kept_tokens.npz") for folder in (alone, together))
    assert list(one) == list(other) == list(range(len(SIZES)))
    assert all(np.array_equal(one[image].kept, other[image].kept) for image in one)


def _same(one: dict, other: dict) -> bool:
    figures, expected = one["sparsity"], other["sparsity"]
    assert figures.keys() == expected.keys()
    return all(
        figures[name] == value or (math.isnan(figures[name]) and math.isnan(value))
        for name, value in expected.items()
    )


def test_the_order_of_the_images_does_not_matter(tmp_path: Path) -> None:
    forwards = evaluated(str(tmp_path), slice(None), False)
    assert _same(evaluated(str(tmp_path), slice(None, None, -1), False), forwards)


def test_figures_equal_sums_over_everything_kept(tmp_path: Path) -> None:
    found = evaluated(str(tmp_path), slice(None), False)["sparsity"]
    model = WithTokenUse(small_detector().double())
    corrs, counts, on_objects = [], [], []
    objects = objects_by_image("sparsity_workers_test")
    for item in batch(SIZES):
        use = model([item])[0]["token_use"]
        kept, attention = use.kept[0].tolist(), use.attention.tolist()
        hit = sum(a for a, k in zip(attention, kept, strict=True) if k)
        corrs.append(hit / sum(attention))
        counts.append(sum(kept))
        inside = tokens_on_objects(
            objects[item["image_id"]], use.level_sizes, (item["height"], item["width"])
        )[0]
        on_objects.append(sum(kept[i] for i in np.flatnonzero(inside)) / inside.sum())
    assert found["corr"] == pytest.approx(sum(corrs) / len(corrs))
    assert found["kept_tokens"] == pytest.approx(sum(counts) / len(counts))
    assert found["object_tokens_kept"] == pytest.approx(np.mean(on_objects))
    assert found["object_tokens_kept_small"] == found["object_tokens_kept"]
    assert found["objects_with_kept_tokens"] == pytest.approx(np.mean(np.array(on_objects) > 0))


def test_corr_and_objects_are_one_where_every_token_is_kept(tmp_path: Path) -> None:
    evaluated(str(tmp_path), slice(None), False)  # registers the objects
    evaluator = SparsityEvaluator("sparsity_workers_test")
    evaluator.reset()
    inputs = batch(SIZES)
    evaluator.process(inputs, WithTokenUse(small_detector())(inputs, 1.0))
    found = evaluator.evaluate()["sparsity"]
    for name in ("corr", "keep_ratio", "objects_with_kept_tokens", "object_tokens_kept"):
        assert found[name] == 1
    assert all(found[f"corr_level{level}"] == 1 for level in range(4))


def test_a_dense_model_gives_attention_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluated(str(tmp_path), slice(None), False)
    evaluator = SparsityEvaluator(
        "sparsity_workers_test", output_dir=tmp_path / "dense", store_selections=True
    )
    evaluator.reset()
    inputs = batch(SIZES[:2])
    evaluator.process(inputs, WithTokenUse(small_detector("deformable_detr"))(inputs))
    with caplog.at_level(logging.WARNING):
        found = evaluator.evaluate()["sparsity"]
    assert set(found) == {f"attention_level{level}" for level in range(4)}
    assert sum(found.values()) == pytest.approx(1)
    assert "selects no tokens" in caplog.text and not (tmp_path / "dense").exists()


def test_outputs_of_a_bare_model_are_refused_with_the_fix(tmp_path: Path) -> None:
    evaluated(str(tmp_path), slice(None), False)
    evaluator = SparsityEvaluator("sparsity_workers_test")
    inputs = batch([(64, 64)])
    with torch.no_grad(), pytest.raises(ValueError, match="WithTokenUse"):
        evaluator.process(inputs, small_detector()(inputs))


def test_no_images_give_no_results(caplog: pytest.LogCaptureFixture) -> None:
    evaluator = SparsityEvaluator("sparsity_workers_test")
    evaluator.reset()
    assert evaluator.evaluate() == {}
    assert "received no images" in caplog.text


def test_storing_needs_a_folder() -> None:
    with pytest.raises(ValueError, match="output_dir must be given"):
        SparsityEvaluator("any", store_selections=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a training run leaves it: config and a checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    overrides = [*SMALL, f"train.output_dir={folder}", f"data.root={folder / 'shapes'}"]
    config = load_config("quickstart", [*overrides, "train.expected_results=[]"])
    save_config(config, folder / "config.yaml")
    config.model.num_classes = 6
    torch.save({"model": instantiate(config.model).state_dict()}, folder / "model_0000001.pth")
    return folder


def results(folder: Path, *overrides: str) -> dict[str, Any]:
    assert run(["--config-file", str(folder / "config.yaml"), "--eval-only", *overrides]) == 0
    return json.loads((folder / "eval_results.json").read_text())["results"]


def test_evaluation_of_a_run_has_both_tasks_and_stores_what_it_is_asked_to(trained: Path) -> None:
    found = results(trained, "dataloader.sparsity_evaluator.store_selections=true")
    assert "AP" in found["bbox"] and 0 < found["sparsity"]["corr"] < 1
    assert found["sparsity"]["keep_ratio"] == pytest.approx(0.3, abs=0.02)
    stored = load_selections(trained / "inference" / "kept_tokens.npz")
    assert len(stored) == 5 and all(len(entry.objects.areas) for entry in stored.values())
    counts = [int(entry.kept.sum()) for entry in stored.values()]
    assert np.mean(counts) == pytest.approx(found["sparsity"]["kept_tokens"])


def test_evaluation_with_every_token_kept_has_corr_one(trained: Path) -> None:
    assert results(trained, "model.keep_ratio=1.0")["sparsity"]["corr"] == 1


def test_it_can_be_left_out(trained: Path) -> None:
    assert set(results(trained, "dataloader.sparsity_evaluator=null")) == {"bbox"}


def test_a_cut_data_set_is_evaluated_on_the_images_that_are_left(trained: Path) -> None:
    found = results(trained, "train.overfit_images=1")
    assert found["sparsity"]["kept_tokens"] > 0 and "AP" in found["bbox"]


def test_a_model_without_tokens_is_evaluated_without_it(caplog: pytest.LogCaptureFixture) -> None:
    class Wanting:
        wants_token_use = True

    class Plain:
        def reset(self) -> None:
            pass

        def process(self, inputs: Any, outputs: Any) -> None:
            assert "token_use" not in outputs[0]

        def evaluate(self) -> dict[str, dict[str, float]]:
            return {"bbox": {"AP": 1.0}}

    class Foreign(torch.nn.Module):
        def forward(self, inputs: Any) -> list[dict[str, Any]]:
            return [{} for _ in inputs]

    with caplog.at_level(logging.INFO):
        found = evaluate_model(Foreign(), [[{}], [{}]], [Plain(), Wanting()])
    assert found == {"bbox": {"AP": 1.0}}
    assert "Foreign has no tokens" in caplog.text
