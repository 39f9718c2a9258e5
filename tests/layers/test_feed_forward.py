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


def test_the_hidden_rows_are_kept_once_for_the_backward_pass():
    network = FeedForward(4, 6, dropout=0.5)
    rows = torch.randn(100, 4, requires_grad=True)
    kept = {}
    hooks = torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.update({t.data_ptr(): t}) or t, lambda t: t
    )
    with hooks:
        network(rows).sum().backward()
    assert sum(t.shape == (100, 6) and t.dtype == torch.float32 for t in kept.values()) == 1
    assert rows.grad.isfinite().all()
