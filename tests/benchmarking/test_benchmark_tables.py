from __future__ import annotations

from typing import Any

import pytest

from sparse_detr.benchmarking import model_tables, operator_tables
from sparse_detr.benchmarking.model_ways import OPTIMISED, RELEASED
from sparse_detr.benchmarking.tables import markdown_table, megabytes, significant, text_table


def spread(value: float) -> dict[str, Any]:
    return {"median": value, "smallest": value, "largest": value, "count": 5}


def operator_record(ratio: float, fastest: float) -> dict[str, Any]:
    def candidate(ms: float, faster: float | None) -> dict[str, Any]:
        return {
            "ms": spread(ms),
            "ours_is_faster": None if faster is None else spread(faster),
            "calls_per_block": 7,
            "rejected_blocks": 2,
            "disturbed_blocks": 1,
            "page_faults": [0.0, 2314.4, 9000.0],
        }

    return {
        "operator": "ms_deform_attn",
        "queries": "300",
        "direction": "forward",
        "capability": "avx512",
        "dtype": "float32",
        "device": "cpu",
        "threads": 2,
        "baseline": "grid_sample (released)",
        "candidates": {
            "ours": candidate(0.1, None),
            "grid_sample (released)": candidate(0.1 * ratio, ratio),
            "torch backend": candidate(0.1 * fastest, fastest),
        },
        "gathered_bytes": 1000,
        "gathered_bytes_per_second": 2e9,
    }


def row_of(text: str, *words: str) -> str:
    found = [line for line in text.splitlines() if all(word in line for word in words)]
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01234, "0.0123"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1234")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert significant(value) == text


def test_memory_is_in_millions_of_bytes() -> None:
    assert megabytes(17_300_000) == "17.3"


def test_tables_for_terminal_and_markdown_hold_the_same_cells() -> None:
    header, rows = ("what", "ms"), [("one", "1.0"), ("another", "12.5")]

    assert text_table(header, rows).splitlines()[2:] == ["one       1.0", "another  12.5"]
    assert markdown_table(header, rows).splitlines() == [
        "| what | ms |",
        "| --- | --- |",
        "| one | 1.0 |",
        "| another | 12.5 |",
    ]


def test_an_aim_is_held_against_its_baseline_and_names_the_fastest_other_way() -> None:
    text = operator_tables.aims_table([operator_record(ratio=40, fastest=30)], True)
    row = row_of(text, "ms_deform_attn |", "300 queries | forward |", "avx512")

    assert "at least 38x" in row
    assert "| 40.0x (40.0 to 40.0) | yes |" in row
    assert "30.0x (30.0 to 30.0) against torch backend" in row


def test_an_aim_that_is_missed_says_no() -> None:
    text = operator_tables.aims_table([operator_record(ratio=37.9, fastest=37.9)], True)

    assert "| no |" in row_of(text, "ms_deform_attn |", "300 queries | forward |", "avx512")


def test_without_a_fitting_record_an_aim_is_not_measured() -> None:
    record = {**operator_record(40, 30), "dtype": "bfloat16"}

    assert operator_tables.aims_table([record], True).count("not measured") == len(
        operator_tables.AIMS
    )


def test_disturbed_blocks_and_page_faults_are_shown() -> None:
    text = operator_tables.times_table([operator_record(40, 30)], False)

    assert "2 rejected, 1 DISTURBED, 2,314 page faults a call" in text


def test_memory_is_judged_with_gradients_only() -> None:
    record = {
        **operator_record(40, 30),
        "candidate": "ours",
        "peak_bytes": 10_500_000,
        "result_bytes": 10_000_000,
    }
    forward = operator_tables.memory_table([record], True)
    both = operator_tables.memory_table([{**record, "direction": "forward + backward"}], True)

    assert "yes" not in forward
    assert "| 1.05x | yes |" in both


def model_run(ratio: float) -> dict[str, Any]:
    setting = {
        "height": 480,
        "width": 640,
        "batch": 1,
        "keep_ratio": 0.1,
        "backbone": "r50",
        "device": "cpu",
    }

    def way(ms: float, faster: dict[str, Any]) -> dict[str, Any]:
        return {
            "ms": spread(ms),
            "images_per_second": 1000 / ms,
            "faster_than": faster,
            "rejected_blocks": 0,
            "disturbed_blocks": 0,
        }

    return {
        "setting": setting,
        "threads": 2,
        "ways": {
            OPTIMISED: way(200, {RELEASED: spread(ratio)}),
            RELEASED: way(200 * ratio, {OPTIMISED: spread(1 / ratio)}),
        },
        "stages": {OPTIMISED: {"total": spread(200), "backbone": spread(100)}},
        "agreement": {
            OPTIMISED: {
                "logits": 2e-6,
                "boxes": 1e-7,
                "largest_logit": 6.0,
                "matched": 1.0,
                "holds": True,
            }
        },
    }


def test_the_whole_model_is_held_against_its_aim() -> None:
    text = model_tables.aims_table([model_run(2.5)], True)

    assert "| 2.50x (2.50 to 2.50) | yes |" in row_of(text, "rho 0.1", RELEASED, "2.3x")
    assert "not measured" in row_of(text, "dense")


def test_stages_are_in_the_order_of_the_flow() -> None:
    lines = model_tables.stages_table([model_run(2.5)], True).splitlines()

    assert [line.split(" ")[1] for line in lines[2:]] == ["backbone", "total"]


def test_a_training_step_is_judged_by_what_is_alive() -> None:
    memory = {
        "peak_bytes": 1000,
        "default_allocator_peak_bytes": 2000,
        "gradient_bytes": 100,
    }
    record = {
        "setting": model_run(1)["setting"],
        "ours": memory,
        "released": {**memory, "peak_bytes": 2500, "default_allocator_peak_bytes": 2500},
    }
    lines = model_tables.training_table([record], True).splitlines()

    assert lines[2].endswith("| 0.400x | at most 0.5x | yes |")
    assert lines[3].endswith("| 0.800x |  |  |")
