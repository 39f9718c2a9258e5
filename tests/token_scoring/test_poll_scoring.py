"""PnP-DETR's scores."""

import pytest
import torch

from small_tokens import tokens_of
from sparse_detr.token_scoring import PollScoring


@pytest.mark.parametrize(("score_dim", "layers"), [(None, 1), (8, 2), (3, 2)])
def test_scores_are_a_network_on_each_tokens_features(score_dim, layers):
    scoring, tokens = PollScoring(8, score_dim).double(), tokens_of([(3, 4)])
    assert len(scoring.network.layers) == layers
    logits = scoring(None, tokens).logits
    assert logits.shape == (1, 12)
    one = scoring.network(tokens.features[0, 5])
    torch.testing.assert_close(logits[0, 5], one[0])


def test_scores_are_not_rounded_by_half_precision_around_them():
    scoring, tokens = PollScoring(8, 8).double(), tokens_of([(3, 4)])
    with torch.autocast("cpu", torch.bfloat16):
        got = scoring(None, tokens).logits
    assert torch.equal(got, scoring(None, tokens).logits)
