"""Sine positions, level embedding and padding of the tokens."""

import copy
import math
import pickle

import pytest
import torch

from sparse_detr.feature_projection import PositionEmbedding
from sparse_detr.structures import FeatureMaps

SHAPE = (4, 6)


def tokens(valid, hidden_dim=8, **switches):
    maps = torch.arange(len(valid) * hidden_dim * 24.0).view(len(valid), hidden_dim, *SHAPE)
    embedding = PositionEmbedding(hidden_dim, 1, **switches).double()
    torch.nn.init.zeros_(embedding.level_embed)
    return embedding(FeatureMaps((maps.double(),), tuple((v,) for v in valid)))


def test_y_features_come_first_and_follow_the_formula():
    position = tokens([(3, 4)]).position[0].view(*SHAPE, 8)
    phase_y = 1.5 / (3 + 1e-6) * 2 * math.pi
    phase_x = 2.5 / (4 + 1e-6) * 2 * math.pi
    expected = [
        f(phase / divisor)
        for phase in (phase_y, phase_x)
        for divisor in (1, 100)
        for f in (math.sin, math.cos)
    ]
    torch.testing.assert_close(position[1, 2], torch.tensor(expected).double())


def test_positions_are_relative_to_the_image_not_to_the_padded_map():
    padded = tokens([(2, 3)]).position[0].view(*SHAPE, 8)
    small = PositionEmbedding(8, 1).double()
    torch.nn.init.zeros_(small.level_embed)
    cropped = small(FeatureMaps((torch.zeros(1, 8, 2, 3).double(),), (((2, 3),),)))
    torch.testing.assert_close(padded[:2, :3].reshape(-1, 8), cropped.position[0])


def test_padding_has_position_zero_by_default():
    got = tokens([(2, 3)])
    assert (got.position[got.padding_mask] == 0).all()
    assert (got.position[~got.padding_mask] != 0).any(-1).all()


def test_encode_padding_changes_positions_on_padding_only():
    default, released = tokens([(2, 3)]), tokens([(2, 3)], encode_padding=True)
    differs = (default.position != released.position).any(-1)
    assert torch.equal(differs, default.padding_mask)


def test_every_level_adds_its_own_embedding():
    embedding = PositionEmbedding(8, 2)
    maps = tuple(torch.zeros(1, 8, *SHAPE) for _ in range(2))
    position = embedding(FeatureMaps(maps, ((SHAPE, SHAPE),))).position[0]
    torch.testing.assert_close(
        position[24:] - position[:24],
        (embedding.level_embed[1] - embedding.level_embed[0]).expand(24, -1),
    )


def test_tokens_are_the_cells_row_by_row_without_position():
    got = tokens([SHAPE])
    maps = torch.arange(8 * 24.0).view(8, 24).double()
    assert torch.equal(got.features[0], maps.T)


def test_the_mask_marks_everything_outside_the_rectangle():
    first, second = tokens([(2, 3), (4, 6)]).padding_mask.view(2, *SHAPE)
    assert first.tolist() == [[False] * 3 + [True] * 3] * 2 + [[True] * 6] * 2
    assert not second.any()


def test_counts_are_the_tokens_outside_the_padding():
    got = tokens([(2, 3), (4, 6)])
    assert got.valid_counts == (6, 24)
    assert (~got.padding_mask).sum(1).tolist() == [6, 24]


def test_half_precision_maps_get_positions_in_float32():
    maps = torch.zeros(1, 8, *SHAPE, dtype=torch.bfloat16)
    got = PositionEmbedding(8, 1)(FeatureMaps((maps,), (((2, 3),),)))
    assert (
        got.position.dtype == got.valid_ratios.dtype == got.geometry.centres.dtype == torch.float32
    )


def test_a_width_that_sine_and_cosine_of_two_axes_cannot_share_is_refused():
    with pytest.raises(ValueError, match="hidden_dim must be divisible by 4"):
        PositionEmbedding(6, 1)


def test_a_wrong_number_of_levels_is_refused():
    with pytest.raises(ValueError, match="num_levels=2 levels, got 1"):
        PositionEmbedding(8, 2)(FeatureMaps((torch.zeros(1, 8, *SHAPE),), ((SHAPE,),)))


VALID = (((2, 3), (1, 2)), (SHAPE, (2, 3)))


def maps_of(valid=VALID, shapes=(SHAPE, (2, 3)), **options):
    return FeatureMaps(tuple(torch.randn(len(valid), 8, *s, **options) for s in shapes), valid)


@pytest.mark.parametrize("valid", [VALID, VALID[:1], ((SHAPE, (2, 3)),) * 2])
@pytest.mark.parametrize("encode_padding", [False, True])
def test_positions_of_some_tokens_are_those_of_all_of_them(valid, encode_padding):
    got = PositionEmbedding(8, 2, encode_padding)(maps_of(valid))
    indices = torch.stack([torch.randperm(30)[:5] for _ in valid])
    for image, rows in enumerate(indices):
        assert torch.equal(got.positions.of(indices)[image], got.position[image, rows])


@pytest.mark.parametrize("valid", [VALID, ((SHAPE, (2, 3)),)])
def test_a_product_with_rows_and_columns_is_one_with_the_positions_wherever_no_padding_is(valid):
    got = PositionEmbedding(8, 2).double()(maps_of(valid, dtype=torch.float64))
    weight = torch.randn(5, 8).double()
    levels = [p.expand(len(valid), -1, -1, -1) for p in got.positions.projected(weight)]
    product = torch.cat([p.flatten(1, 2) for p in levels], dim=1)
    expected, own = torch.nn.functional.linear(got.position, weight), ~got.padding_mask
    torch.testing.assert_close(product[own], expected[own], rtol=0, atol=1e-14)


def test_the_level_embedding_gets_the_gradient_of_every_use():
    embedding = PositionEmbedding(8, 2).double()
    got = embedding(maps_of(dtype=torch.float64))
    indices, weight = torch.tensor([[3, 25], [0, 29]]), torch.randn(5, 8).double()
    for part in (
        got.position,
        got.positions.of(indices),
        torch.cat([p.flatten(0, 2) for p in got.positions.projected(weight)]),
    ):
        (gradient,) = torch.autograd.grad(part.sum(), embedding.level_embed, retain_graph=True)
        assert (gradient != 0).all()


def test_equal_shapes_share_their_constants_and_others_do_not():
    embedding = PositionEmbedding(8, 2)
    first, second = embedding(maps_of()), embedding(maps_of())
    assert first.geometry is second.geometry
    assert first.positions.tables is second.positions.tables
    assert first.geometry.proposals[0] is second.geometry.proposals[0]
    assert embedding(maps_of(VALID[::-1])).geometry is not first.geometry
    assert embedding(maps_of(VALID[:1])).geometry is not first.geometry
    assert embedding.double()(maps_of()).geometry is not first.geometry


def test_positions_follow_the_level_embedding_and_the_switch_although_constants_are_kept():
    embedding = PositionEmbedding(8, 2)
    before = embedding(maps_of()).position
    with torch.no_grad():
        embedding.level_embed += 1
    torch.testing.assert_close(embedding(maps_of()).position, before + 1)
    embedding.encode_padding = True
    own = ~embedding(maps_of()).padding_mask
    assert not torch.allclose(embedding(maps_of()).position[~own], before[~own] + 1)
    torch.testing.assert_close(embedding(maps_of()).position[own], before[own] + 1)


def test_constants_made_in_inference_mode_serve_a_training_step():
    embedding = PositionEmbedding(8, 2)
    with torch.inference_mode():
        warm = embedding(maps_of())
        made = [warm.position, warm.reference_points(), *warm.geometry.proposals]
        assert made[0].is_inference()
    tokens = embedding(maps_of())
    assert tokens.geometry is warm.geometry
    geometry, tables = tokens.geometry, tokens.positions.tables
    constants = [geometry.valid_sizes, geometry.padding_mask, geometry.centres, geometry.cells[0]]
    constants += [geometry.reference_points, *geometry.proposals, tables.rows, tables.columns]
    assert not any(constant.is_inference() for constant in constants)
    weight = torch.randn(5, 8, requires_grad=True)
    sum(p.sum() for p in tokens.positions.projected(weight)).backward()
    assert weight.grad.isfinite().all()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_starts_with_constants_of_its_own(copied):
    embedding = PositionEmbedding(8, 2)
    tokens = embedding(maps_of())
    again = copied(embedding)(maps_of())
    assert again.geometry is not tokens.geometry
    assert torch.equal(again.position, tokens.position)


def test_a_traced_call_keeps_nothing_and_gives_the_same():
    embedding, maps = PositionEmbedding(8, 2), maps_of()

    def run(first, second):
        tokens = embedding(FeatureMaps((first, second), VALID))
        return tokens.position, tokens.reference_points(), tokens.geometry.proposals[0]

    traced = torch.compile(run, backend="eager", fullgraph=True)(*maps.maps)
    assert len(embedding._constants) == 0
    for got, expected in zip(traced, run(*maps.maps), strict=True):
        torch.testing.assert_close(got, expected)


def test_without_level_embedding_there_is_nothing_to_learn_and_only_the_cell_counts():
    embedding = PositionEmbedding(8, 1, level_embedding=False).double()
    assert not list(embedding.parameters()) and not embedding.state_dict()
    maps = FeatureMaps((torch.zeros(1, 8, *SHAPE).double(),), ((SHAPE,),))
    torch.testing.assert_close(embedding(maps).position, tokens([SHAPE]).position)


def test_temperature_and_offset_change_the_encoding_as_they_say():
    maps = FeatureMaps((torch.zeros(1, 8, 2, 3),), (((2, 3),),))
    tokens = PositionEmbedding(8, 1, temperature=20.0, offset=0.0)(maps)
    encoding = tokens.positions.tables.encoding(None)[0]
    for token in range(6):
        row, column = divmod(token, 3)
        expected = []
        for value in (2 * math.pi * (row + 1) / 2, 2 * math.pi * (column + 1) / 3):
            for pair in range(2):
                angle = value / 20 ** (2 * pair / 4)
                expected += [math.sin(angle), math.cos(angle)]
        torch.testing.assert_close(encoding[token], torch.tensor(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_padding_counts_as_image_in_evaluation_where_that_is_asked_for(training):
    maps = FeatureMaps((torch.zeros(1, 8, 2, 3),), (((1, 2),),))
    embedding = PositionEmbedding(8, 1, padding_in_evaluation=True).train(training)
    assert embedding(maps).padding_mask.any() == training
    assert PositionEmbedding(8, 1).eval()(maps).padding_mask.any()
