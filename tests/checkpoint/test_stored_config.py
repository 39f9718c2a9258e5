"""A checkpoint may name a shipped config and sizes of its model, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sparse_detr.checkpoint.stored_config import StoredConfig, config_of_checkpoint
from sparse_detr.config.loading import load_config
from sparse_detr.config.overrides import ConfigError
from sparse_detr.engine.checkpoint_file import UnreadableCheckpointError

NAME = "deformable_detr/deformable_detr_r50_base_50ep"


def save(path: Path, config: object) -> Path:
    torch.save({"model": {"a": torch.zeros(1)}, "config": config}, path)
    return path


def test_a_checkpoint_stands_where_a_config_is_asked_for(tmp_path: Path) -> None:
    stored = StoredConfig(NAME, ("model.num_classes=91",)).as_data()
    path = save(tmp_path / "mine.pth", stored)
    config = load_config(path, ["model.encoder.num_layers=3"])
    assert config.model.num_classes == 91 and config.model.encoder.num_layers == 3
    assert config.train.init_checkpoint == str(path)
    assert config.train.output_dir == "output/mine"


def test_a_checkpoint_without_config_says_what_to_do(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "own.pth")
    with pytest.raises(ConfigError, match="carries no config; give the config"):
        config_of_checkpoint(tmp_path / "own.pth")


@pytest.mark.parametrize(
    "config",
    [
        {"name": "/tmp/evil.py", "overrides": []},
        {"name": "../evil", "overrides": []},
        {"name": "evil.py", "overrides": []},
        {"name": NAME, "overrides": ["train.output_dir=/etc"]},
        {"name": NAME, "overrides": ["model.backbone={_target_: os.getcwd}"]},
        {"name": NAME, "overrides": ["model.heads._target_='os system'"]},
        {"name": NAME, "overrides": [3]},
        {"name": NAME},
        {"name": 3, "overrides": []},
        [NAME],
        "text",
    ],
)
def test_a_config_that_is_more_than_data_is_refused(tmp_path: Path, config: object) -> None:
    path = save(tmp_path / "odd.pth", config)
    with pytest.raises(UnreadableCheckpointError, match="carries a config that is refused"):
        load_config(path)


def test_a_target_and_an_unknown_config_are_refused_when_loaded(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", {"name": NAME, "overrides": ["model.heads._target_=os.getcwd"]})
    with pytest.raises(ConfigError, match="_target_ cannot be set"):
        load_config(path)
    path = save(tmp_path / "b.pth", {"name": "deformable_detr/none", "overrides": []})
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(path)


def test_a_file_in_the_working_folder_cannot_pose_as_a_shipped_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    marker = tmp_path / "ran"
    (tmp_path / "evil").write_text(f"open({str(marker)!r}, 'w')")
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')")
    path = save(tmp_path / "c.pth", {"name": "evil", "overrides": []})
    with pytest.raises(ConfigError):
        load_config(path)
    assert not marker.exists()
