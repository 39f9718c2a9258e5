"""The decoder: refinement, references, and what it computes when."""

import pytest
import torch

from small_tokens import tokens_of
from sparse_detr.decoder import DeformableDecoder
from sparse_detr.heads import DetectionHeads
from sparse_detr.structures import DecoderQueries

C, Q, LAYERS = 8, 5, 3
SHAPES = [(4, 5), (2, 3)]
VALID = [[(4, 5), (2, 3)], [(2, 3), (1, 2)]]


class Decoding:
    """A decoder with random weights and its inputs."""

    def __init__(self, refine=True, coordinates=4, **switches):
        self.tokens = tokens_of(SHAPES, VALID)
        self.decoder = DeformableDecoder(
            C, 2, 2, LAYERS, feedforward_dim=16, dropout=0.0, refine_boxes=refine, **switches
        ).double()
        self.heads = DetectionHeads(C, 3, LAYERS, True).double()
        with torch.no_grad():
            for parameter in [*self.decoder.parameters(), *self.heads.parameters()]:
                parameter.add_(0.3 * torch.randn_like(parameter))
        self.content = torch.randn(2, Q, C).double().requires_grad_()
        self.position = torch.randn(2, Q, C).double()
        self.reference = (0.2 + 0.6 * torch.rand(2, Q, coordinates)).double().requires_grad_()
        self.memory = self.tokens.features.clone().requires_grad_()

    def run(self, all_layers=True, with_sampling=False):
        queries = DecoderQueries(self.content, self.position, self.reference)
        return self.decoder(
            queries, self.memory, self.tokens, self.heads, all_layers, with_sampling
        )


def count_calls(modules):
    calls = [0] * len(modules)

    def hook(index):
        def count(module, args, output):
            calls[index] += 1

        return count

    for index, module in enumerate(modules):
        module.register_forward_hook(hook(index))
    return calls


def count_sampling(module):
    """Notes every attention that gives its sampling."""
    calls = []
    for layer in module.layers:
        layer.cross_attn.register_forward_hook(
            lambda module, args, output: calls.append(1) if output[1] is not None else None
        )
    return calls


@pytest.mark.parametrize("coordinates", [2, 4])
def test_each_layer_starts_from_the_boxes_of_the_layer_before(coordinates):
    case = Decoding(coordinates=coordinates)
    got = case.run().predictions
    content, reference = case.content, case.reference
    ratios = case.tokens.valid_ratios[:, None]
    for index, layer in enumerate(case.decoder.layers):
        scale = ratios.repeat(1, 1, 1, reference.shape[-1] // 2)
        content, _ = layer(
            content,
            case.position,
            reference[:, :, None] * scale,
            case.memory,
            case.tokens.spatial_shapes,
            case.tokens.valid_sizes,
        )
        boxes = case.heads.decoder(index).boxes(content, reference)
        torch.testing.assert_close(got[index].boxes_cxcywh, boxes)
        torch.testing.assert_close(got[index].logits, case.heads.decoder(index).logits(content))
        reference = boxes.detach()


def test_without_refinement_every_layer_starts_from_the_first_reference():
    case = Decoding(refine=False, coordinates=2)
    sampling = case.run(with_sampling=True).sampling
    start = case.reference[:, :, None] * case.tokens.valid_ratios[:, None]
    with torch.no_grad():
        for layer in case.decoder.layers:
            layer.cross_attn.sampling_offsets.weight.zero_()
            layer.cross_attn.sampling_offsets.bias.zero_()
    for read in case.run(with_sampling=True).sampling:
        torch.testing.assert_close(read.locations[:, :, 0, :, 0], start)
    assert len(sampling) == LAYERS


def test_no_gradient_flows_from_a_layer_through_the_boxes_of_the_layer_before():
    case = Decoding()
    case.run().predictions[1].boxes_cxcywh.sum().backward()
    assert all(p.grad is None for p in case.heads.decoder(0).bbox_embed.parameters())
    assert all(p.grad is not None for p in case.heads.decoder(1).bbox_embed.parameters())


def test_later_layers_send_no_gradient_to_the_first_references():
    case = Decoding()
    first, second = case.run().predictions[:2]
    (from_first,) = torch.autograd.grad(first.boxes_cxcywh.sum(), case.reference)
    assert from_first.abs().sum() > 0
    # The second layer reads its boxes from a detached reference, so what is left comes through
    # the place where the first layer's cross-attention sampled.
    with torch.no_grad():
        case.decoder.layers[0].cross_attn.output_proj.weight.zero_()
    second = case.run().predictions[1]
    (from_second,) = torch.autograd.grad(second.boxes_cxcywh.sum(), case.reference)
    assert from_second.abs().sum() == 0


@pytest.mark.parametrize("all_layers", [True, False])
def test_box_heads_run_once_per_layer(all_layers):
    case = Decoding()
    calls = count_calls([case.heads.decoder(i).bbox_embed for i in range(LAYERS)])
    case.run(all_layers)
    assert calls == [1] * LAYERS


def test_at_inference_only_the_final_class_head_runs():
    case = Decoding()
    calls = count_calls([case.heads.decoder(i).class_embed for i in range(LAYERS)])
    output = case.run(all_layers=False)
    assert calls == [0] * (LAYERS - 1) + [1]
    assert len(output.predictions) == 1


def test_at_inference_without_refinement_only_the_final_box_head_runs():
    case = Decoding(refine=False)
    calls = count_calls([case.heads.decoder(i).bbox_embed for i in range(LAYERS)])
    case.run(all_layers=False)
    assert calls == [0] * (LAYERS - 1) + [1]


def test_the_final_predictions_do_not_depend_on_whether_the_others_are_asked_for():
    case = Decoding()
    everything, final = case.run(True).predictions, case.run(False).predictions
    assert torch.equal(everything[-1].logits, final[-1].logits)
    assert torch.equal(everything[-1].boxes_cxcywh, final[-1].boxes_cxcywh)


@pytest.mark.parametrize("choice", [None, True, False])
def test_the_order_of_sampling_and_projection_is_that_of_the_config_and_changes_nothing(choice):
    case = Decoding(project_after_sampling=choice)
    assert {layer.cross_attn.project_after_sampling for layer in case.decoder.layers} == {choice}
    got = case.run().predictions[-1].logits
    for layer in case.decoder.layers:
        layer.cross_attn.project_after_sampling = not choice
    torch.testing.assert_close(got, case.run().predictions[-1].logits, rtol=0, atol=1e-12)


def test_sampling_is_kept_only_when_asked_for():
    case = Decoding()
    assert case.run().sampling == ()
    sampling = case.run(with_sampling=True).sampling
    assert len(sampling) == LAYERS
    calls = count_sampling(case.decoder)
    case.run()
    assert calls == []
    assert sampling[0].locations.shape == (2, Q, 2, 2, 4, 2)
    torch.testing.assert_close(sampling[0].weights.flatten(3).sum(-1), torch.ones(2, Q, 2).double())


def test_the_class_logits_are_no_function_of_where_padding_lies():
    case = Decoding()
    before = case.run().predictions[-1].logits
    with torch.no_grad():
        case.memory.masked_fill_(case.tokens.padding_mask[..., None], 1e6)
    assert torch.equal(before, case.run().predictions[-1].logits)


def test_permuting_the_queries_permutes_the_predictions():
    case = Decoding()
    before = case.run().predictions[-1]
    order = torch.randperm(Q)
    for name in ("content", "position", "reference"):
        setattr(case, name, getattr(case, name)[:, order])
    after = case.run().predictions[-1]
    torch.testing.assert_close(after.logits, before.logits[:, order])
    torch.testing.assert_close(after.boxes_cxcywh, before.boxes_cxcywh[:, order])


def test_recomputing_activations_gives_identical_gradients():
    case, gradients = Decoding(), []
    case.decoder.train()
    for flag in (False, True):
        case.decoder.checkpoint_activations = flag
        case.decoder.zero_grad()
        sum(p.boxes_cxcywh.sum() for p in case.run().predictions).backward()
        gradients.append([p.grad.clone() for p in case.decoder.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


def test_the_norms_are_numbered_as_in_released_checkpoints():
    """norm2 follows the self-attention, norm1 the cross-attention, norm3 the last part."""
    layer, order = Decoding().decoder.layers[0], []
    for name in ("self_attn", "cross_attn", "ffn", "norm1", "norm2", "norm3"):
        getattr(layer, name).register_forward_hook(
            lambda module, args, output, name=name: order.append(name)
        )
    case = Decoding()
    layer(
        case.content,
        case.position,
        case.reference[:, :, None].expand(-1, -1, 2, -1),
        case.memory,
        case.tokens.spatial_shapes,
        case.tokens.valid_sizes,
    )
    assert order == ["self_attn", "norm2", "cross_attn", "norm1", "ffn", "norm3"]
