"""The dense and the sparse encoder, and its auxiliary heads."""

import dataclasses
import weakref

import pytest
import torch

from small_tokens import kept, tokens_of
from sparse_detr.encoder import DeformableEncoder, auxiliary_predictions
from sparse_detr.heads import DetectionHeads
from sparse_detr.query_selection import ProposalProjection, Proposals, proposal_grid
from sparse_detr.structures import KeptTokens, TokenSelection

C, N = 8, 26
SHAPES = [(4, 5), (2, 3)]
VALID = [[(4, 5), (2, 3)], [(2, 3), (1, 2)]]


def encoder(num_layers=3, **switches):
    module = DeformableEncoder(
        C, 2, 2, num_layers=num_layers, feedforward_dim=16, dropout=0.0, **switches
    ).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def all_tokens(tokens, order=None):
    indices = torch.arange(N) if order is None else order
    batch = len(tokens.valid_counts)
    return TokenSelection((KeptTokens(indices.expand(batch, -1), (N,) * batch),))


def test_keeping_every_token_equals_the_dense_encoder_in_any_order():
    tokens, module = tokens_of(SHAPES, batch=2), encoder()
    dense = module(tokens, None).memory
    sparse = module(tokens, all_tokens(tokens, torch.randperm(N))).memory
    torch.testing.assert_close(sparse, dense, rtol=0, atol=1e-12)


def test_tokens_that_are_not_kept_leave_as_they_came():
    tokens = tokens_of(SHAPES, VALID)
    selection = TokenSelection((kept([[3, 7, 24], [0, 20, 1]], [3, 2]),))
    memory = encoder()(tokens, selection).memory
    same = (memory == tokens.features).all(-1)
    assert torch.equal(~same, selection.layers[0].membership(N))


def test_surplus_rows_are_never_written_whatever_they_are():
    tokens, module = tokens_of(SHAPES, VALID), encoder()
    first = module(tokens, TokenSelection((kept([[3, 7, 24], [0, 20, 1]], [3, 2]),))).memory
    second = module(tokens, TokenSelection((kept([[3, 7, 24], [0, 20, 19]], [3, 2]),))).memory
    assert torch.equal(first, second)


def test_every_layer_reads_the_memory_of_the_layer_before():
    tokens, module = tokens_of(SHAPES, batch=1), encoder(2)
    selection = TokenSelection((kept([[3, 7]], [2]),))
    got = module(tokens, selection).memory
    rows, memory = selection.layers[0].gather(tokens.features), tokens.features
    gather = selection.layers[0].gather
    for layer in module.layers:
        rows = layer(
            rows,
            memory,
            gather(tokens.position),
            gather(tokens.reference_points()),
            tokens.spatial_shapes,
            tokens.value_extents,
        )
        memory = memory.clone()
        memory[0, [3, 7]] = rows[0]
    torch.testing.assert_close(got, memory, rtol=0, atol=1e-13)


def test_what_stands_on_padding_does_not_reach_real_tokens():
    tokens, module = tokens_of(SHAPES, VALID), encoder()
    spoiled = tokens.features.masked_fill(tokens.padding_mask[..., None], 1e6)
    other = dataclasses.replace(tokens, features=spoiled)
    for selection in (None, TokenSelection((kept([[3, 7, 24], [0, 20, 1]], [3, 3]),))):
        own = ~tokens.padding_mask
        assert torch.equal(
            module(tokens, selection).memory[own], module(other, selection).memory[own]
        )


def test_a_selection_may_differ_from_layer_to_layer():
    tokens, module = tokens_of(SHAPES, batch=1), encoder(2)
    first, second = kept([[3, 7]], [2]), kept([[7, 11, 2]], [3])
    together = module(tokens, TokenSelection((first, second))).memory
    alone = encoder(1)
    alone.layers[0].load_state_dict(module.layers[0].state_dict())
    between = alone(tokens, TokenSelection((first,))).memory
    alone.layers[0].load_state_dict(module.layers[1].state_dict())
    continued = dataclasses.replace(tokens, features=between)
    expected = alone(continued, TokenSelection((second,))).memory
    torch.testing.assert_close(together, expected, rtol=0, atol=1e-13)


def test_the_same_selection_for_every_layer_equals_one_shared_entry():
    tokens, module = tokens_of(SHAPES, batch=1), encoder(3)
    rows = kept([[3, 7]], [2])
    copies = tuple(kept([[3, 7]], [2]) for _ in range(3))
    torch.testing.assert_close(
        module(tokens, TokenSelection((rows,))).memory,
        module(tokens, TokenSelection(copies)).memory,
        rtol=0,
        atol=1e-13,
    )


@pytest.mark.parametrize("num_auxiliary", [0, 2])
def test_rows_are_kept_for_the_auxiliary_heads_only_when_asked_for(num_auxiliary):
    tokens = tokens_of(SHAPES, VALID)
    selection = TokenSelection((kept([[3, 7, 24], [0, 20, 1]], [3, 2]),))
    output = encoder()(tokens, selection, num_auxiliary)
    assert [tuple(r.shape) for r in output.layer_rows] == [(2, 3, C)] * num_auxiliary


def test_surplus_rows_are_carried_through_the_layers_for_the_released_loss():
    tokens, module = tokens_of(SHAPES, VALID), encoder()
    rows = module(tokens, TokenSelection((kept([[3, 7], [0, 1]], [2, 1]),)), 3).layer_rows
    other = module(tokens, TokenSelection((kept([[3, 7], [0, 1]], [2, 2]),)), 1).layer_rows
    assert torch.equal(rows[0], other[0])
    assert not torch.equal(rows[0][1, 1], rows[1][1, 1])


@pytest.mark.parametrize("counts", [[3, 3], [3, 2]])
def test_without_gradients_rows_are_written_in_place_but_the_tokens_stay_as_they_are(counts):
    tokens, module = tokens_of(SHAPES, VALID), encoder()
    before = tokens.features.clone()
    selection = TokenSelection((kept([[3, 7, 24], [0, 20, 1]], counts),))
    expected = module(tokens, selection, 2)
    seen = []
    for layer in module.layers:
        layer.register_forward_hook(lambda module, args, output: seen.append(args[1].data_ptr()))
    with torch.no_grad():
        got = module(tokens, selection, 2)
    assert torch.equal(got.memory, expected.memory)
    assert all(map(torch.equal, got.layer_rows, expected.layer_rows))
    assert torch.equal(tokens.features, before)
    assert seen == [tokens.features.data_ptr()] + [got.memory.data_ptr()] * 2


@pytest.mark.parametrize("choice", [True, False])
def test_a_training_step_keeps_rows_of_every_layer_but_no_memory_of_its_own(choice):
    tokens, module = tokens_of(SHAPES, VALID), encoder(4, project_after_sampling=choice)
    selection = TokenSelection((kept([[3, 7, 24], [0, 20, 1]], [3, 2]),))
    seen = []
    for layer in module.layers:
        layer.register_forward_hook(lambda m, args, output: seen.append(weakref.ref(args[1])))
    memory = module(tokens, selection).memory
    assert [ref() is not None for ref in seen] == [True, False, False, False]
    memory.square().sum().backward()
    rebuilt = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    copies = TokenSelection(tuple(kept([[3, 7, 24], [0, 20, 1]], [3, 2]) for _ in range(4)))
    module(tokens, copies).memory.square().sum().backward()  # keeps every memory
    for one, other in zip(rebuilt, module.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad, rtol=0, atol=1e-12)


def test_the_memory_says_which_tokens_alone_were_changed():
    tokens, module = tokens_of(SHAPES, batch=1), encoder(2)
    first, second = kept([[3, 7]], [2]), kept([[7, 11, 2]], [3])
    assert module(tokens, TokenSelection((first,))).kept is first
    assert module(tokens, TokenSelection((first, second))).kept is None
    assert module(tokens, None).kept is None


@pytest.mark.parametrize("choice", [None, True, False])
def test_the_order_of_sampling_and_projection_is_that_of_the_config_and_changes_nothing(choice):
    tokens, module = tokens_of(SHAPES, VALID), encoder(project_after_sampling=choice)
    assert {layer.self_attn.project_after_sampling for layer in module.layers} == {choice}
    selection = TokenSelection((kept([[3, 7, 24], [0, 20, 1]], [3, 2]),))
    got = module(tokens, selection).memory
    for layer in module.layers:
        layer.self_attn.project_after_sampling = not choice
    torch.testing.assert_close(got, module(tokens, selection).memory, rtol=0, atol=1e-12)


def test_recomputing_activations_gives_identical_gradients():
    tokens = tokens_of(SHAPES, VALID)
    selection = TokenSelection((kept([[3, 7, 24], [0, 20, 1]], [3, 2]),))
    gradients = []
    module = encoder().train()
    for flag in (False, True):
        module.checkpoint_activations = flag
        module.zero_grad()
        module(tokens, selection).memory.square().sum().backward()
        gradients.append([p.grad.clone() for p in module.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


def auxiliary(selection, valid=VALID):
    tokens = tokens_of(SHAPES, valid)
    heads = DetectionHeads(C, 3, 1, True, num_encoder_layers=3, encoder_auxiliary=True).double()
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.add_(torch.randn_like(parameter))
    proposals = Proposals(proposal_grid(tokens), ProposalProjection(C).double())
    output = encoder()(tokens, selection, 2)
    return output, heads, proposals, auxiliary_predictions(output, selection, proposals, heads)


def test_auxiliary_boxes_are_offsets_from_the_proposals_of_the_kept_tokens():
    selection = TokenSelection((kept([[3, 7, 24], [0, 20, 1]], [3, 2]),))
    output, heads, proposals, predictions = auxiliary(selection)
    for layer, got in enumerate(predictions):
        head = heads.encoder(layer)
        for image, row, token in ((0, 1, 7), (1, 0, 0)):
            features = output.layer_rows[layer][image, row]
            box = (head.bbox_embed(features) + proposals.grid.box_logits[image, token]).sigmoid()
            torch.testing.assert_close(got.boxes_cxcywh[image, row], box)
            torch.testing.assert_close(got.logits[image, row], head.class_embed(features))


def test_surplus_rows_and_padding_are_no_candidates_of_the_auxiliary_heads():
    selection = TokenSelection((kept([[3, 7, 24], [0, 19, 1]], [3, 2]),))
    *_, predictions = auxiliary(selection)
    assert predictions[0].candidate_mask.tolist() == [[True] * 3, [True, False, False]]


def test_auxiliary_heads_of_a_dense_encoder_predict_for_every_token():
    _, _, proposals, predictions = auxiliary(None)
    assert predictions[0].logits.shape == (2, N, 3)
    assert torch.equal(predictions[0].candidate_mask, proposals.grid.is_proposal)
