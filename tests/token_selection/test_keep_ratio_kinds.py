"""Which tokens each kind of keeping ratio keeps, compared with plain loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from small_tokens import tokens_of
from sparse_detr.query_selection import proposal_grid
from sparse_detr.token_selection import (
    PerLayer,
    PerLevel,
    RankedTokens,
    ScoreMass,
    TopRhoSelection,
    Uniform,
    kept_count,
)

SHAPES = [(4, 5), (2, 3)]
VALID = [[(4, 5), (2, 3)], [(2, 3), (1, 2)]]


def select(keep_ratio, logits=None, valid=VALID, **switches):
    tokens = tokens_of(SHAPES, valid)
    if logits is None:
        logits = torch.randn(len(valid), 26).double()
    selection = TopRhoSelection(**switches)(logits, tokens, proposal_grid(tokens), keep_ratio)
    return tokens, selection


def own_tokens(kept, image):
    return kept.kept_indices[image, : kept.kept_counts[image]].tolist()


def ranking(tokens, selection, image):
    """Own tokens of an image, best first: proposals before the others, ties to the earlier."""
    scores, inside = selection.token_scores[image], proposal_grid(tokens).is_proposal[image]
    own = (~tokens.padding_mask[image]).nonzero()[:, 0].tolist()
    return sorted(own, key=lambda t: (not inside[t], -scores[t].item() if inside[t] else 0, t))


@pytest.mark.parametrize("ratios", [(0.1, 0.5), (0.5, 0.1), (1.0, 0.01), (0.3, 0.3)])
def test_each_level_keeps_the_share_of_its_own_tokens_with_its_highest_scores(ratios):
    tokens, selection = select(PerLevel(ratios))
    (kept,) = selection.layers
    for image, sizes in enumerate(VALID):
        expected, start = set(), 0
        ranked = ranking(tokens, selection, image)
        for (height, width), (rows, columns), ratio in zip(SHAPES, sizes, ratios, strict=True):
            level = range(start, start + height * width)
            count = min(kept_count(rows * columns, ratio), rows * columns)
            expected |= set([t for t in ranked if t in level][:count])
            start += height * width
        assert set(own_tokens(kept, image)) == expected
        assert kept.kept_counts[image] == len(expected)


def test_rows_of_all_levels_are_sorted_by_score_together_without_duplicates():
    tokens, selection = select(PerLevel((0.4, 0.7)))
    (kept,) = selection.layers
    for image in range(2):
        own = own_tokens(kept, image)
        assert own == [t for t in ranking(tokens, selection, image) if t in own]
        assert len(set(kept.kept_indices[image].tolist())) == kept.kept_indices.shape[1]


def test_padding_competes_per_level_as_it_does_overall():
    _, selection = select(PerLevel((1.0, 1.0)), padding_competes=True)
    assert selection.layers[0].kept_counts == (26, 10)  # 6 + 1 and 2 + 1 of the smaller image
    _, selection = select(PerLevel((1.0, 1.0)))
    assert selection.layers[0].kept_counts == (26, 8)


def test_each_layer_keeps_what_its_own_entry_says():
    logits = torch.randn(2, 26).double()
    entries = (0.5, PerLevel((0.1, 1.0)), ScoreMass(0.5))
    _, together = select(PerLayer(entries), logits)
    assert len(together.layers) == 3
    for kept, entry in zip(together.layers, entries, strict=True):
        _, alone = select(entry, logits)
        assert kept.kept_counts == alone.layers[0].kept_counts
        assert torch.equal(kept.kept_indices, alone.layers[0].kept_indices)


def test_layers_with_equal_entries_share_one_object():
    _, selection = select(PerLayer((0.5, 0.2, 0.5)))
    assert selection.layers[0] is selection.layers[2]
    _, selection = select(PerLayer((0.3, 0.3, 0.3)))
    assert len(selection.layers) == 1


def mass_by_hand(tokens, selection, image, share, lowest, highest):
    """Tokens in order until the share of the sum of all own tokens' sigmoids is reached."""
    mass = [1 / (1 + math.exp(-s)) for s in selection.token_scores[image].tolist()]
    ranked = ranking(tokens, selection, image)
    wanted, reached, count = share * math.fsum(mass[t] for t in ranked), 0.0, 0
    for token in ranked:
        reached += mass[token]
        count += 1
        if reached >= wanted:
            break
    least, most = (min(kept_count(len(ranked), r), len(ranked)) for r in (lowest, highest))
    return ranked[: min(max(count, least), most)]


@given(
    st.floats(0.01, 0.99),
    st.tuples(st.floats(0.01, 1.0), st.floats(0.01, 1.0)).map(sorted),
    st.integers(0, 10**6),
)
@settings(max_examples=100, deadline=None)
def test_score_mass_equals_the_rule_as_a_plain_loop(share, bounds, seed):
    logits = 3 * torch.randn(2, 26, generator=torch.Generator().manual_seed(seed)).double()
    tokens, selection = select(ScoreMass(share, *bounds), logits)
    for image in range(2):
        expected = mass_by_hand(tokens, selection, image, share, *bounds)
        assert own_tokens(selection.layers[0], image) == expected


@given(st.floats(0.01, 1.0), st.floats(0.01, 1.0), st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_a_greater_share_of_the_mass_never_keeps_fewer_tokens(first, second, seed):
    logits = 3 * torch.randn(2, 26, generator=torch.Generator().manual_seed(seed)).double()
    low, high = sorted((first, second))
    few = select(ScoreMass(low), logits)[1].layers[0].kept_counts
    many = select(ScoreMass(high), logits)[1].layers[0].kept_counts
    assert all(a <= b for a, b in zip(few, many, strict=True))


def test_images_whose_scores_are_concentrated_keep_fewer_tokens():
    logits = torch.full((2, 26), -8.0).double()
    logits[0, [6, 7]] = 6.0
    logits[1] = 0.0
    counts = select(ScoreMass(0.9), logits, valid=[VALID[0]] * 2)[1].layers[0].kept_counts
    assert counts[0] == 2 and counts[1] >= 20


def test_the_host_waits_once_for_all_images(monkeypatch):
    waits = []
    given_tensor = torch.Tensor.tolist
    monkeypatch.setattr(
        torch.Tensor, "tolist", lambda self: waits.append(self.shape) or given_tensor(self)
    )
    select(ScoreMass(0.5))
    assert waits == [(2,)]


def test_a_budget_is_refused_where_the_detector_is_not_known():
    with pytest.raises(ValueError, match="'gflops:1' is a budget of the whole detector"):
        select("gflops:1")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform(0), r"keep_ratio must be a number in \(0, 1\], got 0"),
        (lambda: PerLevel((0.1, 2)), r"level 1 of keep_ratio must be .* got 2"),
        (lambda: PerLevel(()), "levels must be a sequence of at least one, got"),
        (lambda: PerLevel("0.1"), "levels must be a sequence"),
        (lambda: PerLayer((0.1, "x")), r"layer 1 of keep_ratio must be .* got 'x'"),
        (lambda: PerLayer((0.1, PerLayer((0.1,)))), "must be a number, levels:... or mass:..."),
        (lambda: ScoreMass(1.5), "share of the score mass in keep_ratio must be"),
        (lambda: ScoreMass(0.5, 0.5, 0.1), "bounds .* must be lowest-highest, got 0.5-0.1"),
    ],
)
def test_values_that_make_no_sense_are_refused_with_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_layers_that_differ_have_no_single_selection():
    tokens = tokens_of(SHAPES, VALID)
    scores = torch.randn(2, 26).double()
    ranked = RankedTokens(scores, scores, tokens)
    assert PerLayer((0.5, 0.5)).keep(ranked).kept_counts == (14, 5)
    with pytest.raises(ValueError, match="other tokens in other layers"):
        PerLayer((0.5, 0.1)).keep(ranked)
