"""What must hold for every way in which the parts are put together."""

import pytest
import torch
from detectron2.structures import Boxes

from builders import SYSTEMS, batch, small_detector

SIZES = [(96, 128), (64, 160)]


@torch.no_grad()
def detections(model, inputs):
    return [item["instances"] for item in model(inputs)]


@pytest.mark.parametrize("system", SYSTEMS)
def test_inference_gives_instances_in_the_original_image(system):
    inputs = batch(SIZES)
    inputs[0].update(height=480, width=640)
    model = small_detector(system)
    first, second = detections(model, inputs)
    assert first.image_size == (480, 640) and second.image_size == (64, 160)
    # Ten queries: the best of their five classes where these share a distribution, else all.
    count = 10 if model.heads.no_object_logit else 50
    for found in (first, second):
        assert isinstance(found.pred_boxes, Boxes)
        assert len(found) == count
        assert ((found.scores > 0) & (found.scores < 1)).all()
        assert (found.scores.diff() <= 0).all()
        assert ((found.pred_classes >= 0) & (found.pred_classes < 5)).all()
        height, width = found.image_size
        limit = torch.tensor([width, height, width, height])
        assert ((found.pred_boxes.tensor >= 0) & (found.pred_boxes.tensor <= limit)).all()


@pytest.mark.parametrize("system", SYSTEMS)
def test_training_gives_weighted_losses_of_every_stage(system):
    detector = small_detector(system).train()
    losses = detector(batch(SIZES, [3, 2]))
    suffixes = ["", "_0"]
    if detector.heads.two_stage:
        suffixes += ["_enc"]
    if getattr(detector.query_selection, "denoising", None) is not None:
        suffixes += ["_dn", "_dn_0"]
    if "sparse" in system:
        suffixes += ["_enc_0", "_enc_1"]
    if system == "sparse_detr_objectness":
        suffixes += ["_objectness"]
    expected = {k + s for s in suffixes for k in ("loss_class", "loss_bbox", "loss_giou")}
    if system in ("sparse_detr", "sparse_dino", "sparse_single_scale_detr"):
        expected.add("loss_decoder_attention_map")
    if "focus" in system:
        expected.add("loss_foreground")
    if system == "pnp_detr":
        expected.add("loss_poll_regularisation")
    assert set(losses) == expected
    assert all(v.dim() == 0 and v.isfinite() for v in losses.values())


@pytest.mark.parametrize("num_objects", [[3, 2], [3, 0], [0, 0]])
@pytest.mark.parametrize("system", SYSTEMS)
def test_every_parameter_receives_a_gradient(system, num_objects):
    """Otherwise distributed training would wait for ever."""
    model = small_detector(system).train()
    sum(model(batch(SIZES, num_objects)).values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("system", SYSTEMS)
def test_objects_train_every_parameter(system):
    model = small_detector(system).train()
    sum(model(batch(SIZES, [5, 4])).values()).backward()
    idle = [n for n, p in model.named_parameters() if not p.grad.abs().sum() > 0]
    # In front of the first attention pre-norm has queries of zero, of which only a bias is left.
    pre_norm = getattr(model.decoder.layers[0], "pre_norm", False)
    assert idle == (["decoder.layers.0.norm2.weight"] if pre_norm else [])
