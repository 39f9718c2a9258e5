"""Configs are found by path and by name, read without surprises, and saved as plain data."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from detectron2.config import LazyCall, instantiate
from omegaconf import DictConfig, OmegaConf

from sparse_detr.config import loading
from sparse_detr.config.loading import load_config, locate_config, save_config
from sparse_detr.config.overrides import ConfigError


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The package's and the repository's config folders, both with a config ``a``."""
    package, repository = tmp_path / "package", tmp_path / "repository"
    for folder in (package, repository):
        (folder / "system").mkdir(parents=True)
        (folder / "system" / "a.py").write_text(f"train = dict(origin={folder.name!r})")
    (repository / "only_here.py").write_text("train = dict(x=1)")
    monkeypatch.setattr(loading, "config_directories", lambda: [package, repository])
    return package, repository


@pytest.mark.parametrize(
    "name", ["system/a", "system/a.py", "configs/system/a.py", "configs/system/a"]
)
def test_a_name_is_found_in_the_package_first(folders: tuple[Path, Path], name: str) -> None:
    assert load_config(name).train.origin == "package"


def test_a_name_is_found_in_the_repository_next_and_a_path_before_all(
    folders: tuple[Path, Path],
) -> None:
    repository = folders[1]
    assert locate_config("only_here") == repository / "only_here.py"
    assert load_config(repository / "system" / "a.py").train.origin == "repository"


def test_a_config_that_is_not_there_is_an_error_with_similar_names(
    folders: tuple[Path, Path],
) -> None:
    with pytest.raises(
        ConfigError, match=r"'system/aa' does not exist.*repository; did you mean system/a\?"
    ):
        locate_config("system/aa")
    with pytest.raises(ConfigError, match="no config file was given"):
        locate_config("")


def test_the_repositorys_own_configs_are_found() -> None:
    assert locate_config("common/train").parts[-3:] == ("configs", "common", "train.py")
    assert load_config("common/train").train.device == "auto"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.py", "x = (", "syntax error"),
        ("a.yaml", "- 1", "expected a mapping"),
        ("a.yaml", "a: [", "not plain yaml"),
        ("a.json", "{}", "expected .py or .yaml"),
    ],
)
def test_files_that_are_no_configs_are_refused(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / name)


def test_reading_yaml_never_runs_code(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "a.yaml").write_text(f"a: !!python/object/apply:os.mkdir ['{marker}']")
    with pytest.raises(ConfigError, match="not plain yaml"):
        load_config(tmp_path / "a.yaml")
    assert not marker.exists()


def test_a_saved_config_is_plain_data_keeps_references_and_builds_the_same(tmp_path: Path) -> None:
    config = DictConfig(
        {
            "width": 3,
            "model": LazyCall(SimpleNamespace)(
                a="${width}", b=LazyCall(Path)(), c=[1, (2, 3)], d=tmp_path
            ),
        },
        flags={"allow_objects": True},
    )
    save_config(config, tmp_path / "config.yaml")
    plain = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert (
        plain["model"]["_target_"] == "types.SimpleNamespace" and plain["model"]["a"] == "${width}"
    )
    built = instantiate(load_config(tmp_path / "config.yaml", ["width=4"]).model)
    assert built.a == 4 and built.b == Path()


def test_what_cannot_be_saved_is_named(tmp_path: Path) -> None:
    config = OmegaConf.create({"model": LazyCall(lambda: 1)()}, flags={"allow_objects": True})
    with pytest.raises(ConfigError, match=r"model._target_"):
        save_config(config, tmp_path / "config.yaml")
    assert not (tmp_path / "config.yaml").exists()
