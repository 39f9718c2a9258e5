"""Class names and category ids are known without the data set's files where they can be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparse_detr.config.loading import load_config
from sparse_detr.inference.class_table import class_table_of


def test_cocos_80_names_and_ids_are_known_without_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    table = class_table_of(load_config("sparse_detr/sparse_detr_r50_rho10_50ep"))
    assert table is not None
    assert len(table.names) == len(table.category_ids) == 80
    assert (table.names[0], table.category_ids[0]) == ("person", 1)
    assert (table.names[79], table.category_ids[79]) == ("toothbrush", 90)


def test_the_drawn_shapes_are_known_before_they_are_drawn(tmp_path: Path) -> None:
    table = class_table_of(load_config("quickstart", [f"data.root={tmp_path / 'absent'}"]))
    assert table is not None
    assert table.names[:2] == ("circle", "rectangle")
    assert table.category_ids == (1, 2, 3, 4, 5, 6)


def test_those_of_an_annotation_file_are_in_the_order_of_its_ids(tmp_path: Path) -> None:
    file = tmp_path / "val.json"
    categories = [{"id": 40, "name": "dog"}, {"id": 7, "name": "cat"}]
    file.write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    table = class_table_of(load_config("custom_dataset", [f"data.val_json={file}"]))
    assert table is not None
    assert (table.names, table.category_ids) == (("cat", "dog"), (7, 40))


def test_an_annotation_file_that_is_not_here_leaves_them_unknown() -> None:
    overrides = ["data.val_json=/absent/val.json", "data.train_json=/absent/train.json"]
    assert class_table_of(load_config("custom_dataset", overrides)) is None


def test_a_config_without_data_leaves_them_unknown() -> None:
    assert class_table_of(load_config("models/sparse_detr")) is None
