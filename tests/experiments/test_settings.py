from __future__ import annotations

import pytest

from sparse_detr.config.loading import load_config
from sparse_detr.experiments import DATA_SETS, ExperimentSetting, settings_of


def test_all_criteria_and_ratios_and_the_ablation_are_compared() -> None:
    names = [setting.name for setting in settings_of()]
    assert len(names) == len(set(names)) == 14
    assert names[0] == "dense_aux"
    assert "dense" in names
    assert {"dam_rho10", "objectness_rho30", "random_rho50", "dam_rho10_no_aux"} <= set(names)


def test_an_unknown_criterion_is_refused() -> None:
    with pytest.raises(ValueError, match="attention"):
        settings_of(("attention",))


@pytest.mark.parametrize("data", DATA_SETS.values(), ids=lambda d: d.name)
@pytest.mark.parametrize("setting", settings_of(), ids=lambda s: s.name)
def test_every_setting_has_a_config_that_takes_its_overrides(
    data: object, setting: ExperimentSetting
) -> None:
    overrides = [*setting.overrides(), "data.root=folder"]
    config = load_config(setting.config(data), overrides)  # type: ignore[arg-type]
    assert config.model.keep_ratio == setting.keep_ratio
    assert config.model.heads.encoder_auxiliary is setting.auxiliary_loss
    assert (config.model.token_scoring is None) == (setting.keep_ratio is None)
