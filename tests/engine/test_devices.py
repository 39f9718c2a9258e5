"""Devices, seeds and random states."""

import random

import numpy as np
import pytest
import torch

from sparse_detr.engine.devices import (
    kept_random_state,
    random_state,
    resolve_device,
    restore_random_state,
    seed_everything,
)
from sparse_detr.engine.errors import UserError


def draw() -> tuple[float, float, float, float]:
    return random.random(), random.gauss(0, 1), float(np.random.normal()), float(torch.rand(()))


def test_a_stored_state_gives_the_same_numbers_again(tmp_path) -> None:
    draw()
    torch.save(random_state(), tmp_path / "state.pth")
    first = [draw() for _ in range(3)]
    restore_random_state(torch.load(tmp_path / "state.pth", weights_only=True))
    assert [draw() for _ in range(3)] == first


def test_a_block_can_leave_no_trace_even_when_it_raises() -> None:
    seed_everything(5)
    expected = draw()
    seed_everything(5)
    with pytest.raises(KeyError), kept_random_state():
        draw()
        raise KeyError
    assert draw() == expected


def test_processes_with_one_seed_differ() -> None:
    draws = []
    for rank in (0, 1):
        seed_everything(5, rank)
        draws.append(draw())
    assert draws[0] != draws[1]


def test_the_deterministic_switch_reaches_torch_and_can_be_taken_back() -> None:
    seed_everything(0, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    seed_everything(0)
    assert not torch.are_deterministic_algorithms_enabled()


def test_devices_by_name() -> None:
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UserError, match=r"train.device is 'gpu'"):
        resolve_device("gpu")
    with pytest.raises(UserError, match="GPUs are visible"):
        resolve_device("cuda:99")
