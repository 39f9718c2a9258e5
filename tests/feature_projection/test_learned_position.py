"""Learned positions: which table gives which half, and their limit."""

import pytest
import torch

from sparse_detr.feature_projection import LearnedPositionEmbedding
from sparse_detr.structures import FeatureMaps

SHAPE = (3, 4)


def maps(*shapes, batch=2, valid=None):
    sizes = tuple(valid or [shapes] * batch)
    return FeatureMaps(tuple(torch.zeros(batch, 8, *s).double() for s in shapes), sizes)


def test_the_column_comes_first_and_the_row_second():
    embedding = LearnedPositionEmbedding(8, 1).double()
    position = embedding(maps(SHAPE)).position.view(2, *SHAPE, 8)
    for row in range(3):
        for column in range(4):
            halves = embedding.col_embed.weight[column], embedding.row_embed.weight[row]
            assert torch.equal(position[1, row, column], torch.cat(halves))


def test_every_level_counts_its_rows_from_the_first_of_the_table():
    embedding = LearnedPositionEmbedding(8, 2).double()
    tokens = embedding(maps(SHAPE, (2, 2)))
    first, second = tokens.position.split([12, 4], dim=1)
    assert torch.equal(second.view(2, 2, 2, 8), first.view(2, *SHAPE, 8)[:, :2, :2])


def test_own_tokens_have_the_same_position_whatever_the_padding():
    embedding = LearnedPositionEmbedding(8, 1).double()
    padded = embedding(maps(SHAPE, valid=[(SHAPE,), ((2, 2),)])).position.view(2, *SHAPE, 8)
    alone = embedding(maps((2, 2), batch=1)).position.view(2, 2, 8)
    assert torch.equal(padded[1, :2, :2], alone)


def test_positions_of_single_tokens_and_through_a_linear_map_are_those_of_the_whole():
    embedding = LearnedPositionEmbedding(8, 2, level_embedding=True).double()
    positions = embedding(maps(SHAPE, (2, 2))).positions
    whole = positions.everywhere().expand(2, -1, -1)
    indices = torch.tensor([[3, 15, 0], [12, 7, 7]])
    picked = torch.stack([whole[b, indices[b]] for b in range(2)])
    assert torch.equal(positions.of(indices), picked)
    weight = torch.randn(5, 8).double()
    mapped = torch.cat([m.flatten(1, 2) for m in positions.projected(weight)], dim=1)
    torch.testing.assert_close(mapped.expand(2, -1, -1), whole @ weight.T)


def test_both_tables_start_uniform_and_learn():
    embedding = LearnedPositionEmbedding(8, 1)
    for table in (embedding.row_embed, embedding.col_embed):
        assert table.weight.shape == (50, 4)
        assert table.weight.min() >= 0 and table.weight.max() <= 1
        assert table.weight.mean().item() == pytest.approx(0.5, abs=0.1)
    embedding.double()(maps(SHAPE)).position.sum().backward()
    rows, columns = embedding.row_embed.weight.grad, embedding.col_embed.weight.grad
    assert (rows[:3] == 8).all() and (rows[3:] == 0).all()
    assert (columns[:4] == 6).all() and (columns[4:] == 0).all()


def test_more_cells_than_the_tables_hold_are_refused():
    embedding = LearnedPositionEmbedding(8, 1, num_cells=5).double()
    embedding(maps((5, 5)))
    with pytest.raises(ValueError, match=r"at most num_cells=5 rows and columns .*got 6"):
        embedding(maps((4, 6)))


def test_there_is_no_level_embedding_unless_asked_for():
    names = set(dict(LearnedPositionEmbedding(8, 1).named_parameters()))
    assert names == {"row_embed.weight", "col_embed.weight"}
