"""Several CPU processes: the same training as one."""

from pathlib import Path

import pytest
import torch
from toy_workers import fail_in_second_process, train_cases, train_share

from sparse_detr.engine.launching import ProcessPlan, launch

CASES = {
    "mixed": ((3, 1, 0, 2), 1),
    "one process without objects": ((2, 0, 1, 0), 1),
    "accumulated": ((3, 1, 0, 2, 4, 0, 1, 1), 2),
}


def test_two_processes_equal_one(tmp_path: Path) -> None:
    cases = [(str(tmp_path / f"{name}.pt"), *case) for name, case in CASES.items()]
    assert launch(train_cases, ProcessPlan(per_machine=2), (cases, 10)) == 0
    for name, (counts, _) in CASES.items():
        train_share(str(tmp_path / "alone.pt"), counts, 1, 10)
        alone = torch.load(tmp_path / "alone.pt", weights_only=True)
        together = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        assert together["loss"] == pytest.approx(alone["loss"], rel=1e-8), name
        for key, parameter in alone["parameters"].items():
            torch.testing.assert_close(
                parameter, together["parameters"][key], rtol=1e-8, atol=1e-10, msg=f"{name}: {key}"
            )


def test_an_error_in_the_second_process_alone_is_said_once(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert launch(fail_in_second_process, ProcessPlan(per_machine=2), ()) == 2
    error = capfd.readouterr().err
    assert error.count("error: training data: a.jpg cannot be read") == 1
    assert "Traceback" not in error


def test_one_process_is_not_started_but_called() -> None:
    assert launch(int, ProcessPlan(), ("5",)) == 5
