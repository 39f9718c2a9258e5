"""Parameters by part, and as the release counts them."""

from __future__ import annotations

from builders import small_detector
from sparse_detr.analysis.parameter_count import count_parameters


def test_every_parameter_counts_once() -> None:
    detector = small_detector()
    count = count_parameters(detector)
    assert count.total == sum(p.numel() for p in detector.parameters())
    assert count.trainable == count.total
    assert count.by_part["decoder heads"] == (
        sum(p.numel() for p in detector.heads.stages[:2].parameters()),
    ) * 2  # fmt: skip


def test_frozen_parameters_and_auxiliary_heads_are_not_in_the_releases_count() -> None:
    detector = small_detector()
    detector.backbone.requires_grad_(False)
    count = count_parameters(detector)
    backbone = sum(p.numel() for p in detector.backbone.parameters())
    auxiliary = sum(p.numel() for p in detector.heads.stages[3:].parameters())
    assert auxiliary > 0
    assert count.by_part["backbone"] == (backbone, 0)
    assert count.trainable == count.total - backbone
    assert count.trainable_backbone == 0
    assert count.as_released == count.trainable - auxiliary


def test_one_head_for_all_stages_counts_with_the_decoder() -> None:
    parts = count_parameters(small_detector("deformable_detr")).by_part
    assert "first-stage head" not in parts and "encoder auxiliary heads" not in parts
