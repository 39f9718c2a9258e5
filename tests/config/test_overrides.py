"""Overrides change what is there and nothing else."""

import pytest
from omegaconf import DictConfig, OmegaConf

from sparse_detr.config.overrides import ConfigError, apply_overrides, nearest_key, sets_key


@pytest.fixture
def config() -> DictConfig:
    return OmegaConf.create(
        {
            "model": {
                "_target_": "some.Model",
                "num_classes": 80,
                "keep_ratio": 0.1,
                "encoder": {"num_layers": 6, "hidden": "${model.num_classes}", "dropout": None},
                "stages": [{"depth": 2}, {"depth": 4}],
            },
            "train": {
                "max_iter": None,
                "output_dir": "./output",
                "device": "auto",
                "resume": False,
                "rows": [],
            },
        }
    )


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("model.keep_ratio=0.3", "model.keep_ratio", 0.3),
        ("train.max_iter=20", "train.max_iter", 20),
        ("train.output_dir=/tmp/a-b_c/d.e", "train.output_dir", "/tmp/a-b_c/d.e"),
        ("train.output_dir='with space, and comma'", "train.output_dir", "with space, and comma"),
        ("train.resume=true", "train.resume", True),
        ("train.rows=[[bbox,AP,45.0,1.0]]", "train.rows", [["bbox", "AP", 45.0, 1.0]]),
        ("model.encoder.hidden=7", "model.encoder.hidden", 7),
        ("model.stages.1.depth=9", "model.stages.1.depth", 9),
        ("model.encoder=null", "model.encoder", None),
        ("model.encoder={num_layers: 3}", "model.encoder.num_layers", 3),
        ("model.num_classes='${model.encoder.num_layers}'", "model.num_classes", 6),
        ("+model.extra=1", "model.extra", 1),
        ("+model.new.deep=1", "model.new.deep", 1),
    ],
)
def test_overrides_set_what_they_name(
    config: DictConfig, text: str, key: str, value: object
) -> None:
    apply_overrides(config, [text])
    node = config
    for part in key.split("."):
        node = node[int(part) if part.isdigit() else part]
    assert node == value


def test_a_mapping_leaves_its_other_keys_alone(config: DictConfig) -> None:
    apply_overrides(config, ["model.encoder={num_layers: 3}"])
    assert config.model.encoder.keys() == {"num_layers", "hidden", "dropout"}


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("train.max_itr=7", "train.max_iter"),
        ("model.keep_ration=0.2", "model.keep_ratio"),
        ("tran.max_iter=7", "train.max_iter"),
        ("keep_ratio=0.2", "model.keep_ratio"),
        ("model.encoder.num_layer=3", "model.encoder.num_layers"),
        ("model.encoder={num_layer: 3}", "model.encoder.num_layers"),
        ("model.stages.5.depth=3", "model.stages.1.depth"),
    ],
)
def test_an_unknown_key_is_an_error_that_names_the_nearest(
    config: DictConfig, text: str, nearest: str
) -> None:
    before = OmegaConf.to_container(config)
    with pytest.raises(ConfigError, match=f"unknown config key .* nearest key is '{nearest}'"):
        apply_overrides(config, [text])
    assert OmegaConf.to_container(config) == before


@pytest.mark.parametrize(
    "text",
    [
        "model._target_=os.system",
        "+model._target_=os.system",
        "+model.extra={_target_: os.system}",
        "train.rows=[{_target_: os.system}]",
        "+model.deep.inner={a: {_target_: os.system}}",
    ],
)
def test_code_cannot_be_chosen_from_the_command_line(config: DictConfig, text: str) -> None:
    with pytest.raises(ConfigError, match="_target_ cannot be set"):
        apply_overrides(config, [text])
    assert config.model._target_ == "some.Model"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model.keep_ratio=much", "a number"),
        ("model.keep_ratio=true", "a number"),
        ("train.resume=1", "true or false"),
        ("model.encoder=5", "a mapping"),
        ("train.rows=5", "a list"),
    ],
)
def test_a_value_of_another_kind_is_refused(config: DictConfig, text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=f"expected {expected}"):
        apply_overrides(config, [text])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.max_iter", "no '='"),
        ("~train.max_iter=1", "deletion"),
        ("train.max_iter=1,2", "several values"),
        ("train.rows=[1", "does not parse"),
        ("model.keep_ratio.x=1", "unknown config key"),
        ("+model.keep_ratio.x=1", "parent is a value"),
    ],
)
def test_texts_that_cannot_be_meant_are_refused(
    config: DictConfig, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        apply_overrides(config, [text])


def test_an_empty_tree_has_no_nearest_key() -> None:
    assert nearest_key(OmegaConf.create({}), "a.b") is None


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["train.output_dir=a"], True),
        (["+train.output_dir=a"], True),
        (["train={max_iter: 3, output_dir: a}"], True),
        (["train={max_iter: 3}", "model.output_dir=a", "train.output=a"], False),
        ([], False),
    ],
)
def test_a_key_is_set_by_its_name_or_within_a_mapping(overrides: list[str], expected: bool) -> None:
    assert sets_key(overrides, "train.output_dir") is expected
