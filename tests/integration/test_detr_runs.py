"""DETR, SMCA and PnP-DETR as they are trained: precision, evaluation, resuming."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shapes_runs import assert_resuming_changes_nothing, short_run

# The reconstruction has its joint layer in the middle.
CONFIGS = {
    "shapes_detr": (),
    "shapes_smca": (),
    "shapes_smca_multi_scale": (),
    "shapes_smca_multi_scale_reconstruction": ("model.encoder.joint_layers=[1]",),
    "shapes_pnp_detr": (),
}
WAYS = [
    (name, (override,))
    for name in CONFIGS
    for override in ("train.amp.enabled=true", "model.released_behaviour=true")
]
WAYS += [
    ("shapes_detr", ()),
    ("shapes_detr", ("model.encoder.pre_norm=true",)),
    (
        "shapes_detr",
        ("model.encoder.checkpoint_activations=true", "model.decoder.checkpoint_activations=true"),
    ),
]


@pytest.mark.parametrize(
    ("name", "overrides"),
    WAYS,
    ids=[f"{name}-{'-'.join(o.split('=')[0] for o in changes)}" for name, changes in WAYS],
)
def test_every_way_of_training_runs_and_evaluates(
    name: str, overrides: tuple[str, ...], tmp_path: Path, shapes: str
) -> None:
    changes = (*CONFIGS[name], "train.max_iter=1", *overrides)
    assert short_run(f"experiments/{name}", tmp_path, shapes, *changes) == 0
    assert "AP" in json.loads((tmp_path / "results.json").read_text())["results"]["bbox"]


# PnP-DETR draws a ratio in every step, which a resumed run has to go on with.
@pytest.mark.parametrize("name", ["shapes_detr", "shapes_smca_multi_scale", "shapes_pnp_detr"])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    name: str, tmp_path: Path, shapes: str
) -> None:
    assert_resuming_changes_nothing(f"experiments/{name}", tmp_path, shapes, *CONFIGS[name])
