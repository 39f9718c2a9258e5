from __future__ import annotations

from typing import Any

import pytest

from sparse_detr.experiments import (
    DATA_SETS,
    ExperimentSetting,
    claims_of,
    replace_section,
    report_section,
    results_of,
)


def record(ap: float, corr: float = 0.5) -> dict[str, Any]:
    return {
        "results": {
            "bbox": {"AP": ap, "AP50": ap + 20, "APl": None},
            "sparsity": {"corr": corr, "kept_tokens": 54.0},
        },
        "iterations": 100,
        "seconds": 90.0,
    }


DAM, RANDOM = ExperimentSetting("dam", 0.1), ExperimentSetting("random", 0.1)


def test_differences_are_taken_within_a_seed() -> None:
    # The means are equal; within a seed random is better twice and worse once.
    runs = [(DAM, s, record(ap)) for s, ap in ((1, 30.0), (2, 40.0), (3, 50.0))]
    runs += [(RANDOM, s, record(ap)) for s, ap in ((1, 31.0), (2, 41.0), (3, 48.0))]
    (claim,) = claims_of(results_of(runs))
    assert (claim.better, claim.worse) == (DAM, RANDOM)
    assert claim.differences == (-1.0, -1.0, 2.0)
    assert claim.holds_in == 1
    assert claim.mean == 0.0


def test_only_seeds_that_both_settings_have_are_compared() -> None:
    runs = [(DAM, 1, record(30.0)), (DAM, 2, record(32.0)), (RANDOM, 2, record(20.0))]
    (claim,) = claims_of(results_of(runs))
    assert claim.differences == (12.0,)
    assert claims_of(results_of(runs[:2])) == []


def test_a_missing_metric_is_left_out() -> None:
    results = results_of([(DAM, 1, record(30.0))])
    assert results["dam_rho10"].metric("bbox", "APl") == {}
    assert results["dam_rho10"].metric("segm", "AP") == {}


def test_the_report_says_how_many_seeds_are_done_and_the_spread() -> None:
    runs = [(DAM, 1, record(30.0)), (DAM, 2, record(32.0)), (RANDOM, 2, record(20.0))]
    section = report_section(DATA_SETS["shapes"], results_of(runs), [1, 2, 3])
    assert "| DAM, rho 0.1 | 2 of 3 | 31.0 (30.0 to 32.0) | 51.0 (50.0 to 52.0) |" in section
    assert "| random, rho 0.1 | 1 of 3 | 20.0 | 40.0 | 50.0 | - | 54 | 1.5 |" in section
    assert "| DAM, rho 0.1 less random, rho 0.1 | 12.0 | 1 of 1 seeds |" in section


def test_a_section_of_a_page_is_replaced_and_nothing_else() -> None:
    page = "# Page\ntext\n### Drawn shapes\nold\n\nold\n### Next\nmore\n"
    new = replace_section(page, "Drawn shapes", "new\n")
    assert new == "# Page\ntext\n### Drawn shapes\n\nnew\n\n### Next\nmore\n"
    assert replace_section(new, "Drawn shapes", "new\n") == new
    assert replace_section(new, "Next", "x\n").endswith("### Next\n\nx\n")
    with pytest.raises(ValueError, match="Cells"):
        replace_section(page, "Cells", "new\n")
