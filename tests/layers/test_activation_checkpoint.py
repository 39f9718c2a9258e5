"""Running a layer with or without keeping its activations."""

import torch
from torch import nn

from sparse_detr.layers.activation_checkpoint import run_layer


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
        self.calls = 0

    def forward(self, rows):
        self.calls += 1
        return self.layer(rows)


def gradient(recompute):
    torch.manual_seed(5)
    module, rows = Counting(), torch.ones(2, 3, requires_grad=True)
    output = run_layer(module, recompute, rows)
    output.square().sum().backward()
    return module.calls, output, rows.grad


def test_the_layer_runs_again_in_the_backward_pass_with_the_same_dropout():
    plain, recomputed = gradient(False), gradient(True)
    assert (plain[0], recomputed[0]) == (1, 2)
    assert torch.equal(plain[1], recomputed[1])
    assert torch.equal(plain[2], recomputed[2])
