"""The report of a detector and its tables."""

from __future__ import annotations

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor

from builders import small_detector
from sparse_detr.analysis import HONEST, RELEASED
from sparse_detr.analysis.model_analysis import analyze, parts_table, report_text
from sparse_detr.token_selection import as_keep_ratio

SIZE = (64, 96)
RHO = as_keep_ratio(0.3)


class UnknownBackbone(Backbone):
    """A backbone with a contraction that nothing counts."""

    def __init__(self, inner: Backbone) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {name: m + torch.cdist(m, m).mean() for name, m in self.inner(images).items()}

    def output_shape(self) -> dict[str, ShapeSpec]:
        shapes: dict[str, ShapeSpec] = self.inner.output_shape()
        return shapes


def test_parts_of_the_text_add_up_to_its_totals() -> None:
    report = analyze(small_detector(), [SIZE], [RHO], [HONEST, RELEASED])
    for entry in report["flops"]:
        assert sum(entry["mean_by_part"].values()) == entry["mean"] == entry["sizes"][0]["total"]
    assert report["uncounted_operators"] == []
    assert "Not counted" not in report_text(report, markdown=False)


def test_operators_that_nothing_counts_are_told() -> None:
    detector = small_detector()
    detector.backbone = UnknownBackbone(detector.backbone)
    report = analyze(detector, [SIZE], [RHO], [HONEST])
    assert report["uncounted_operators"] == ["aten::cdist"]
    assert "aten::cdist" in report_text(report, markdown=True)


def test_the_share_of_one_encoder_layer_stands_below_the_encoders_parts() -> None:
    column = {"backbone": 5e9, "encoder attention": 4e9, "encoder feed-forward": 2e9}
    lines = parts_table(["a"], [column], 3, markdown=True).splitlines()
    assert lines[2:] == [
        "| backbone | 5.000 |",
        "| encoder attention | 4.000 |",
        "| encoder feed-forward | 2.000 |",
        "| (one encoder layer, mean) | 2.000 |",
        "| **total** | 11.000 |",
    ]
