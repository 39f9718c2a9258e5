from __future__ import annotations

import pytest
import torch

from builders import batch, small_detector
from sparse_detr.benchmarking.agreement import agreement
from sparse_detr.benchmarking.model_ways import final_predictions
from sparse_detr.benchmarking.released_way import ReleasedDetector

SIZE = (128, 160)


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("system", ["sparse_detr", "efficient_detr"])
def test_the_released_way_predicts_what_the_model_predicts(system: str, images: int) -> None:
    model = small_detector(system)
    inputs = model.preprocess(batch([SIZE] * images))
    with torch.no_grad():
        output = ReleasedDetector(model).compute(torch.stack(list(inputs.images)))
        wanted = final_predictions(model, inputs)

    compared = agreement(wanted, (output.logits[-1], output.boxes_cxcywh[-1]))
    assert compared.holds, compared
    assert compared.matched == 1


def test_detections_have_the_form_of_the_models_own() -> None:
    model = small_detector()
    inputs = batch([SIZE])
    with torch.no_grad():
        (found,), (wanted,) = ReleasedDetector(model)(inputs), model(inputs)

    assert torch.allclose(found["instances"].scores, wanted["instances"].scores, atol=1e-5)
    assert found["instances"].image_size == wanted["instances"].image_size


def test_loss_and_gradients_are_the_models_in_its_released_preset() -> None:
    model = small_detector(released_behaviour=True).train()
    inputs = batch([SIZE] * 2, num_objects=[3, 5])
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    ours = torch.stack(list(model(inputs).values())).sum()
    released = ReleasedDetector(model)(inputs)

    assert released.item() == pytest.approx(ours.item(), rel=1e-5)
    pairs = zip(
        torch.autograd.grad(ours, parameters),
        torch.autograd.grad(released, parameters),
        strict=True,
    )
    for got, wanted in pairs:
        assert torch.allclose(got, wanted, rtol=1e-3, atol=1e-4)


def test_at_inference_too_it_computes_what_only_the_loss_needs() -> None:
    model = small_detector()
    with torch.no_grad():
        output = ReleasedDetector(model).compute(torch.rand(1, 3, *SIZE))
    tokens = output.is_proposal.shape[1]

    assert len(output.logits) == len(model.decoder.layers)
    assert len(output.auxiliary) == model.heads.num_encoder_heads
    assert output.first_stage[1].shape == (1, tokens, 4)
    assert output.encoder_sampling[0].shape[1] == len(model.encoder.layers)


def test_a_model_with_other_queries_is_refused() -> None:
    with pytest.raises(ValueError, match="Sparse DETR or its dense twin"):
        ReleasedDetector(small_detector("deformable_detr"))
