"""Means over the processes of a run."""

import torch

from sparse_detr.layers import process_mean
from sparse_detr.layers.process_mean import mean_over_processes


def test_one_process_keeps_its_values():
    values = torch.tensor([1.0, 5.0])
    assert torch.equal(mean_over_processes(values), torch.tensor([1.0, 5.0]))


def test_several_processes_get_the_mean_of_all(monkeypatch):
    monkeypatch.setattr(process_mean.comm, "get_world_size", lambda: 4)
    # Together the others add five times the values of this process.
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda values: values.mul_(6))
    assert torch.equal(mean_over_processes(torch.tensor([2.0])), torch.tensor([3.0]))
