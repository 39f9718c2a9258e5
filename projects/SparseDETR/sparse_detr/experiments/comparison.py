"""Compares the results of settings, seed by seed."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .settings import DAM, DENSE, KEEP_RATIOS, OBJECTNESS, RANDOM, ExperimentSetting


@dataclass
class SettingResults:
    """Records of one setting.

    Attributes:
        setting: The setting.
        records: Record of each finished seed, as :func:`.runs.run_experiment` gives it.
    """

    setting: ExperimentSetting
    records: dict[int, Mapping[str, Any]] = field(default_factory=dict)

    def metric(self, task: str, name: str) -> dict[int, float]:
        """Value per seed of a metric of the final evaluation; seeds without it are left out."""
        found = {s: r["results"].get(task, {}).get(name) for s, r in self.records.items()}
        return {seed: float(value) for seed, value in found.items() if value is not None}

    def average_precision(self) -> dict[int, float]:
        """AP of the boxes per seed, per cent."""
        return self.metric("bbox", "AP")

    def minutes(self) -> dict[int, float]:
        """Minutes of training and evaluation per seed that ran in one go."""
        seconds = {seed: record["seconds"] for seed, record in self.records.items()}
        return {seed: value / 60 for seed, value in seconds.items() if value is not None}


@dataclass(frozen=True)
class Claim:
    """What a paper found: one setting is better than another.

    Attributes:
        group: Which finding it belongs to.
        better: Setting that should have the higher AP.
        worse: Setting that should have the lower AP.
        differences: AP of ``better`` less AP of ``worse``, for each seed that both have.
    """

    group: str
    better: ExperimentSetting
    worse: ExperimentSetting
    differences: tuple[float, ...]

    @property
    def holds_in(self) -> int:
        """Number of seeds in which ``better`` is not behind."""
        return sum(difference >= 0 for difference in self.differences)

    @property
    def mean(self) -> float:
        """Mean difference in AP."""
        return statistics.fmean(self.differences)


def results_of(
    records: Iterable[tuple[ExperimentSetting, int, Mapping[str, Any]]],
) -> dict[str, SettingResults]:
    """Gives the results by the settings' names.

    Args:
        records: Setting, seed and record of each finished run.
    """
    found: dict[str, SettingResults] = {}
    for setting, seed, record in records:
        found.setdefault(setting.name, SettingResults(setting)).records[seed] = record
    return found


def claims_of(results: Mapping[str, SettingResults]) -> list[Claim]:
    """Gives the findings of the paper that the results can be held against.

    Args:
        results: As :func:`results_of` gives them.

    Source: Sparse DETR, Figures 4 (criteria), 6 (auxiliary loss) and Tables 1 and 2 (ratio).
    """
    dense, plain_dense = ExperimentSetting(DENSE), ExperimentSetting(DENSE, None, False)
    pairs = [("the auxiliary encoder loss helps", dense, plain_dense)]
    for ratio in KEEP_RATIOS:
        dam, objectness, random = (
            ExperimentSetting(criterion, ratio) for criterion in (DAM, OBJECTNESS, RANDOM)
        )
        pairs += [
            ("DAM better than objectness", dam, objectness),
            ("DAM better than random", dam, random),
            ("objectness better than random", objectness, random),
            ("the auxiliary encoder loss helps", dam, ExperimentSetting(DAM, ratio, False)),
        ]
    ascending = [ExperimentSetting(DAM, ratio) for ratio in KEEP_RATIOS]
    pairs += [
        ("more tokens, higher AP", more, fewer) for fewer, more in itertools.pairwise(ascending)
    ]
    group, half = "half of the tokens are enough", KEEP_RATIOS[-1]
    pairs.append((group, ascending[-1], dense))
    pairs.append((group, ExperimentSetting(DAM, half, False), plain_dense))
    claims = []
    for group in dict.fromkeys(group for group, _, _ in pairs):
        for name, better, worse in pairs:
            differences = _differences(results, better, worse)
            if name == group and differences:
                claims.append(Claim(group, better, worse, differences))
    return claims


def _differences(
    results: Mapping[str, SettingResults], better: ExperimentSetting, worse: ExperimentSetting
) -> tuple[float, ...]:
    if better.name not in results or worse.name not in results:
        return ()
    high = results[better.name].average_precision()
    low = results[worse.name].average_precision()
    return tuple(high[seed] - low[seed] for seed in sorted(high.keys() & low.keys()))


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean with smallest and largest as text, such as ``41.2 (40.8 to 41.9)``; "-" for none."""
    if not values:
        return "-"
    mean = f"{statistics.fmean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"
