"""The encoder with dual attention: which rows are its objects, and what happens to them."""

import pytest
import torch

from small_tokens import kept, tokens_of
from sparse_detr.encoder import DualAttentionEncoder
from sparse_detr.encoder.deformable_encoder import DeformableEncoderLayer
from sparse_detr.heads import DetectionHeads
from sparse_detr.structures import KeptTokens, TokenSelection

C, N = 8, 26
SHAPES = [(4, 5), (2, 3)]
VALID = [[(4, 5), (2, 3)], [(2, 3), (1, 2)]]


def randomised(module):
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def encoder(num_layers=2, **switches):
    return randomised(
        DualAttentionEncoder(C, 2, 2, num_layers=num_layers, feedforward_dim=16, **switches)
    )


def heads(num_classes=3):
    return randomised(DetectionHeads(C, num_classes, 1, two_stage=True))


def selection(indices, counts, *more):
    layers = [kept(indices, counts), *(kept(i, c) for i, c in more)]
    return TokenSelection(tuple(layers), torch.randn(len(counts), N).double())


def choose(module, chosen, tokens, head):
    """Scores and objects of the first layer."""
    first = chosen.layers[0]
    rows = first.gather(tokens.features)
    (objects,) = module.beside(rows, first, chosen, head)
    scores = module.multi_category_scores(
        first.gather(chosen.token_scores), head.first_stage().logits(rows).amax(-1)
    )
    return scores, objects


def test_the_objects_have_the_largest_products_of_foreground_and_class_logits():
    tokens, head = tokens_of(SHAPES, batch=1), heads()
    chosen = selection([list(range(0, 20, 2))], [10])
    scores, objects = choose(encoder(num_objects=4), chosen, tokens, head)
    assert objects.kept_counts == (4,)
    assert objects.kept_indices[0].tolist() == scores[0].argsort(descending=True)[:4].tolist()
    foreground = chosen.token_scores[0, 0:20:2]
    classes = head.first_stage().logits(tokens.features[0, 0:20:2]).amax(-1)
    torch.testing.assert_close(scores[0], foreground * classes)


def test_probabilities_can_be_multiplied_in_their_place():
    module = encoder(multiply_probabilities=True)
    one, other = torch.randn(1, 5).double(), torch.randn(1, 5).double()
    expected = one.sigmoid() * other.sigmoid()
    torch.testing.assert_close(module.multi_category_scores(one, other), expected)


def test_an_image_has_no_more_objects_than_it_keeps():
    tokens = tokens_of(SHAPES, VALID)
    chosen = selection([[3, 7, 24, 1], [0, 20, 1, 5]], [4, 2])
    _, objects = choose(encoder(num_objects=300), chosen, tokens, heads())
    assert objects.kept_counts == (4, 2)
    assert sorted(objects.kept_indices[1, :2].tolist()) == [0, 1]


def test_as_released_surplus_rows_can_be_objects():
    tokens = tokens_of(SHAPES, VALID)
    chosen = selection([[3, 7, 24, 1], [0, 20, 1, 5]], [4, 2])
    _, objects = choose(encoder(num_objects=3, surplus_attends=True), chosen, tokens, heads())
    assert objects.kept_counts == (3, 3)


@pytest.mark.parametrize("num_objects", [1, 3, 300])
def test_surplus_rows_never_change_an_image(num_objects):
    tokens, head = tokens_of(SHAPES, VALID), heads()
    module = encoder(num_objects=num_objects)
    chosen = selection([[3, 7, 24, 1], [0, 20, 1, 5]], [4, 2])
    other = KeptTokens(torch.tensor([[3, 7, 24, 1], [0, 20, 22, 9]]), (4, 2))
    first = module(tokens, chosen, 0, head).memory
    second = module(tokens, TokenSelection((other,), chosen.token_scores), 0, head).memory
    torch.testing.assert_close(first, second, rtol=0, atol=1e-13)


def test_only_the_objects_see_each_other():
    layer = encoder(1).layers[0]
    rows, position = torch.randn(1, 5, C).double(), torch.randn(1, 5, C).double()
    objects = kept([[3, 1]], [2])
    updated = layer.updated_objects(rows, position, objects)
    query = (rows + position)[:, [3, 1]]
    attended, _ = layer.object_attn(query, query, rows[:, [3, 1]])
    torch.testing.assert_close(updated, layer.object_norm(rows[:, [3, 1]] + attended))
    rows[:, 4] += 1
    assert torch.equal(updated, layer.updated_objects(rows, position, objects))


def test_a_layer_without_objects_is_a_deformable_one():
    tokens, layer = tokens_of(SHAPES, batch=1), encoder(1).layers[0]
    place = encoder(1).place(tokens, None)
    with_objects = layer(tokens.features, tokens.features, *place, kept([[3, 1]], [2]))
    plain = layer(tokens.features, tokens.features, *place)
    expected = DeformableEncoderLayer.forward(layer, tokens.features, tokens.features, *place)
    assert torch.equal(plain, expected)
    changed = ~torch.isclose(with_objects, plain).all(-1)[0]
    assert changed.nonzero()[:, 0].tolist() == [1, 3]


def test_values_are_the_tokens_as_they_came_unless_they_are_to_be_updated():
    tokens, head = tokens_of(SHAPES, batch=1), heads()
    rows = [[0, 1, 2, 3, 4, 5]], [6]
    late = [[20, 21]], [2]
    frozen, updated = encoder(update_values=False), encoder(update_values=True)
    updated.load_state_dict(frozen.state_dict())
    chosen = selection(*rows, late)
    one, other = (module(tokens, chosen, 0, head).memory for module in (frozen, updated))
    assert torch.equal(one[:, :6], other[:, :6])
    assert not torch.isclose(one[:, 20:22], other[:, 20:22]).all()


def test_tokens_that_are_not_kept_leave_as_they_came():
    tokens = tokens_of(SHAPES, VALID)
    chosen = selection([[3, 7, 24], [0, 20, 1]], [3, 2], ([[3, 7], [0, 20]], [2, 1]))
    memory = encoder()(tokens, chosen, 0, heads()).memory
    same = (memory == tokens.features).all(-1)
    assert torch.equal(~same, chosen.union(N))


@pytest.mark.parametrize("checkpoint", [False, True])
def test_every_weight_learns_and_the_class_head_learns_nothing_here(checkpoint):
    tokens, head = tokens_of(SHAPES, VALID), heads()
    module = encoder(num_objects=2, checkpoint_activations=checkpoint).train()
    chosen = selection([[3, 7, 24], [0, 20, 1]], [3, 2])
    module(tokens, chosen, 0, head).memory.square().sum().backward()
    assert [n for n, p in module.named_parameters() if p.grad is None] == []
    assert all(p.grad is None for p in head.parameters())


def test_without_scores_or_heads_it_says_what_is_missing():
    tokens, module = tokens_of(SHAPES, batch=1), encoder()
    for chosen, head in (
        (None, heads()),
        (selection([[0, 1]], [2]), None),
        (TokenSelection((kept([[0, 1]], [2]),)), heads()),
    ):
        with pytest.raises(ValueError, match="must be given a selection with token_scores"):
            module(tokens, chosen, 0, head)


def test_no_objects_at_all_are_refused():
    with pytest.raises(ValueError, match="num_objects must be at least 1"):
        encoder(num_objects=0)
