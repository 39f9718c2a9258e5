"""The reconstruction of SMCA's multi-scale encoder."""

import pytest
import torch

from small_tokens import kept, tokens_of
from sparse_detr.encoder import IntraMultiEncoder
from sparse_detr.structures import TokenSelection

SHAPES = ((4, 5), (2, 3))


def run(joint_layers, change):
    """Memory of the second level, with the first one as it is and changed."""
    torch.manual_seed(0)
    encoder = IntraMultiEncoder(8, 2, 2, joint_layers, feedforward_dim=12, dropout=0.0).double()
    tokens = tokens_of(SHAPES)
    if change:
        tokens.features[:, :20] += 1
    with torch.no_grad():
        return encoder(tokens, None).memory[:, 20:]


def test_a_scale_sees_no_other_without_a_joint_layer():
    assert torch.equal(run((), False), run((), True))


@pytest.mark.parametrize("joint", [0, 1])
def test_a_joint_layer_lets_the_scales_see_each_other(joint):
    assert (run((joint,), False) - run((joint,), True)).abs().max() > 1e-3


def test_the_scales_share_the_weights_of_a_layer():
    torch.manual_seed(0)
    encoder = IntraMultiEncoder(8, 2, 1, (), feedforward_dim=12, dropout=0.0).double()
    layer, tokens = encoder.layers[0], tokens_of(SHAPES)
    got = encoder(tokens, None).memory[:, :20]
    rows, position = tokens.features[:, :20], tokens.position[:, :20]
    expected = super(type(layer), layer).forward(rows, rows, position, position, None)
    torch.testing.assert_close(got, expected)


def test_what_cannot_be_is_refused():
    with pytest.raises(
        ValueError, match=r"joint_layers must be numbers of the 2 layers.*got \[2\]"
    ):
        IntraMultiEncoder(8, 2, 2, (2,))
    encoder = IntraMultiEncoder(8, 2, 1, ()).double()
    with pytest.raises(ValueError, match="token_selection must be None for an IntraMultiEncoder"):
        encoder(tokens_of(SHAPES), TokenSelection((kept([[0, 1]], [2]),)))
