from __future__ import annotations

import json

import torch

from sparse_detr.benchmarking.machine import (
    describe_machine,
    machine_lines,
    machine_sentence,
    memory_gib,
    processor_name,
)


def test_the_processor_is_read_from_its_line() -> None:
    assert processor_name("processor : 0\nmodel name : Some CPU @ 3 GHz\n") == "Some CPU @ 3 GHz"
    assert processor_name("") == ""


def test_memory_is_in_gib() -> None:
    assert memory_gib("MemTotal:       25165824 kB\n") == 24.0
    assert memory_gib("") is None


def test_the_description_goes_through_json() -> None:
    machine = describe_machine(torch.device("cpu"))

    assert json.loads(json.dumps(machine)) == machine
    assert f"torch: {torch.__version__}" in machine_lines(machine)


def test_the_sentence_of_a_page_names_the_gpu_but_not_the_host() -> None:
    machine = describe_machine(torch.device("cpu")) | {"threads": 1, "system": "Linux-6.1-x86-h"}
    assert "Linux 6.1, Python" in machine_sentence(machine)
    assert "1 thread;" in machine_sentence(machine)
    assert f" on {machine['processor']}, " in machine_sentence(machine)
    machine["device"] = "Some GPU, 80 GiB"
    assert f" on Some GPU, 80 GiB, {machine['processor']}, " in machine_sentence(machine)
