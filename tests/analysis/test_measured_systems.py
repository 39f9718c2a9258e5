"""What is measured of all systems, and its parts of the page."""

from __future__ import annotations

import pytest
from comparison_records import latency, training_memory

from sparse_detr.analysis.compared_models import COMPARED_MODELS, ComparedModel, distinct_models
from sparse_detr.analysis.measured_systems import (
    NOT_MEASURED,
    REFERENCE,
    latency_section,
    latency_settings,
    training_memory_section,
    training_settings,
)
from sparse_detr.benchmarking.model_ways import Setting
from sparse_detr.config.loading import load_config


@pytest.fixture(scope="module")
def models() -> list[ComparedModel]:
    return distinct_models()


@pytest.fixture(scope="module")
def training(models: list[ComparedModel]) -> dict[str, Setting]:
    return training_settings(models)


def test_rows_that_differ_in_training_alone_share_a_model(models: list[ComparedModel]) -> None:
    left_out = [row for row in COMPARED_MODELS if row not in models]
    assert [(row.title, row.epochs) for row in left_out] == [("DETR", 50)]
    assert len({row.title for row in models}) == len(models)


def test_each_model_is_measured_once_at_its_ratio(
    models: list[ComparedModel], training: dict[str, Setting]
) -> None:
    for settings, size, batch in (
        (latency_settings(), (480, 640), 1),
        (training, (640, 640), 2),
    ):
        assert list(settings) == [row.title for row in models]
        assert REFERENCE in settings
        for row in models:
            setting = settings[row.title]
            assert ((setting.height, setting.width), setting.batch) == (size, batch)
            assert (setting.config, setting.keep_ratio) == (row.config, row.keep_ratio)


def test_no_ratio_is_drawn_where_training_memory_is_measured(training: dict[str, Setting]) -> None:
    changed = [title for title, setting in training.items() if setting.overrides]
    assert changed == [title for title in training if title.startswith("PnP-DETR")]
    setting = training[changed[0]]
    tree = load_config(setting.config, setting.overrides)
    assert tree.model.token_selection.training_ratios is None


def test_latency_is_a_table_with_its_machine() -> None:
    section = latency_section(latency())
    section = " ".join(section.split("\n"))
    assert "Measured on 2026-11-20 on A processor, 2 of 4 logical processors, 23.5 GiB; " in section
    assert "Linux 6.18, Python 3.11.1, torch 2.11.0, 2 threads; compiled operators." in section
    assert "one image of 480 x 640" in section and "5 rounds" in section
    assert section.endswith(
        "| DETR | 300 (299 to 301) | 200 (199 to 201) | 3.00x (2.00 to 4.00) | "
        "2.00x (1.00 to 3.00) | 2 rejected, 1 DISTURBED |"
    )


def test_training_memory_is_a_table_with_its_machine() -> None:
    section = training_memory_section(training_memory())
    assert "2 images of 640 x 640" in section and "A processor" in section
    assert section.splitlines()[-1] == "| DETR | 1235 | 165 |"


def test_what_has_not_been_measured_is_said_to_be_so() -> None:
    for section in (latency_section(None), training_memory_section(None)):
        assert section.endswith(NOT_MEASURED)
        assert "|" not in section
