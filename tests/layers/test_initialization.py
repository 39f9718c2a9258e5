"""Initial values shared by the parts of the transformer."""

import math

import pytest
import torch
from torch import nn

from sparse_detr.layers.initialization import prior_bias, xavier_matrices_


def test_matrices_are_drawn_in_the_xavier_range():
    module = nn.Linear(30, 50)
    nn.init.constant_(module.weight, 9.0)
    xavier_matrices_(module)
    limit = math.sqrt(6 / 80)
    assert module.weight.abs().max() <= limit
    assert module.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.1)


def test_biases_and_norms_keep_what_they_have():
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    bias, norm = module[0].bias.clone(), module[1].weight.clone()
    xavier_matrices_(module)
    assert torch.equal(module[0].bias, bias) and torch.equal(module[1].weight, norm)


@pytest.mark.parametrize("probability", [0.01, 0.3, 0.5])
def test_the_prior_bias_is_the_logit_of_the_probability(probability):
    assert torch.tensor(prior_bias(probability)).sigmoid().item() == pytest.approx(probability)
