"""Small experiments from scratch: which token selection learns better, on data that fits a CPU.

Role in the flow: none; starts training runs, reads what they left and compares it.
"""

from .comparison import Claim, SettingResults, claims_of, results_of
from .report import replace_section, report_section
from .runs import ExperimentPlan, ExperimentRun, RunFailedError, run_experiment
from .settings import DATA_SETS, ExperimentData, ExperimentSetting, settings_of

__all__ = [
    "DATA_SETS",
    "Claim",
    "ExperimentData",
    "ExperimentPlan",
    "ExperimentRun",
    "ExperimentSetting",
    "RunFailedError",
    "SettingResults",
    "claims_of",
    "replace_section",
    "report_section",
    "results_of",
    "run_experiment",
    "settings_of",
]
