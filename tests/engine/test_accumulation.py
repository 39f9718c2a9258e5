"""The weight of a micro-batch per loss term."""

import pytest
import torch

from sparse_detr.engine.accumulation import micro_batch_weights

CPU = torch.device("cpu")


def batch(*boxes: int) -> list[dict]:
    return [{"instances": range(count)} for count in boxes]


def test_terms_per_box_follow_boxes_and_terms_per_image_follow_images() -> None:
    first, second = micro_batch_weights([batch(3, 0), batch(1)], CPU)
    assert (first.of("loss_class"), second.of("loss_bbox_enc_0")) == (0.75, 0.25)
    assert first.of("loss_decoder_attention_map") == pytest.approx(2 / 3)


def test_a_single_micro_batch_has_weight_one() -> None:
    (only,) = micro_batch_weights([batch(0)], CPU)
    assert only.of("loss_class") == only.of("loss_decoder_attention_map") == 1.0


def test_micro_batches_without_objects_count_as_the_model_divides_by_one() -> None:
    weights = micro_batch_weights([batch(0), batch(0)], CPU)
    assert [weight.of("loss_class") for weight in weights] == [1.0, 1.0]
