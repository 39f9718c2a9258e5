"""The settings that are compared, and the data that they are compared on."""

from __future__ import annotations

from dataclasses import dataclass

KEEP_RATIOS = (0.1, 0.3, 0.5)
DENSE = "dense"
DAM, OBJECTNESS, RANDOM = "dam", "objectness", "random"
CRITERIA = (DAM, OBJECTNESS, RANDOM)


@dataclass(frozen=True)
class ExperimentData:
    """Data to train and evaluate on.

    Attributes:
        name: Short name; configs are ``experiments/<name>_<criterion>``.
        title: For reports.
        needs_root: Whether the folder of the data has to be given (``data.root``).
    """

    name: str
    title: str
    needs_root: bool


DATA_SETS = {
    data.name: data
    for data in (
        ExperimentData("shapes", "Drawn shapes", False),
        ExperimentData("blood_cells", "Photographs of blood cells (BCCD)", True),
    )
}


@dataclass(frozen=True)
class ExperimentSetting:
    """One row of the comparison.

    Attributes:
        criterion: What selects the tokens: "dam", "objectness" or "random"; "dense" for none.
        keep_ratio: Share rho of the tokens that the encoder updates; None for "dense".
        auxiliary_loss: Whether the encoder layers have auxiliary heads with a loss.
    """

    criterion: str
    keep_ratio: float | None = None
    auxiliary_loss: bool = True

    @property
    def name(self) -> str:
        """Name of the setting, fit for a folder."""
        if self.keep_ratio is None:
            return f"{self.criterion}_aux" if self.auxiliary_loss else self.criterion
        without = "" if self.auxiliary_loss else "_no_aux"
        return f"{self.criterion}_rho{round(100 * self.keep_ratio):02d}{without}"

    @property
    def title(self) -> str:
        """The setting in words."""
        if self.keep_ratio is None:
            return "dense" if self.auxiliary_loss else "dense, no auxiliary encoder loss"
        names = {DAM: "DAM", OBJECTNESS: "objectness", RANDOM: "random"}
        without = "" if self.auxiliary_loss else ", no auxiliary encoder loss"
        return f"{names[self.criterion]}, rho {self.keep_ratio:g}{without}"

    def config(self, data: ExperimentData) -> str:
        """Name of the config to run."""
        return f"experiments/{data.name}_{self.criterion}"

    def overrides(self) -> list[str]:
        """What differs from the config, as ``key=value``."""
        if self.keep_ratio is None:
            return ["model.heads.encoder_auxiliary=true"] if self.auxiliary_loss else []
        changes = [f"model.keep_ratio={self.keep_ratio:g}"]
        if not self.auxiliary_loss:
            changes.append("model.heads.encoder_auxiliary=false")
        return changes


def settings_of(criteria: tuple[str, ...] = (DENSE, *CRITERIA)) -> tuple[ExperimentSetting, ...]:
    """Gives all settings of some criteria, in the order of the report.

    Args:
        criteria: Of "dense", "dam", "objectness", "random". With "dense" and "dam" comes the
            ablation of the auxiliary encoder loss.

    Raises:
        ValueError: An unknown criterion.
    """
    unknown = set(criteria) - {DENSE, *CRITERIA}
    if unknown:
        raise ValueError(f"criteria must be of dense, dam, objectness, random, got {unknown}")
    settings = [ExperimentSetting(DENSE)] if DENSE in criteria else []
    for criterion in CRITERIA:
        if criterion in criteria:
            settings += [ExperimentSetting(criterion, ratio) for ratio in KEEP_RATIOS]
    if DENSE in criteria:
        settings.append(ExperimentSetting(DENSE, auxiliary_loss=False))
    if DAM in criteria:
        settings += [ExperimentSetting(DAM, ratio, False) for ratio in KEEP_RATIOS]
    return tuple(settings)
