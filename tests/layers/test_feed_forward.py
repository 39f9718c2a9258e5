"""The feed-forward network of transformer layers."""

import torch

from sparse_detr.layers.feed_forward import FeedForward


def test_it_is_two_linear_layers_with_relu_and_no_residual():
    network = FeedForward(4, 6, dropout=0.0)
    rows = torch.randn(3, 4)
    torch.testing.assert_close(network(rows), network.linear2(network.linear1(rows).relu()))


def test_dropout_acts_in_training_on_hidden_and_output():
    network = FeedForward(4, 6, dropout=1.0)
    assert (network(torch.randn(3, 4)) == 0).all()
    network.eval()
    assert (network(torch.randn(3, 4)) != 0).any()
    network.train()
    network.dropout2.p = 0.0
    torch.testing.assert_close(network(torch.randn(3, 4)), network.linear2.bias.expand(3, 4))
