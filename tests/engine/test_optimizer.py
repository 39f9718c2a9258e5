"""Parameter groups by name, and the batch rule."""

import logging
import math

import pytest
import torch
from torch import nn

from sparse_detr.engine.optimizer import batch_factor, build_adamw, group_parameters


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(3, 4)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.encoder = nn.ModuleDict({"sampling_offsets": nn.Linear(4, 2), "norm": nn.LayerNorm(4)})
        self.reference_points = nn.Linear(4, 2)
        self.not_backbone = nn.Linear(4, 4)


def test_every_trainable_parameter_is_in_the_group_of_its_name() -> None:
    groups = {group.name: group for group in group_parameters(Model(), lr=1.0, lr_backbone=0.5)}
    names = {name: [entry for entry, _ in group.parameters] for name, group in groups.items()}
    assert names["backbone"] == ["backbone.weight", "backbone.bias"]
    assert names["sampling"] == [
        "encoder.sampling_offsets.weight",
        "encoder.sampling_offsets.bias",
        "reference_points.weight",
        "reference_points.bias",
    ]
    assert names["main"] == [
        "encoder.norm.weight",
        "encoder.norm.bias",
        "not_backbone.weight",
        "not_backbone.bias",
    ]
    assert {name: group.learning_rate for name, group in groups.items()} == {
        "main": 1.0,
        "backbone": 0.5,
        "sampling": pytest.approx(0.1),
    }


def test_rates_follow_the_batch_by_the_rule_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logging.getLogger("sparse_detr").propagate = True
    with caplog.at_level(logging.INFO, logger="sparse_detr"):
        optimizer = build_adamw(Model(), global_batch=4)
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates == pytest.approx({"main": 1e-4, "backbone": 1e-5, "sampling": 1e-5})
    assert "'sqrt'" in caplog.text and "batch 4" in caplog.text and "4 tensors" in caplog.text


def test_weight_decay_applies_to_norms_and_biases_too() -> None:
    optimizer = build_adamw(Model(), global_batch=16)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {1e-4}
    assert {tuple(group["betas"]) for group in optimizer.param_groups} == {(0.9, 0.999)}


def test_batch_rules() -> None:
    assert batch_factor("sqrt", 8, 16) == pytest.approx(math.sqrt(0.5))
    assert batch_factor("linear", 8, 16) == 0.5
    assert batch_factor("none", 8, 16) == 1.0
    with pytest.raises(ValueError, match="batch_rule is 'cubic'"):
        batch_factor("cubic", 8, 16)


def test_a_model_without_trainable_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="no trainable parameter"):
        group_parameters(nn.Linear(1, 1).requires_grad_(False), 1.0, 1.0)


def test_norms_can_have_a_weight_decay_of_their_own() -> None:
    optimizer = build_adamw(Model(), global_batch=16, norm_weight_decay=0.0)
    found = {g["name"]: (g["weight_decay"], len(g["params"])) for g in optimizer.param_groups}
    assert found == {
        "main": (1e-4, 2),
        "main norms": (0.0, 2),
        "backbone": (1e-4, 2),
        "sampling": (1e-4, 4),
    }
