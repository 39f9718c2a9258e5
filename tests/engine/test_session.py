"""A whole run on the toy detector: what it leaves behind, and which input stops it before anything
is written."""

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import toy
from detectron2.config import LazyCall
from toy import final_state, logged, run_toy, same, toy_config

from sparse_detr.config.loading import load_config
from sparse_detr.data.mapper import BadSampleError
from sparse_detr.engine import session
from sparse_detr.engine.errors import ResultsMissedError, UserError


@pytest.fixture(scope="module")
def finished(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of a complete run with the moving average on."""
    output = tmp_path_factory.mktemp("finished") / "run"
    run_toy(toy_config(shapes_root, output, "train.ema.enabled=true", "train.eval_period_epochs=2"))
    return output


def test_a_run_leaves_checkpoints_logs_results_and_its_config(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names >= {
        "model_final.pth",
        "model_best.pth",
        "last_checkpoint",
        "checkpoints.json",
        "metrics.json",
        "results.json",
        "config.yaml",
        "log.txt",
        "tensorboard",
    }
    assert any((finished / "tensorboard").iterdir())
    assert json.loads((finished / "results.json").read_text())["iteration"] == 12


def test_losses_gradient_norm_rates_and_the_models_own_scalars_are_logged(finished: Path) -> None:
    lines = logged(finished)
    assert [line["iteration"] for line in lines] == list(range(12))
    expected = {
        "total_loss",
        "loss_class",
        "loss_bbox",
        "grad_norm",
        "lr",
        "lr_backbone",
        "kept_tokens",
    }
    assert expected <= lines[0].keys()
    assert "bbox/AP" in lines[5] and "bbox/AP" in lines[11] and "bbox/AP" not in lines[4]
    assert lines[8]["lr"] == pytest.approx(10 * lines[9]["lr"])


def test_the_log_names_groups_schedule_seed_and_versions(finished: Path) -> None:
    text = (finished / "log.txt").read_text()
    for part in (
        "group main",
        "rule 'sqrt'",
        "3 iterations per epoch",
        "Seed 42",
        "torchvision",
        "Command line",
    ):
        assert part in text


def test_the_saved_config_is_plain_data_and_gives_the_same_run(
    finished: Path, tmp_path: Path
) -> None:
    config = load_config(finished / "config.yaml", [f"train.output_dir={tmp_path / 'again'}"])
    run_toy(config)
    assert same(final_state(tmp_path / "again")["model"], final_state(finished)["model"])


def test_evaluation_only_gives_the_results_of_training(
    finished: Path, shapes_root: Path, tmp_path: Path
) -> None:
    stored = json.loads((finished / "results.json").read_text())["results"]
    config = toy_config(
        shapes_root, tmp_path / "eval", f"train.init_checkpoint={finished / 'model_final.pth'}"
    )
    results = run_toy(config, eval_only=True)
    assert results["bbox"]["AP50"] == stored["bbox"]["AP50"]
    written = json.loads((tmp_path / "eval" / "eval_results.json").read_text())["results"]
    assert written["bbox"]["AP50"] == stored["bbox"]["AP50"]
    saved = load_config(tmp_path / "eval" / "eval_config.yaml")
    assert saved.train.init_checkpoint == str(finished / "model_final.pth")


def test_after_fine_tuning_the_runs_own_weights_are_evaluated(
    finished: Path, shapes_root: Path, tmp_path: Path
) -> None:
    start, output = finished / "model_final.pth", tmp_path / "tuned"
    given = f"train.init_checkpoint={start}"
    run_toy(toy_config(shapes_root, output, given, "train.max_iter=1"), overrides=[given])

    def evaluated(*overrides: str) -> str:
        (output / "log.txt").unlink()
        config = load_config(output / "config.yaml", overrides)
        run_toy(config, eval_only=True, overrides=overrides)
        return (output / "log.txt").read_text()

    assert f"Weights from {output / 'model_final.pth'}: " in evaluated()
    assert f"Weights from {start}: " in evaluated(given)
    assert f"Weights from {start}: " in evaluated(f"train={{init_checkpoint: {start}}}")
    for file in output.glob("*.pth"):
        file.unlink()
    assert f"Weights from {start}: " in evaluated()


def test_the_log_ends_with_the_reason_of_a_stop(
    shapes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*options: str) -> str:
        with pytest.raises(Exception):  # noqa: B017 (which one is what the log has to say)
            run_toy(toy_config(shapes_root, tmp_path / "run", "train.max_iter=1", *options))
        text = (tmp_path / "run" / "log.txt").read_text()
        (tmp_path / "run" / "log.txt").unlink()
        return text.partition(" ERROR: ")[2]

    def bug_in_losses(*args: object) -> None:
        raise KeyError("as asked")

    def broken_data() -> Iterator[object]:
        raise BadSampleError("a.jpg is broken")
        yield

    missed = stopped("train.expected_results=[[bbox,AP,99.0]]")
    assert missed.startswith("The run stopped: results below") and "Traceback" not in missed
    diverged = stopped("model.fail_at=1")
    assert diverged.startswith("The run stopped: Training stopped at iteration 0: loss terms not")
    monkeypatch.setattr(toy.ToyDetector, "losses", bug_in_losses)
    bug = stopped()
    assert bug.startswith("The run stopped:\nTraceback") and "KeyError: 'as asked'" in bug
    monkeypatch.setattr(session, "build_train_data", lambda *args: broken_data())
    wrong = stopped()
    assert wrong == "The run stopped: training data: a.jpg is broken\n"


def test_the_log_names_the_operators_of_the_runs_device_only(finished: Path) -> None:
    text = (finished / "log.txt").read_text()
    assert "operators on cpu" in text and "operators on cuda" not in text


def test_an_evaluation_in_the_folder_of_a_training_leaves_its_files_alone(
    finished: Path, shapes_root: Path, tmp_path: Path
) -> None:
    output = shutil.copytree(finished, tmp_path / "run")
    being_saved = output / ".model_0000099.pth.1.tmp"
    being_saved.write_bytes(b"half of a checkpoint that a running training is saving")
    kept = {
        path.name: path.read_bytes()
        for path in output.iterdir()
        if path.is_file() and path.name != "log.txt"
    }
    run_toy(toy_config(shapes_root, output, "model.keep_ratio=0.25"), eval_only=True)
    assert kept == {name: (output / name).read_bytes() for name in kept}
    assert load_config(output / "eval_config.yaml").model.keep_ratio == 0.25
    log = (output / "log.txt").read_text()
    assert f"Results: {output / 'eval_results.json'}" in log
    assert f"Config with all overrides: {output / 'eval_config.yaml'}" in log


def test_the_moving_average_follows_every_step(finished: Path) -> None:
    state = final_state(finished)
    assert state["ema"]["updates"] == 12
    average, weights = state["ema"]["average"]["head.weight"], state["model"]["head.weight"]
    assert not torch.equal(average, weights)
    assert torch.equal(state["ema"]["average"]["seen"], state["model"]["seen"])


def test_the_best_checkpoint_holds_the_evaluated_weights(finished: Path) -> None:
    best = final_state(finished, "model_best.pth")
    assert best["metric"] == "bbox/AP" and best["iteration"] in (6, 12)
    if best["iteration"] == 12:
        assert same(best["model"], final_state(finished)["ema"]["average"])


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    finished: Path, shapes_root: Path, tmp_path: Path
) -> None:
    for name, seed in (("same", 42), ("other", 43)):
        options = ("train.ema.enabled=true", f"train.seed={seed}")
        run_toy(toy_config(shapes_root, tmp_path / name, *options))
        equal = same(final_state(tmp_path / name)["model"], final_state(finished)["model"])
        assert equal == (name == "same")


def test_loader_workers_do_not_change_the_run(
    finished: Path, shapes_root: Path, tmp_path: Path
) -> None:
    options = ("train.ema.enabled=true", "dataloader.train.num_workers=2")
    run_toy(toy_config(shapes_root, tmp_path / "run", *options))
    assert same(final_state(tmp_path / "run")["model"], final_state(finished)["model"])


def test_overfitting_trains_and_evaluates_on_a_few_images_only(
    shapes_root: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    run_toy(toy_config(shapes_root, output, "train.overfit_images=4", "train.max_iter=2"))
    subset = json.loads((output / "shapes_train_subset_4.json").read_text())
    assert len(subset["images"]) == 4
    ids = {image["id"] for image in subset["images"]}
    assert subset["annotations"] and {entry["image_id"] for entry in subset["annotations"]} <= ids
    predicted = json.loads((output / "inference" / "coco_instances_results.json").read_text())
    assert {entry["image_id"] for entry in predicted} == ids


def test_a_fast_dev_run_is_twenty_iterations(shapes_root: Path, tmp_path: Path) -> None:
    run_toy(toy_config(shapes_root, tmp_path / "run", "train.fast_dev_run=true"))
    assert final_state(tmp_path / "run")["iteration"] == 20


def test_expected_results_that_are_missed_end_the_run_with_an_error(
    shapes_root: Path, tmp_path: Path
) -> None:
    options = ("train.max_iter=1", "train.expected_results=[[bbox,AP,99.0]]")
    with pytest.raises(ResultsMissedError, match="expected at least 99"):
        run_toy(toy_config(shapes_root, tmp_path / "run", *options))
    assert (tmp_path / "run" / "model_final.pth").is_file()


def test_initial_weights_are_loaded_and_a_misfit_is_refused(
    finished: Path, shapes_root: Path, tmp_path: Path
) -> None:
    init = f"train.init_checkpoint={finished / 'model_final.pth'}"
    frozen = (
        "optimizer.lr=0",
        "optimizer.lr_backbone=0",
        "optimizer.weight_decay=0",
        "train.max_iter=1",
    )
    run_toy(toy_config(shapes_root, tmp_path / "fit", init, *frozen))
    trained = final_state(finished)["model"]
    assert same(final_state(tmp_path / "fit")["model"]["head.weight"], trained["head.weight"])
    with pytest.raises(UserError, match="allow_partial_init"):
        run_toy(toy_config(shapes_root, tmp_path / "misfit", init, "model.hidden=16"))
    assert not (tmp_path / "misfit").exists()
    run_toy(
        toy_config(
            shapes_root,
            tmp_path / "partial",
            init,
            "model.hidden=16",
            "train.allow_partial_init=true",
            *frozen,
        )
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model.num_classes=2"], "class_out_of_range"),
        (["train.accumulation=3"], "multiple of the accumulated"),
        (["train.device=tpu"], "train.device is 'tpu'"),
        (["train.amp.enabled=true", "train.amp.dtype=float16"], "float16 needs a GPU"),
        (["train.overfit_images=1000"], "images with objects"),
        (["train.expected_results=[[bbox,AP]]"], "expected_results has the row"),
        (["schedule.milestones=[5,3]"], "milestones"),
        (["+schedule.epoch=5"], "epoch"),
        (["optimizer.batch_rule=cubic"], "batch_rule is 'cubic'"),
        (["train.checkpointer.max_to_keep=1"], "max_to_keep"),
    ],
)
def test_wrong_input_is_one_error_and_writes_nothing(
    shapes_root: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run_toy(toy_config(shapes_root, tmp_path / "run", *options))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        (["model.keep_ratio=0"], {}, r"model.keep_ratio: .* number in \(0, 1\], got 0"),
        (["model.keep_ratio=1.5"], {"eval_only": True}, r"\(0, 1\], got 1.5"),
        (["model.keep_ratio=-1"], {"resume": True}, r"\(0, 1\], got -1"),
        (["train.init_checkpoint=absent.pth"], {}, "train.init_checkpoint: absent.pth does not"),
        (["train.init_checkpoint=absent.pth"], {"eval_only": True}, "absent.pth does not exist"),
        (["train.backbone_weights=absent.pth"], {}, "train.backbone_weights: absent.pth does not"),
        ([], {"eval_only": True}, "nothing to evaluate: train.init_checkpoint is not set"),
    ],
)
def test_what_needs_no_data_is_said_before_data_is_loaded(
    shapes_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    arguments: dict[str, bool],
    message: str,
) -> None:
    def loaded(*args: object, **kwargs: object) -> None:
        pytest.fail("the data was loaded first")

    monkeypatch.setattr(session, "load_run_data", loaded)
    with pytest.raises(UserError, match=message):
        run_toy(toy_config(shapes_root, tmp_path / "run", *options), **arguments)
    assert not (tmp_path / "run").exists()


def test_a_keeping_ratio_of_text_is_refused(shapes_root: Path, tmp_path: Path) -> None:
    config = toy_config(shapes_root, tmp_path / "run")
    config.model.keep_ratio = "abc"
    with pytest.raises(UserError, match=r"\(0, 1\], got 'abc'"):
        run_toy(config)


def test_a_model_without_keeping_ratio_needs_none(shapes_root: Path, tmp_path: Path) -> None:
    config = toy_config(shapes_root, tmp_path / "run", "train.max_iter=1")
    config.model = LazyCall(toy.ToyDetector)(num_classes="auto")
    run_toy(config)
    assert (tmp_path / "run" / "model_final.pth").is_file()


def test_milestones_after_the_end_are_warned_about(shapes_root: Path, tmp_path: Path) -> None:
    options = ("schedule.epochs=1", "schedule.milestones=[40]")
    run_toy(toy_config(shapes_root, tmp_path / "run", *options))
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "WARNING: schedule.milestones: [40] are never reached, as schedule.epochs is 1" in log


def test_the_console_shows_gradient_norm_and_the_models_scalars(finished: Path) -> None:
    lines = (finished / "log.txt").read_text().splitlines()
    assert sum("grad_norm: " in line and "kept_tokens: " in line for line in lines) == 12


def test_an_output_folder_that_cannot_be_made_is_an_error(
    shapes_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        run_toy(toy_config(shapes_root, tmp_path / "file" / "run"))


def test_a_fresh_run_in_an_old_folder_starts_its_logs_anew(
    shapes_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        run_toy(toy_config(shapes_root, tmp_path / "run", "train.max_iter=3"))
    assert [line["iteration"] for line in logged(tmp_path / "run")] == [0, 1, 2]
    assert "of an earlier run" in (tmp_path / "run" / "log.txt").read_text()


def test_bfloat16_runs_the_model_inside_autocast(
    shapes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.dtype] = []
    predict = toy.ToyDetector.predict

    def watched(self: toy.ToyDetector, batch: list) -> tuple:
        hook = self.head.register_forward_hook(lambda module, inputs, out: seen.append(out.dtype))
        try:
            return predict(self, batch)
        finally:
            hook.remove()

    monkeypatch.setattr(toy.ToyDetector, "predict", watched)
    run_toy(toy_config(shapes_root, tmp_path / "run", "train.max_iter=2", "train.amp.enabled=true"))
    assert seen[:2] == [torch.bfloat16, torch.bfloat16]
    state = final_state(tmp_path / "run")["model"]
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float32}


def test_loggers_hold_no_handler_of_a_finished_run(shapes_root: Path, tmp_path: Path) -> None:
    run_toy(toy_config(shapes_root, tmp_path / "run", "train.max_iter=1"))
    handlers = logging.getLogger("sparse_detr").handlers
    assert not any(isinstance(handler, logging.FileHandler) for handler in handlers)
