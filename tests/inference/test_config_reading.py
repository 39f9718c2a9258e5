"""What a predictor takes from a config: the right checkpoint, and classes that are the model's."""

from __future__ import annotations

from pathlib import Path

import pytest

from small_run import finished_run
from sparse_detr.config.loading import load_config
from sparse_detr.engine.errors import UserError
from sparse_detr.inference.config_reading import (
    classes_of,
    config_tree,
    evaluation_resizing,
    weights_file,
)


def test_a_runs_own_checkpoint_goes_before_the_one_it_started_from(tmp_path: Path) -> None:
    finished_run(tmp_path)

    def found(*overrides: str, weights: str | None = None) -> str | None:
        config = load_config(tmp_path / "config.yaml", overrides)
        config.train.init_checkpoint = config.train.init_checkpoint or "start.pth"
        return weights_file(config, weights, overrides, untrained=False)

    assert found() == str(tmp_path / "model_0000001.pth")
    assert found("train.init_checkpoint=given.pth") == "given.pth"
    assert found("train.output_dir=/nowhere/run") == "start.pth"
    assert found("train.init_checkpoint=given.pth", weights="a.pth") == "a.pth"


def test_a_config_tree_is_copied_before_it_is_changed() -> None:
    config = load_config("quickstart")
    changed = config_tree(config, ["model.num_classes=9"])
    assert (config.model.num_classes, changed.model.num_classes) == ("auto", 9)


def test_classes_that_are_not_the_models_are_unknown(caplog: pytest.LogCaptureFixture) -> None:
    config = load_config("quickstart")
    known = classes_of(config, 6, None)
    assert known is not None and known.names[0] == "circle"
    assert classes_of(config, 7, None) is None
    assert "The data of the config have 6 classes, the model has 7" in caplog.text


def test_given_names_keep_the_category_ids_of_the_data() -> None:
    config = load_config("quickstart")
    named = classes_of(config, 6, list("abcdef"))
    assert named is not None
    assert (named.names, named.category_ids) == (tuple("abcdef"), (1, 2, 3, 4, 5, 6))
    counted = classes_of(config, 2, ["a", "b"])
    assert counted is not None and counted.category_ids == (0, 1)


def test_the_resizing_is_that_of_the_configs_evaluation() -> None:
    config = load_config("sparse_detr/sparse_detr_r50_rho10_50ep")
    (resize,) = evaluation_resizing(config, "RGB").augs
    assert (resize.short_edge_lengths, resize.max_size) == ((800,), 1333)


def test_a_mapper_of_another_kind_is_a_user_error() -> None:
    config = load_config("quickstart")
    config.dataloader.test.mapper = {"_target_": "builtins.dict"}
    with pytest.raises(UserError, match="is a dict without 'augmentations'"):
        evaluation_resizing(config, "RGB")
    config = load_config("quickstart", ["dataloader.train.mapper.image_format=BGR"])
    with pytest.raises(UserError, match="image_format is 'BGR'"):
        evaluation_resizing(config, "RGB")
