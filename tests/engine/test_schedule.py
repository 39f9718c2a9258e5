"""The arithmetic from epochs to iterations, and the learning-rate multiplier."""

import pytest

from sparse_detr.engine.schedule import EpochSchedule, plan_iterations


def test_released_schedule_gives_the_released_iterations() -> None:
    plan = plan_iterations(EpochSchedule(), dataset_length=118_287, global_batch=16)
    assert plan.iterations_per_epoch == 7_393
    assert plan.max_iter == plan.total_iterations == 369_650
    assert plan.multiplier(295_719) == 1.0
    assert plan.multiplier(295_720) == pytest.approx(0.1)
    assert plan.multiplier(369_649) == pytest.approx(0.1)


def test_a_short_run_does_not_move_the_milestones() -> None:
    plan = plan_iterations(EpochSchedule(epochs=10, milestones=[8]), 100, 10, max_iter=20)
    assert (plan.max_iter, plan.total_iterations) == (20, 100)
    assert plan.multiplier(79) == 1.0
    assert plan.multiplier(80) == pytest.approx(0.1)
    assert "train.max_iter" in plan.describe(100, 10)


def test_warmup_rises_linearly_and_then_leaves_the_rate_alone() -> None:
    plan = plan_iterations(EpochSchedule(warmup_iterations=10, warmup_factor=0.5), 100, 1)
    assert [plan.multiplier(i) for i in (0, 5, 10, 11)] == pytest.approx([0.5, 0.75, 1.0, 1.0])


def test_cosine_falls_from_one_to_the_final_factor() -> None:
    plan = plan_iterations(EpochSchedule(epochs=1, kind="cosine", final_factor=0.2), 100, 1)
    assert [plan.multiplier(i) for i in (0, 50, 100)] == pytest.approx([1.0, 0.6, 0.2])


@pytest.mark.parametrize(
    ("options", "fix"),
    [
        ({"epochs": 12, "milestones": [40]}, "schedule.milestones=[10]"),
        ({"epochs": 12, "milestones": [8, 12]}, "[12] are never reached"),
        ({"epochs": 1, "milestones": [1]}, "schedule.milestones=[0.8]"),
    ],
)
def test_milestones_that_are_never_reached_are_warned_about(options: dict, fix: str) -> None:
    schedule = EpochSchedule(**options)
    assert fix in schedule.milestone_warning()
    plan = plan_iterations(schedule, 100, 10)
    last = schedule.milestones[-1]
    assert plan.iterations(last) > plan.max_iter - 1, "it is indeed not reached"


@pytest.mark.parametrize(
    "options",
    [{}, {"milestones": []}, {"epochs": 12, "milestones": [11]}, {"epochs": 5, "kind": "cosine"}],
)
def test_a_sound_schedule_gives_no_warning(options: dict) -> None:
    assert EpochSchedule(**options).milestone_warning() == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"kind": "exponential"}, "kind"),
        ({"milestones": [5, 3]}, "milestones"),
        ({"warmup_iterations": -1}, "warmup"),
    ],
)
def test_wrong_schedules_are_refused_by_name(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EpochSchedule(**options)


def test_wrong_lengths_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="dataset_length"):
        plan_iterations(EpochSchedule(), 0, 16)
    with pytest.raises(ValueError, match="max_iter"):
        plan_iterations(EpochSchedule(), 10, 1, max_iter=0)
