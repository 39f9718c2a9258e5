"""PnP-DETR's sampling."""

import pytest
import torch

from builders import batch, small_detector
from small_tokens import tokens_of
from sparse_detr.token_selection import PollAndPool, polled_counts

SHAPE = (6, 7)
VALID = [((6, 7),), ((3, 4),), ((1, 1),)]


def sampled(ratio, training_ratios=None, train=False, valid=None, **options):
    torch.manual_seed(0)
    tokens = tokens_of([SHAPE], VALID if valid is None else valid)
    part = PollAndPool(8, 3, training_ratios=training_ratios, **options).double().train(train)
    logits = torch.randn(tokens.padding_mask.shape).double()
    return part(logits, tokens, None, ratio), tokens, logits


def test_counts_are_rounded_down_in_float32_as_released():
    assert polled_counts([180], 0.65) == (116,)  # 117 in exact arithmetic
    assert polled_counts([99, 60], 1 / 3) == (33, 20)


def test_an_image_polls_at_least_one_token_and_leaves_one():
    assert polled_counts([100, 2, 1], 0.001) == (1, 1, 1)
    assert polled_counts([100, 2, 1], 1.0) == (99, 1, 1)


@pytest.mark.parametrize("ratio", [1e-6, 0.01, 1 / 3, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("position_in_keys", [False, True])
def test_no_ratio_gives_nan_whatever_the_sizes(ratio, position_in_keys):
    selection, _, _ = sampled(ratio, position_in_keys=position_in_keys)
    sequence = selection.sequence
    assert sequence.features.isfinite().all() and sequence.position.isfinite().all()
    assert not sequence.padding_mask.all(1).any()
    # An image of one token has nothing to pool.
    assert sequence.padding_mask[2].tolist()[-3:] == [True] * 3


@pytest.mark.parametrize("ratio", [1e-6, 0.3, 1.0])
def test_a_detector_trains_and_predicts_with_any_ratio_and_unequal_images(ratio):
    model = small_detector("pnp_detr", keep_ratio=ratio).train()
    inputs = batch([(200, 416), (20, 24), (96, 128)], [2, 1, 0])
    losses = model(inputs)
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        found = [item["instances"] for item in model.eval()(inputs, keep_ratio=ratio)]
    assert all(instances.scores.isfinite().all() for instances in found)


def test_polled_tokens_are_the_best_times_their_score_and_the_rest_is_pooled():
    selection, tokens, logits = sampled(0.5, valid=[((6, 7),)])
    (polled,), sequence = selection.layers, selection.sequence
    assert polled.kept_counts == (21,) and sequence.features.shape == (1, 24, 8)
    assert sequence.padding_mask is None
    order = logits[0].argsort(descending=True)
    assert torch.equal(polled.kept_indices[0], order[:21])
    normed = torch.nn.functional.layer_norm(tokens.features, (8,))
    expected = normed[0, order[:21]] * logits[0, order[:21]].sigmoid()[:, None]
    torch.testing.assert_close(sequence.features[0, :21], expected)
    torch.testing.assert_close(sequence.position[0, :21], tokens.position[0, order[:21]])
    # What was polled and what is padding plays no part in the pooled ones.
    weights = sequence.spread(torch.eye(24)[None, -3:].double())[0]
    assert (weights[:, order[:21]] == 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(3).double())
    torch.testing.assert_close(sequence.position[0, 21:], weights @ tokens.position[0])


def test_attention_on_the_sequence_is_told_on_the_tokens_and_none_is_lost():
    selection, tokens, _ = sampled(0.4)
    sequence = selection.sequence
    received = torch.rand(3, 5, sequence.features.shape[1]).double()
    received = received.masked_fill(sequence.padding_mask[:, None], 0)
    spread = sequence.spread(received)
    assert spread.shape == (3, 5, 42)
    torch.testing.assert_close(spread.sum(-1), received.sum(-1))
    assert (spread.masked_select(tokens.padding_mask[:, None]) == 0).all()


def test_each_training_step_draws_its_own_ratio_and_evaluation_takes_the_given_one():
    counts = set()
    tokens = tokens_of([(20, 20)])
    part = PollAndPool(8, 3, training_ratios=[0.25, 0.75]).double()
    logits = torch.randn(1, 400).double()
    for _ in range(20):
        counts.update(part(logits, tokens, None, 0.1).layers[0].kept_counts)
    assert len(counts) > 10 and min(counts) >= 100 and max(counts) <= 300
    assert part.eval()(logits, tokens, None, 0.1).layers[0].kept_counts == (40,)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="num_pooled must be at least 1, got 0"):
        PollAndPool(8, 0)
    with pytest.raises(ValueError, match="training_ratios must be two numbers"):
        PollAndPool(8, 3, training_ratios=[0.8, 0.3])
    with pytest.raises(ValueError, match="keep_ratio must be one number for poll and pool"):
        small_detector("pnp_detr").keep_ratio = "mass:0.9"


def test_the_ratio_of_a_call_counts_instead_of_the_detectors_own():
    model = small_detector("pnp_detr").double()
    tokens = model.extract_tokens(model.preprocess(batch([(160, 224)])))
    counts = []
    for ratio in (None, 0.5, 0.8):
        with torch.no_grad():
            counts.append(model.detect(tokens, ratio).selection.layers[0].kept_counts[0])
    total = tokens.valid_counts[0]
    assert counts == [polled_counts([total], r)[0] for r in (0.3, 0.5, 0.8)]
