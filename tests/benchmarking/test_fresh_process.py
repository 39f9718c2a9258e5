from __future__ import annotations

import pytest

from sparse_detr.benchmarking import fresh_process
from sparse_detr.benchmarking.fresh_process import FreshProcessError, call_in_fresh_process


def test_result_arguments_and_environment_pass_through() -> None:
    found = call_in_fresh_process(
        "sparse_detr.benchmarking.machine:processor_name",
        {"cpuinfo": "flags: x\nmodel name\t: A processor\n"},
        {"SPARSE_DETR_BACKEND": "torch"},
    )

    assert found == "A processor"


def test_a_process_that_fails_raises_with_the_end_of_its_errors() -> None:
    with pytest.raises(FreshProcessError, match="TypeError"):
        call_in_fresh_process("sparse_detr.benchmarking.machine:processor_name", {"no": 1})


def test_only_functions_of_the_package_are_called() -> None:
    with pytest.raises(ValueError, match="below sparse_detr"):
        fresh_process.main(["os:getcwd", "{}"])
