from __future__ import annotations

from typing import Any

import pytest

from sparse_detr.benchmarking.operator_report import pool_processes


def candidate(seconds: list[float], faults: float, rejected: int) -> dict[str, Any]:
    return {
        "ms": None,
        "seconds": seconds,
        "ours_is_faster": None,
        "calls_per_block": round(1 / seconds[0]),
        "rejected_blocks": rejected,
        "disturbed_blocks": 1,
        "page_faults": [faults] * len(seconds),
    }


def record(ours: list[float], other: list[float], faults: float) -> dict[str, Any]:
    return {
        "operator": "ms_deform_attn",
        "candidates": {"ours": candidate(ours, 0, 0), "other": candidate(other, faults, 2)},
        "gathered_bytes": 1000,
    }


def test_the_rounds_of_all_processes_count_alike() -> None:
    quick = record([0.1, 0.1], [0.4, 0.5], faults=0)
    slow = record([0.2, 0.2, 0.2], [2.0, 1.8, 1.6], faults=900)

    pooled = pool_processes([quick, slow])

    assert (pooled["operator"], pooled["processes"]) == ("ms_deform_attn", 2)
    ours, other = pooled["candidates"]["ours"], pooled["candidates"]["other"]
    assert other["seconds"] == [0.4, 0.5, 2.0, 1.8, 1.6]
    assert other["page_faults"] == [0, 0, 900, 900, 900]
    assert (other["rejected_blocks"], other["disturbed_blocks"]) == (4, 2)
    assert ours["ms"]["median"] == pytest.approx(200)
    # Ratios of the rounds: 4, 5, 10, 9, 8.
    faster = other["ours_is_faster"]
    assert (faster["median"], faster["smallest"], faster["largest"]) == pytest.approx((8, 4, 10))
    assert pooled["gathered_bytes_per_second"] == pytest.approx(1000 / 0.2)
    assert "kernel" not in pooled


def test_times_of_kernels_are_put_together_too() -> None:
    one = record([0.1], [0.4], faults=0)
    one["kernel"] = {"ours": candidate([0.1], 0, 0), "other": candidate([0.3], 0, 0)}

    pooled = pool_processes([one, one])

    assert pooled["kernel"]["other"]["seconds"] == [0.3, 0.3]
    assert pooled["kernel"]["other"]["ours_is_faster"]["median"] == pytest.approx(3)
