"""metrics.json is strict json in order and is cut to the checkpoint; early log lines reach the
file; the console shows what the model reports."""

import json
import logging
import math
from pathlib import Path

from detectron2.utils.events import EventStorage

from sparse_detr.engine.event_logs import (
    ContinuedJsonWriter,
    ModelScalarPrinter,
    RunLog,
    refill_events,
    trim_metrics,
)


def test_lines_after_the_checkpoint_and_a_line_cut_short_are_removed(tmp_path: Path) -> None:
    lines = [f'{{"iteration": {i}, "loss": 1.0}}' for i in range(5)]
    (tmp_path / "metrics.json").write_text("\n".join(lines) + '\n{"iteration": 2, "lo')
    assert trim_metrics(tmp_path, 3) == 2
    assert (tmp_path / "metrics.json").read_text().splitlines() == lines[:3]


def test_no_metrics_means_nothing_was_logged(tmp_path: Path) -> None:
    assert trim_metrics(tmp_path, 3) == -1


def test_refilled_scalars_have_their_old_iterations() -> None:
    with EventStorage(7) as storage:
        refill_events(storage, {"loss": {"smooth": True, "values": [(1.0, 5), (2.0, 6)]}})
        assert storage.iter == 7
        assert storage.history("loss").values() == [(1.0, 5), (2.0, 6)]


def test_lines_from_before_the_folder_exists_reach_its_log(tmp_path: Path) -> None:
    log = RunLog()
    logging.getLogger("sparse_detr.somewhere").info("early line")
    log.attach(tmp_path)
    logging.getLogger("sparse_detr.somewhere").info("late line")
    log.close()
    text = (tmp_path / "log.txt").read_text()
    assert text.count("early line") == text.count("late line") == 1


class Lines(logging.Handler):
    """Keeps the messages of a logger while it is entered."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.logger = logging.getLogger(name)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    def __enter__(self) -> list[str]:
        self.logger.setLevel(logging.INFO)
        self.logger.addHandler(self)
        return self.messages

    def __exit__(self, *error: object) -> None:
        self.logger.removeHandler(self)
        self.logger.setLevel(logging.NOTSET)


def printed() -> list[str]:
    with Lines("sparse_detr.engine.event_logs") as lines:
        ModelScalarPrinter().write()
    return lines


def test_the_console_line_has_medians_of_the_numbers_and_skips_nan() -> None:
    rows = {
        "corr": [0.5, math.nan, 0.7],
        "corr_level0": [math.nan, 0.25, math.nan],
        "corr_level1": [math.nan] * 3,
        "grad_norm": [12.3456, 12.3456, 12.3456],
        "kept_tokens": [12345.0, 12346.0, 12347.0],
        "loss_class": [1.0, 1.0, 1.0],
    }
    with EventStorage(0) as storage:
        for iteration in range(3):
            storage.iter = iteration
            storage.put_scalars(**{name: values[iteration] for name, values in rows.items()})
        lines = printed()
    assert lines == [" iter: 2  grad_norm: 12.3  kept_tokens: 12346  corr: 0.6  corr_level0: 0.25"]


def test_the_console_line_needs_something_to_show() -> None:
    with EventStorage(0) as storage:
        storage.put_scalar("loss_class", 1.0)
        assert printed() == []


def test_a_scalar_that_is_missing_in_an_iteration_does_not_date_a_line_back(
    tmp_path: Path,
) -> None:
    writer = ContinuedJsonWriter(str(tmp_path / "metrics.json"))
    with EventStorage(0) as storage:
        for iteration in range(6):
            storage.iter = iteration
            storage.put_scalar("loss", float(iteration))
            if iteration in (1, 3):
                storage.put_scalar("corr_level3", iteration / 10)
            if iteration % 3 == 2:
                writer.write()
        storage.iter = 6
        storage.put_scalar("bbox/AP-ring", math.nan, smoothing_hint=False)
        storage.put_scalar("loss", math.nan)
        writer.write()
    writer.close()
    text = (tmp_path / "metrics.json").read_text()
    assert "NaN" not in text
    assert [json.loads(line) for line in text.splitlines()] == [
        {"iteration": 2, "loss": 1.0, "corr_level3": 0.1},
        {"iteration": 5, "loss": 2.5, "corr_level3": 0.2},
        {"iteration": 6, "loss": 2.5, "bbox/AP-ring": None},
    ]
