"""The decoder with dense cross-attention, and the map that it gives."""

import pytest
import torch
from torch import nn

from small_tokens import tokens_of
from sparse_detr.decoder import DenseDecoder
from sparse_detr.decoder_attention_map import attention_received
from sparse_detr.heads import DetectionHeads
from sparse_detr.structures import DecoderQueries, DetectorOutput

C, H, Q, LAYERS, N = 8, 2, 5, 3, 12
SHAPES = [(3, 4)]
VALID = [[(3, 4)], [(2, 2)]]


class Decoding:
    """A decoder with random weights and its inputs."""

    def __init__(self, reference=None, **switches):
        self.tokens = tokens_of(SHAPES, VALID)
        self.decoder = DenseDecoder(
            C, H, LAYERS, feedforward_dim=16, dropout=0.0, **switches
        ).double()
        self.heads = DetectionHeads(C, 3, LAYERS, False, individual=False).double()
        with torch.no_grad():
            for parameter in [*self.decoder.parameters(), *self.heads.parameters()]:
                parameter.add_(0.3 * torch.randn_like(parameter))
        self.content = torch.zeros(2, Q, C).double()
        self.position = torch.randn(2, Q, C).double()
        self.reference = reference
        self.memory = self.tokens.features.clone()

    def run(self, all_layers=True, with_sampling=False, query_mask=None):
        queries = DecoderQueries(self.content, self.position, self.reference, query_mask=query_mask)
        return self.decoder(
            queries, self.memory, self.tokens, self.heads, all_layers, with_sampling
        )

    def torchs_layer(self, index):
        """torch's decoder layer with the weights of one of ours."""
        layer = self.decoder.layers[index]
        theirs = nn.TransformerDecoderLayer(C, H, 16, 0.0, batch_first=True).double()
        for ours, name in (
            (layer.self_attn, "self_attn"),
            (layer.cross_attn, "multihead_attn"),
            (layer.norm2, "norm1"),
            (layer.norm1, "norm2"),
            (layer.norm3, "norm3"),
            (layer.ffn.linear1, "linear1"),
            (layer.ffn.linear2, "linear2"),
        ):
            getattr(theirs, name).load_state_dict(ours.state_dict())
        return theirs


def by_torch(case):
    """Features for the heads and attention weights (B, H, Q, N) of each layer."""
    content, memory, found = case.content, case.memory, []
    keys = memory + case.tokens.position
    for index in range(LAYERS):
        layer = case.torchs_layer(index)
        query = content + case.position
        content = layer.norm1(content + layer.self_attn(query, query, content)[0])
        attended, weights = layer.multihead_attn(
            content + case.position,
            keys,
            memory,
            case.tokens.padding_mask,
            average_attn_weights=False,
        )
        content = layer.norm2(content + attended)
        content = layer.norm3(content + layer.linear2(layer.linear1(content).relu()))
        found.append((case.decoder.norm(content), weights))
    return found


def test_every_layer_is_torchs_and_one_norm_stands_before_the_heads():
    case = Decoding()
    predictions = case.run().predictions
    for index, (features, _) in enumerate(by_torch(case)):
        logits = case.heads.decoder(index).logits(features)
        torch.testing.assert_close(predictions[index].logits, logits, rtol=0, atol=1e-12)
        boxes = case.heads.decoder(index).bbox_embed(features).sigmoid()
        torch.testing.assert_close(predictions[index].boxes_cxcywh, boxes, rtol=0, atol=1e-12)


def test_the_decoder_attention_map_is_the_sum_over_layers_heads_and_queries():
    case = Decoding()
    decoded = case.run(all_layers=False, with_sampling=True)
    queries = DecoderQueries(case.content, case.position, None)
    received = attention_received(DetectorOutput(case.tokens, None, (), queries, decoded))
    expected = torch.zeros(2, N).double()
    for _, weights in by_torch(case):
        for head in range(H):
            for query in range(Q):
                expected += weights[:, head, query]
    torch.testing.assert_close(received, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(received.sum(1), torch.full((2,), LAYERS * H * Q).double())
    assert (received[case.tokens.padding_mask] == 0).all()
    assert (received[~case.tokens.padding_mask] > 0).all()


def test_maps_are_kept_only_when_asked_for_and_change_no_prediction():
    case = Decoding()
    plain, mapped = case.run(), case.run(with_sampling=True)
    assert plain.attention_maps == () and plain.sampling == mapped.sampling == ()
    assert [tuple(m.shape) for m in mapped.attention_maps] == [(2, Q, N)] * LAYERS
    for one, other in zip(plain.predictions, mapped.predictions, strict=True):
        assert torch.equal(one.logits, other.logits)


def test_boxes_start_from_the_same_references_in_every_layer_where_there_are_some():
    reference = (0.2 + 0.6 * torch.rand(2, Q, 2)).double()
    case = Decoding(reference)
    for index, (features, _) in enumerate(by_torch(case)):
        expected = case.heads.decoder(index).boxes(features, reference)
        torch.testing.assert_close(case.run().predictions[index].boxes_cxcywh, expected)


def test_rows_that_are_no_queries_are_seen_by_none_and_weigh_nothing():
    case = Decoding()
    mask = torch.ones(2, Q).bool()
    mask[1, 3:] = False
    before = case.run(with_sampling=True, query_mask=mask)
    assert not before.attention_maps[0][1, 3:].any()
    case.position[1, 3:] = 1e3
    after = case.run(query_mask=mask).predictions[-1].logits
    assert torch.equal(after[mask], before.predictions[-1].logits[mask])


def test_what_stands_on_padding_changes_no_prediction():
    case = Decoding()
    before = case.run().predictions[-1].logits
    case.memory.masked_fill_(case.tokens.padding_mask[..., None], 1e6)
    assert torch.equal(before, case.run().predictions[-1].logits)


@pytest.mark.parametrize("all_layers", [True, False])
def test_at_inference_only_the_final_predictions_are_made(all_layers):
    assert len(Decoding().run(all_layers).predictions) == (LAYERS if all_layers else 1)


def test_recomputing_activations_gives_identical_gradients():
    case, gradients = Decoding(), []
    case.decoder.train()
    for flag in (False, True):
        case.decoder.checkpoint_activations = flag
        case.decoder.zero_grad()
        sum(p.boxes_cxcywh.sum() for p in case.run().predictions).backward()
        gradients.append([p.grad.clone() for p in case.decoder.parameters()])
    assert all(map(torch.equal, *gradients))


def test_pre_norm_norms_what_is_read_instead_of_the_sums():
    case = Decoding(pre_norm=True)
    got = case.run(with_sampling=True)
    content, keys = case.content, case.memory + case.tokens.position
    for index, layer in enumerate(case.decoder.layers):
        normed = layer.norm2(content)
        placed = normed + case.position
        content = content + layer.self_attn(placed, placed, normed, need_weights=False)[0]
        query = layer.norm1(content) + case.position
        read, attention = layer.cross_attn(query, keys, case.memory, case.tokens.padding_mask, True)
        content = content + read
        content = content + layer.ffn(layer.norm3(content))
        logits = case.heads.decoder(index).logits(case.decoder.norm(content))
        torch.testing.assert_close(got.predictions[index].logits, logits, rtol=0, atol=1e-12)
        torch.testing.assert_close(got.attention_maps[index], attention, rtol=0, atol=1e-12)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_without_gradients_the_predictions_are_the_same(pre_norm):
    case = Decoding(pre_norm=pre_norm)
    with torch.no_grad():
        fast = case.run()
    for got, expected in zip(fast.predictions, case.run().predictions, strict=True):
        torch.testing.assert_close(got.logits, expected.logits, rtol=0, atol=1e-12)
