"""Random scores: fixed in evaluation, drawn anew in training."""

import copy

import pytest
import torch

from builders import batch, small_detector
from small_tokens import tokens_of
from sparse_detr.token_scoring import RandomScoring

SHAPES = [(4, 5), (2, 3)]
VALID = [[(4, 5), (2, 3)], [(2, 3), (1, 2)]]


def scores(module, tokens):
    return module(None, tokens).logits


def test_in_evaluation_an_image_gets_alone_what_it_gets_in_a_batch():
    module = RandomScoring().eval()
    together = tokens_of(SHAPES, VALID)
    got = scores(module, together)[1][~together.padding_mask[1]]
    alone = scores(module, tokens_of([(2, 3), (1, 2)]))[0]
    assert torch.equal(got, alone)


def test_in_evaluation_scores_are_fixed_by_the_seed_alone():
    tokens = tokens_of(SHAPES, VALID)
    module = RandomScoring(seed=3).eval()
    first = scores(module, tokens)
    torch.manual_seed(99)
    assert torch.equal(scores(module, tokens), first)
    assert torch.equal(scores(RandomScoring(seed=3).eval(), tokens), first)
    assert torch.equal(scores(copy.deepcopy(module), tokens), first)
    assert not torch.equal(scores(RandomScoring(seed=4).eval(), tokens), first)


def test_in_evaluation_nothing_is_drawn_from_the_global_generator():
    tokens = tokens_of(SHAPES)
    before = torch.get_rng_state()
    scores(RandomScoring().eval(), tokens)
    assert torch.equal(torch.get_rng_state(), before)


def test_in_training_every_step_and_image_draws_its_own_from_the_global_generator():
    module, tokens = RandomScoring().train(), tokens_of(SHAPES, batch=2)
    torch.manual_seed(5)
    first, second = scores(module, tokens), scores(module, tokens)
    assert not torch.equal(first, second) and not torch.equal(first[0], first[1])
    torch.manual_seed(5)
    assert torch.equal(scores(module, tokens), first)


@pytest.mark.parametrize("training", [True, False])
def test_scores_are_finite_logits_of_evenly_drawn_numbers(training):
    drawn = scores(RandomScoring().train(training), tokens_of([(100, 100)])).sigmoid()
    assert drawn.isfinite().all() and drawn.min() > 0 and drawn.max() < 1
    quarters = torch.histc(drawn, 4, 0, 1) / drawn.numel()
    torch.testing.assert_close(quarters, torch.full((4,), 0.25).double(), rtol=0, atol=0.02)


def test_it_has_no_weights_and_needs_no_projection_of_its_own():
    assert list(RandomScoring().parameters()) == [] and not RandomScoring.reads_projection


@torch.no_grad()
def test_the_kept_tokens_are_those_with_the_highest_random_scores_and_no_padding():
    model = small_detector("sparse_detr_random")
    tokens = model.extract_tokens(model.preprocess(batch([(96, 128), (64, 64)])))
    selection = model.detect(tokens).selection
    expected = scores(model.token_scoring, tokens)
    kept = selection.layers[0].membership(expected.shape[1])
    assert not (kept & tokens.padding_mask).any()
    for image, proposals in enumerate(tokens.geometry.proposals[1]):
        left = expected[image][proposals & ~kept[image]]
        assert expected[image][kept[image]].min() >= left.max()


def test_two_runs_under_one_seed_keep_the_same_tokens_and_lose_the_same():
    inputs, losses = batch([(96, 128), (64, 64)], [2, 1]), []
    for _ in range(2):
        model = small_detector("sparse_detr_random").train()
        torch.manual_seed(11)
        losses.append([model(inputs), model(inputs)])
    (first, next_step), (again, _) = losses
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["loss_class_enc_0"], next_step["loss_class_enc_0"])
