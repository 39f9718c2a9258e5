"""DINO's decoder: boxes with gradient from the layer before, positions made on the way."""

import pytest
import torch

from small_tokens import tokens_of
from sparse_detr.decoder import DeformableDecoder, ReferencePosition
from sparse_detr.heads import DetectionHeads
from sparse_detr.structures import DecoderQueries, DenoisingRows

C, Q, LAYERS = 8, 5, 3
SHAPES = [(4, 5), (2, 3)]
VALID = [[(4, 5), (2, 3)], [(2, 3), (1, 2)]]


class Decoding:
    """A decoder of DINO with random weights and its inputs."""

    def __init__(self, rows=0):
        self.tokens = tokens_of(SHAPES, VALID)
        self.decoder = DeformableDecoder(
            C,
            2,
            2,
            LAYERS,
            feedforward_dim=16,
            dropout=0.0,
            shared_norm=True,
            reference_position=ReferencePosition(C),
            look_forward_twice=True,
        ).double()
        self.heads = DetectionHeads(C, 3, LAYERS, True, reference_eps=1e-3).double()
        with torch.no_grad():
            for parameter in [*self.decoder.parameters(), *self.heads.parameters()]:
                parameter.add_(0.3 * torch.randn_like(parameter))
        self.content = torch.randn(2, rows + Q, C).double()
        self.reference = (0.2 + 0.6 * torch.rand(2, rows + Q, 4)).double()

    def run(self, all_layers=True, content=None, **kwargs):
        content = self.content if content is None else content
        queries = DecoderQueries(content, None, self.reference[:, : content.shape[1]], **kwargs)
        return self.decoder(
            queries, self.tokens.features, self.tokens, self.heads, all_layers, True
        )


def test_a_box_starts_from_the_box_before_which_the_queries_give_in_front_of_the_norm():
    case = Decoding()
    got = case.run().predictions
    content, reference, start = case.content, case.reference, case.reference
    scale = case.tokens.valid_ratios[:, None].repeat(1, 1, 1, 2)
    for index, layer in enumerate(case.decoder.layers):
        position = case.decoder.reference_position(reference, case.tokens.valid_ratios)
        surroundings = (case.tokens.features, case.tokens.spatial_shapes, case.tokens.valid_sizes)
        content, _ = layer(content, position, reference[:, :, None] * scale, *surroundings)
        head, normed = case.heads.decoder(index), case.decoder.norm(content)
        torch.testing.assert_close(got[index].boxes_cxcywh, head.boxes(normed, start))
        torch.testing.assert_close(got[index].logits, head.logits(normed))
        start = head.boxes(content, reference)
        reference = start.detach()


def test_a_layer_learns_from_the_boxes_of_the_next_and_of_no_later_one():
    for layer, learns in ((1, True), (2, False)):
        case = Decoding()
        case.run().predictions[layer].boxes_cxcywh.sum().backward()
        grads = [p.grad for p in case.heads.decoder(0).bbox_embed.parameters()]
        assert all((g is not None) is learns for g in grads)


def test_at_inference_the_final_layer_predicts_what_it_does_in_training():
    case = Decoding()
    training, inference = case.run().predictions[-1], case.run(all_layers=False).predictions[-1]
    torch.testing.assert_close(training.boxes_cxcywh, inference.boxes_cxcywh)
    torch.testing.assert_close(training.logits, inference.logits)


def test_matching_queries_get_with_denoising_queries_what_they_get_without():
    rows = DenoisingRows((1, 1), groups=2)
    case = Decoding(rows.rows)
    together = case.run(denoising=rows)
    case.reference = case.reference[:, rows.rows :]
    alone = case.run(content=case.content[:, rows.rows :])
    assert len(together.denoising) == LAYERS and alone.denoising == ()
    assert together.denoising[0].logits.shape == (2, rows.rows, 3)
    for got, expected in zip(together.predictions, alone.predictions, strict=True):
        torch.testing.assert_close(got.logits, expected.logits)
        torch.testing.assert_close(got.boxes_cxcywh, expected.boxes_cxcywh)
    for got, expected in zip(together.sampling, alone.sampling, strict=True):
        torch.testing.assert_close(got.locations, expected.locations)
        torch.testing.assert_close(got.weights, expected.weights)


def test_denoising_queries_that_are_none_are_seen_by_no_other():
    rows = DenoisingRows((2, 1), groups=1)
    case = Decoding(rows.rows)
    mask = torch.ones(2, rows.rows + Q, dtype=torch.bool)
    mask[1, [1, 3]] = False
    before = case.run(denoising=rows, query_mask=mask).denoising[-1]
    case.content = case.content.clone()
    case.content[1, [1, 3]] += 1
    after = case.run(denoising=rows, query_mask=mask).denoising[-1]
    torch.testing.assert_close(before.logits[1, [0, 2]], after.logits[1, [0, 2]])
    assert after.candidate_mask[1].tolist() == [True, False, True, False]


def test_nothing_looks_forward_without_refinement():
    with pytest.raises(ValueError, match="refine_boxes"):
        DeformableDecoder(C, 2, 2, refine_boxes=False, look_forward_twice=True)
