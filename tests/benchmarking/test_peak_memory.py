from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sparse_detr.benchmarking.fresh_process import call_in_fresh_process
from sparse_detr.benchmarking.peak_memory import (
    LIVE_MEMORY,
    PeakMemoryUnknownError,
    parse_status_bytes,
    peak_bytes,
    tensor_bytes,
)


def test_sizes_are_read_in_bytes() -> None:
    assert parse_status_bytes("Name:\tx\nVmHWM:\t  12 kB\nVmRSS:\t 3 kB\n", "VmHWM") == 12288


def test_a_size_that_is_not_there_is_an_error() -> None:
    with pytest.raises(PeakMemoryUnknownError, match="VmHWM"):
        parse_status_bytes("Name:\tx\n", "VmHWM")


def test_tensors_count_their_elements() -> None:
    assert tensor_bytes([torch.zeros(3, 2), torch.zeros(4, dtype=torch.bfloat16)]) == 32


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_a_tensor_that_comes_and_goes_is_seen() -> None:
    size = 64 * 2**20

    def call() -> float:
        return float(torch.ones(size // 4).sum())

    # The kernel counts pages in batches.
    assert 0.97 * size < peak_bytes(call, torch.device("cpu")) < 1.3 * size


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_an_operator_in_a_fresh_process_needs_at_least_its_results() -> None:
    found = call_in_fresh_process(
        "sparse_detr.benchmarking.operator_report:measure_peak",
        {"operator": "ms_deform_attn", "queries": "300", "backward": True, "threads": 1},
        LIVE_MEMORY,
    )

    assert found["peak_bytes"] > 0.9 * found["result_bytes"] > 17_000_000
