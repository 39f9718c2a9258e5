"""An optimised detector detects the same, and says what it cannot take."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from torch import nn

from builders import SYSTEMS, batch, small_detector
from optimization_models import (
    BACKBONES,
    backbone_detector,
    disagreement,
    output_of,
    perturb,
    relative_error,
)
from sparse_detr.engine.arguments import PRECISIONS as PRECISIONS_OF_THE_PROGRAM
from sparse_detr.inference import inspect_image, optimize_for_inference
from sparse_detr.inference.optimization import PRECISIONS
from sparse_detr.inference.optimization.onednn import computes_in_bfloat16, operators_exist
from sparse_detr.inference.optimization.packed_linear import PackedLinear
from sparse_detr.inference.optimization.packed_parts import PackedSelfAttention
from sparse_detr.inference.optimization.residual_blocks import PackedBlock

EXACT = 1e-5
SIZES = [(96, 128), (64, 160)]


@pytest.mark.parametrize("name", BACKBONES)
def test_logits_and_boxes_agree_in_float32(name: str) -> None:
    model = backbone_detector(name)
    optimized = optimize_for_inference(model)
    # Twice and in another size between: weights arranged for one size must not serve another.
    for sizes in ([(64, 96)], SIZES, SIZES, [(64, 96)], [(64, 96)]):
        assert disagreement(output_of(optimized, sizes), output_of(model, sizes)) < EXACT


@pytest.mark.parametrize("name", BACKBONES)
def test_float64_is_folded_exactly(name: str) -> None:
    model = backbone_detector(name).double()
    optimized = optimize_for_inference(model)
    assert disagreement(output_of(optimized, SIZES), output_of(model, SIZES)) < 1e-9


@pytest.mark.parametrize("system", [name for name in SYSTEMS if name != "sparse_detr"])
def test_every_system_agrees(system: str) -> None:
    model = backbone_detector("small_resnet", system)
    optimized = optimize_for_inference(model)
    assert disagreement(output_of(optimized, SIZES), output_of(model, SIZES)) < EXACT


def test_detections_are_the_same() -> None:
    model = backbone_detector("small_resnet")
    inputs = batch(SIZES)
    with torch.no_grad():
        expected = model(inputs)
    for ours, theirs in zip(optimize_for_inference(model)(inputs), expected, strict=True):
        ours, theirs = ours["instances"], theirs["instances"]
        assert torch.equal(ours.pred_classes, theirs.pred_classes)
        torch.testing.assert_close(ours.scores, theirs.scores, rtol=EXACT, atol=EXACT)
        torch.testing.assert_close(
            ours.pred_boxes.tensor, theirs.pred_boxes.tensor, rtol=EXACT, atol=200 * EXACT
        )


def test_keep_ratio_is_settable_and_taken_per_call() -> None:
    model = backbone_detector("small_resnet")
    optimized = optimize_for_inference(model)
    assert optimized.keep_ratio == model.keep_ratio == 0.3
    expected = output_of(model, SIZES, keep_ratio=0.8)
    assert disagreement(output_of(optimized, SIZES, keep_ratio=0.8), expected) < EXACT
    assert disagreement(output_of(optimized, SIZES), expected) > EXACT
    optimized.keep_ratio = 0.8
    assert disagreement(output_of(optimized, SIZES), expected) < EXACT
    assert model.keep_ratio == 0.3
    with pytest.raises(ValueError, match="keep_ratio"):
        optimized.keep_ratio = 2.0


def test_an_image_can_be_inspected() -> None:
    model = backbone_detector("small_resnet")
    (sample,) = batch([(96, 128)])
    expected = inspect_image(model, sample, with_sampling=True)
    inspected = inspect_image(optimize_for_inference(model), sample, with_sampling=True)
    assert inspected.strides == expected.strides
    layers = len(model.decoder.layers)
    assert len(inspected.output.decoder.sampling) == len(expected.output.decoder.sampling) == layers
    assert disagreement(inspected.output, expected.output) < EXACT


def test_attention_maps_of_dense_attention_are_told_as_before() -> None:
    model = backbone_detector("small_resnet", "sparse_single_scale_detr")
    (sample,) = batch([(96, 128)])
    maps = [
        inspect_image(detector, sample, with_sampling=True).output.decoder.attention_maps
        for detector in (model, optimize_for_inference(model))
    ]
    assert len(maps[0]) == len(maps[1]) == len(model.decoder.layers)
    assert max(relative_error(o, e) for e, o in zip(*maps, strict=True)) < EXACT


def test_the_detector_itself_stays_as_it_is() -> None:
    model = backbone_detector("small_resnet")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kinds = [type(module) for module in model.modules()]
    optimized = optimize_for_inference(model)
    expected = output_of(optimized, SIZES)
    assert [type(module) for module in model.modules()] == kinds
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.encoder.parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert disagreement(output_of(optimized, SIZES), expected) == 0


@pytest.mark.skipif(not operators_exist(), reason="torch was built without oneDNN")
def test_what_should_be_replaced_is_replaced() -> None:
    optimized = optimize_for_inference(backbone_detector("resnet50"))
    kinds = [type(module) for module in optimized.modules()]
    assert kinds.count(PackedBlock) == 16
    assert kinds.count(PackedSelfAttention) == len(optimized.decoder.layers)
    assert nn.Linear not in kinds and nn.MultiheadAttention not in kinds
    assert PackedLinear in kinds
    assert not [m for m in optimized.modules() if "BatchNorm" in type(m).__name__]


def test_a_detector_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"training mode in model; call model\.eval\(\) first"):
        optimize_for_inference(small_detector().train())
    model = small_detector()
    model.encoder.layers[1].train()
    with pytest.raises(ValueError, match=r"training mode in encoder\.layers\.1"):
        optimize_for_inference(model)


def test_other_models_and_arguments_are_refused() -> None:
    model = small_detector()
    with pytest.raises(TypeError, match="must be a TransformerDetector, got Linear"):
        optimize_for_inference(nn.Linear(2, 2).eval())
    with pytest.raises(ValueError, match="optimised already"):
        optimize_for_inference(optimize_for_inference(model))
    with pytest.raises(ValueError, match=r"precision must be one of exact, .* got 'float16'"):
        optimize_for_inference(model, "float16")
    with pytest.raises(ValueError, match=r"needs a float32 model, got torch\.float64"):
        optimize_for_inference(copy.deepcopy(model).double(), "bfloat16")
    with pytest.raises(ValueError, match="cuda_graphs needs a model on a GPU, got one on cpu"):
        optimize_for_inference(model, cuda_graphs=True)


def test_the_program_offers_the_same_precisions() -> None:
    assert PRECISIONS == PRECISIONS_OF_THE_PROGRAM


@pytest.mark.parametrize("name", BACKBONES)
def test_a_bfloat16_backbone_gives_maps_within_5_per_cent(name: str) -> None:
    model = backbone_detector(name)
    optimized = optimize_for_inference(model, "bfloat16-backbone")
    images = model.preprocess(batch(SIZES))
    with torch.no_grad():
        expected = model.extract_tokens(images).features
        features = optimized.extract_tokens(images).features
    assert features.dtype is torch.float32
    assert float((features - expected).norm() / expected.norm()) < 0.05
    assert relative_error(features, expected) > 1e-5  # it really was rounded


@pytest.mark.parametrize("precision", ["bfloat16-backbone", "bfloat16"])
def test_reduced_precision_gives_detections_in_float32(precision: str) -> None:
    # All tokens kept and all of them queries: rounding then changes no choice.
    model = backbone_detector("small_resnet", "deformable_detr")
    output = output_of(optimize_for_inference(model, precision), SIZES)
    expected = output_of(model, SIZES)
    final = output.decoder.predictions[-1]
    assert final.logits.dtype is final.boxes_cxcywh.dtype is torch.float32
    assert EXACT < disagreement(output, expected) < 0.1
    detected = optimize_for_inference(backbone_detector("small_resnet"), precision)(batch(SIZES))
    assert all(torch.isfinite(found["instances"].scores).all() for found in detected)


@pytest.mark.skipif(not computes_in_bfloat16(), reason="the processor emulates bfloat16")
def test_bfloat16_reaches_the_products_of_encoder_and_decoder_only() -> None:
    optimized = optimize_for_inference(backbone_detector("small_resnet"), "bfloat16")
    types = {
        name: module.weight.dtype
        for name, module in optimized.named_modules()
        if isinstance(module, PackedLinear)
    }
    assert types["encoder.layers.0.self_attn.value_proj"] is torch.bfloat16
    assert types["decoder.layers.0.ffn.layers.0"] is torch.bfloat16
    exact = ("sampling_offsets", "attention_weights", "heads", "token_scoring", "query_selection")
    assert all(t is torch.float32 for name, t in types.items() if any(e in name for e in exact))


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a compiler")
def test_a_compiled_backbone_agrees() -> None:
    model = small_detector()
    perturb(model, torch.Generator().manual_seed(3))
    optimized = optimize_for_inference(model, compile_backbone=True)
    assert disagreement(output_of(optimized, [(64, 64)]), output_of(model, [(64, 64)])) < EXACT


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("cuda_graphs", [False, True])
@pytest.mark.parametrize("name", BACKBONES)
def test_on_a_gpu_with_and_without_graphs(name: str, cuda_graphs: bool) -> None:
    model = backbone_detector(name).cuda()
    optimized = optimize_for_inference(model, cuda_graphs=cuda_graphs)
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        for sizes in (SIZES, SIZES, [(64, 96)]):
            assert disagreement(output_of(optimized, sizes), output_of(model, sizes)) < 10 * EXACT
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
