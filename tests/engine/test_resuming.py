"""An interrupted and resumed run is bit for bit the uninterrupted one: weights, averages, logs."""

import shutil
from pathlib import Path

import pytest
from toy import ToyDetector, final_state, logged, run_toy, same, toy_config

from sparse_detr.engine.errors import UserError
from sparse_detr.engine.hooks import EvaluationHook

OPTIONS = (
    "train.max_iter=10",
    "train.checkpointer.period=5",
    "train.ema.enabled=true",
    "train.eval_period_epochs=1.6667",
    "train.log_period=2",
)


class Killed(Exception):
    """Stands for a killed process."""


@pytest.fixture(scope="module")
def uninterrupted(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of ten iterations in one go."""
    output = tmp_path_factory.mktemp("uninterrupted") / "run"
    run_toy(toy_config(shapes_root, output, *OPTIONS))
    return output


def interrupt_at(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Lets the forward pass number ``call`` of a run raise."""
    original = ToyDetector.losses

    def losses(self: ToyDetector, *args: object) -> dict:
        if self.calls == call:
            raise Killed
        return original(self, *args)

    monkeypatch.setattr(ToyDetector, "losses", losses)


def assert_equal_runs(resumed: Path, uninterrupted: Path) -> None:
    left, right = final_state(resumed), final_state(uninterrupted)
    for key in ("model", "trainer", "ema", "iteration", "random_states", "evaluation"):
        assert same(left[key], right[key]), key
    assert same(logged(resumed), logged(uninterrupted))


@pytest.mark.parametrize("call", [6, 8, 10])
def test_five_and_resume_equals_ten(
    shapes_root: Path,
    tmp_path: Path,
    uninterrupted: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: int,
) -> None:
    config = toy_config(shapes_root, tmp_path / "run", *OPTIONS)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        interrupt_at(patch, call)
        run_toy(config)
    assert final_state(tmp_path / "run", "model_0000004.pth")["iteration"] == 5
    run_toy(config, resume=True)
    assert_equal_runs(tmp_path / "run", uninterrupted)


def test_a_run_killed_during_its_evaluation_makes_up_for_it(
    shapes_root: Path, tmp_path: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: EvaluationHook, iteration: int) -> None:
        raise Killed

    config = toy_config(shapes_root, tmp_path / "run", *OPTIONS)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(EvaluationHook, "_run", killed)
        run_toy(config)
    run_toy(config, resume=True)
    assert_equal_runs(tmp_path / "run", uninterrupted)


def test_resuming_without_a_checkpoint_starts_anew(
    shapes_root: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    run_toy(toy_config(shapes_root, tmp_path / "run", *OPTIONS), resume=True)
    assert_equal_runs(tmp_path / "run", uninterrupted)


def test_resume_after_a_run_that_died_before_its_first_save_does_not_go_on_with_an_older_run(
    shapes_root: Path, tmp_path: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = ("train.max_iter=7", "train.checkpointer.period=3", "train.seed=3")
    run_toy(toy_config(shapes_root, tmp_path / "run", *earlier))
    config = toy_config(shapes_root, tmp_path / "run", *OPTIONS)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        interrupt_at(patch, 2)
        run_toy(config)
    assert final_state(tmp_path / "run", "model_0000005.pth")["iteration"] == 6, "it is still there"
    run_toy(config, resume=True)
    assert_equal_runs(tmp_path / "run", uninterrupted)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "model_final.pth is of an earlier run; the file stays" in log
    assert "holds no checkpoint, so the training starts anew" in log and "Resumed from" not in log


def test_a_run_without_its_index_goes_on_from_the_files(
    shapes_root: Path, tmp_path: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy_config(shapes_root, tmp_path / "run", *OPTIONS)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        interrupt_at(patch, 8)
        run_toy(config)
    (tmp_path / "run" / "checkpoints.json").unlink()
    run_toy(config, resume=True)
    assert_equal_runs(tmp_path / "run", uninterrupted)
    assert "at iteration 5" in (tmp_path / "run" / "log.txt").read_text()


def test_a_damaged_last_checkpoint_costs_its_iterations_but_not_the_result(
    shapes_root: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    config = toy_config(shapes_root, tmp_path / "run", *OPTIONS)
    shutil.copytree(uninterrupted, tmp_path / "run")
    final = tmp_path / "run" / "model_final.pth"
    final.write_bytes(final.read_bytes()[:500])
    run_toy(config, resume=True)
    assert_equal_runs(tmp_path / "run", uninterrupted)
    assert "damaged" in (tmp_path / "run" / "log.txt").read_text()


def test_a_finished_run_can_be_resumed_and_changes_nothing(
    shapes_root: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    config = toy_config(shapes_root, tmp_path / "run", *OPTIONS)
    shutil.copytree(uninterrupted, tmp_path / "run")
    results = run_toy(config, resume=True)
    assert_equal_runs(tmp_path / "run", uninterrupted)
    assert results["bbox"].keys() >= {"AP", "AP50"}


def test_accumulation_goes_on_at_the_right_images(shapes_root: Path, tmp_path: Path) -> None:
    options = ("train.accumulation=2", "train.max_iter=4", "train.checkpointer.period=2")
    run_toy(toy_config(shapes_root, tmp_path / "whole", *options))
    run_toy(toy_config(shapes_root, tmp_path / "parts", *options))
    (tmp_path / "parts" / "model_final.pth").unlink()
    run_toy(toy_config(shapes_root, tmp_path / "parts", *options), resume=True)
    assert same(final_state(tmp_path / "parts")["model"], final_state(tmp_path / "whole")["model"])


def test_a_checkpoint_of_another_model_is_refused(
    shapes_root: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    before = sorted((path.name, path.stat().st_mtime_ns) for path in uninterrupted.glob("*.pth"))
    with pytest.raises(UserError, match="cannot resume: the checkpoint is of another model"):
        run_toy(toy_config(shapes_root, uninterrupted, *OPTIONS, "model.hidden=16"), resume=True)
    assert before == sorted(
        (path.name, path.stat().st_mtime_ns) for path in uninterrupted.glob("*.pth")
    )
