"""Queries that are parameters."""

import torch

from small_tokens import tokens_of
from sparse_detr.query_selection import LearnedQueries
from sparse_detr.structures import EncoderOutput


def queries(module, batch=2):
    tokens = tokens_of([(2, 3)], batch=batch)
    return module(EncoderOutput(tokens.features), tokens, None, None, True)


def test_position_is_the_first_half_of_the_embedding_and_content_the_second():
    module = LearnedQueries(8, 5).double()
    got = queries(module)
    assert torch.equal(got.position[1], module.query_embed.weight[:, :8])
    assert torch.equal(got.content[1], module.query_embed.weight[:, 8:])


def test_reference_points_are_centres_read_from_the_position():
    module = LearnedQueries(8, 5).double()
    got = queries(module)
    expected = module.reference_points(module.query_embed.weight[:, :8]).sigmoid()
    assert got.reference_points.shape == (2, 5, 2)
    assert torch.equal(got.reference_points[0], expected)


def test_they_do_not_depend_on_the_image():
    got = queries(LearnedQueries(8, 5).double())
    for field in (got.content, got.position, got.reference_points):
        assert torch.equal(field[0], field[1])


def test_there_is_no_first_stage():
    got = queries(LearnedQueries(8, 5).double())
    assert got.first_stage is None and got.token_indices is None


def test_the_loss_reaches_the_reference_points():
    module = LearnedQueries(8, 5).double()
    queries(module).reference_points.sum().backward()
    assert module.reference_points.weight.grad.abs().sum() > 0


def test_detrs_queries_are_positions_alone():
    module = LearnedQueries(8, 5, learned_content=False, with_references=False).double()
    got = queries(module)
    assert [tuple(p.shape) for p in module.parameters()] == [(5, 8)]
    assert torch.equal(got.position[1], module.query_embed.weight)
    assert got.content.shape == (2, 5, 8) and not got.content.any()
    assert got.reference_points is None
