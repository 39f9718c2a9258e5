"""metrics.json is cut to the checkpoint, and early log lines reach the file."""

import logging
from pathlib import Path

from detectron2.utils.events import EventStorage

from sparse_detr.engine.event_logs import RunLog, refill_events, trim_metrics


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
