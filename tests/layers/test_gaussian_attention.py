"""Attention with a Gaussian prior: the prior is the formula, whichever way it is computed."""

import pytest
import torch

from sparse_detr.layers.gaussian_attention import GaussianAttention, GaussianPrior, cell_features

SHAPES = ((3, 5), (2, 3))
NUM_QUERIES, NUM_HEADS, BATCH = 4, 2, 2


def prior(product=False, heads=NUM_HEADS):
    return GaussianPrior(
        4 * torch.rand(BATCH, NUM_QUERIES, heads, 2).double(),
        torch.rand(BATCH, NUM_QUERIES, heads, 2).double(),
        torch.rand(BATCH, NUM_QUERIES, heads).double() if product else None,
    )


def direct(given, shape):
    """The logarithm as the paper writes it, from the distance of every query to every cell."""
    found = torch.zeros(BATCH, given.centres.shape[2], NUM_QUERIES, *shape).double()
    for index in torch.cartesian_prod(*(torch.arange(n) for n in found.shape)):
        image, head, query, row, column = index.tolist()
        x, y = given.centres[image, query, head].tolist()
        across, down = given.precisions[image, query, head].tolist()
        dx2, dy2 = (x - column) ** 2, (y - row) ** 2
        value = across * dx2 + down * dy2
        if given.product_precision is not None:
            value += given.product_precision[image, query, head].item() * dx2 * dy2
        found[image, head, query, row, column] = -value
    return found.flatten(-2)


@pytest.mark.parametrize("product", [False, True])
@pytest.mark.parametrize("heads", [1, NUM_HEADS])
def test_the_map_is_the_formula(product, heads):
    given = prior(product, heads)
    torch.testing.assert_close(given.log_map(SHAPES[0]), direct(given, SHAPES[0]))


def test_the_channels_of_query_and_cell_give_the_separable_map_but_for_a_number_per_query():
    given, shape = prior(), SHAPES[0]
    cells = cell_features(shape, given.centres)
    difference = given.query_features(shape) @ cells.T - given.log_map(shape)
    torch.testing.assert_close(difference, difference[..., :1].expand_as(difference))


@pytest.mark.parametrize("product", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_attention_is_that_with_the_map_added_to_the_logits(product, padded, weighted):
    attention = GaussianAttention(8, NUM_HEADS).double()
    sizes = [h * w for h, w in SHAPES]
    query = torch.randn(BATCH, NUM_QUERIES, 8).double()
    key, value = torch.randn(2, BATCH, sum(sizes), 8).double()
    priors = [prior(product), prior(product)]
    weights = torch.rand(BATCH, NUM_QUERIES, 2).double().softmax(-1) if weighted else None
    padding = torch.zeros(BATCH, sum(sizes), dtype=torch.bool)
    padding[1, [3, 4, 9, 20]] = True
    got, attention_map = attention(
        query, key, value, priors, SHAPES, weights, padding if padded else None, True
    )
    queries, keys, values = (attention._heads(p) for p in attention.projected(query, key, value))
    parts = []
    for level, (given, shape) in enumerate(zip(priors, SHAPES, strict=True)):
        own = slice(sum(sizes[:level]), sum(sizes[: level + 1]))
        logits = queries @ keys[:, :, own].transpose(2, 3) / 4**0.5 + direct(given, shape)
        if padded:
            logits = logits.masked_fill(padding[:, None, None, own], float("-inf"))
        part = logits.softmax(-1)
        parts.append(part if weights is None else part * weights[:, None, :, level, None])
    expected_map = torch.cat(parts, dim=-1)
    expected = attention.out_proj((expected_map @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(attention_map, expected_map.sum(1), rtol=0, atol=1e-12)


def test_half_precision_around_it_does_not_round_the_distances():
    attention = GaussianAttention(8, NUM_HEADS)
    shape, query = (60, 84), torch.zeros(1, 1, 8)
    given = GaussianPrior(torch.full((1, 1, 1, 2), 40.3), torch.full((1, 1, 1, 2), 2.0))
    key = torch.zeros(1, shape[0] * shape[1], 8)
    maps = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            maps.append(attention(query, key, key, [given], [shape], with_map=True)[1])
    torch.testing.assert_close(maps[0], maps[1], rtol=0, atol=1e-5)
    expected = given.log_map(shape).softmax(-1)[:, 0] * NUM_HEADS
    torch.testing.assert_close(maps[1], expected, rtol=0, atol=1e-3)


def test_nothing_of_the_size_of_queries_times_tokens_is_kept_for_a_separable_prior():
    given = prior()
    shape = (30, 40)
    sizes = [given.query_features(shape).numel(), cell_features(shape, given.centres).numel()]
    assert sum(sizes) < BATCH * NUM_HEADS * NUM_QUERIES * shape[0] * shape[1]
    assert given.product_term(shape) is None
