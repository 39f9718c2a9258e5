"""The results as markdown, and their place in a page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from .comparison import Claim, SettingResults, claims_of, spread
from .settings import ExperimentData, settings_of

OBJECTS = "objects_with_kept_tokens"


def report_section(
    data: ExperimentData, results: Mapping[str, SettingResults], seeds: Sequence[int]
) -> str:
    """Gives the tables of one data set as markdown.

    Args:
        data: The data set.
        results: As :func:`.comparison.results_of` gives them.
        seeds: Seeds that were planned.
    """
    known = [s for s in settings_of() if s.name in results]
    iterations = sorted({r["iterations"] for s in known for r in results[s.name].records.values()})
    introduction = (
        f"{data.title}, {' or '.join(map(str, iterations))} iterations. AP in per cent: mean "
        "(smallest to largest of the seeds). Corr: share of the decoder's attention that falls on "
        "the kept tokens, in the final evaluation. Objects: share with a kept token inside."
    )
    lines = [
        introduction,
        "",
        "| setting | seeds | AP | AP50 | Corr | objects | kept tokens | minutes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for setting in known:
        found = results[setting.name]
        cells = [
            setting.title,
            f"{len(found.records)} of {len(seeds)}",
            spread(list(found.average_precision().values())),
            spread(list(found.metric("bbox", "AP50").values())),
            spread([100 * share for share in found.metric("sparsity", "corr").values()]),
            spread([100 * share for share in found.metric("sparsity", OBJECTS).values()]),
            spread(list(found.metric("sparsity", "kept_tokens").values()), digits=0),
            spread(list(found.minutes().values())),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    claims = claims_of(results)
    if claims:
        lines += ["", *_claim_table(claims)]
    return "\n".join(lines) + "\n"


def _claim_table(claims: Sequence[Claim]) -> list[str]:
    rows = [
        "| the paper's finding | compared | difference in AP | not below zero in |",
        "|---|---|---|---|",
    ]
    for claim in claims:
        rows.append(
            f"| {claim.group} | {claim.better.title} less {claim.worse.title} "
            f"| {spread(claim.differences)} | {claim.holds_in} of {len(claim.differences)} seeds |"
        )
    return rows


def replace_section(page: str, title: str, section: str) -> str:
    """Gives the page with what stands below one heading replaced.

    Args:
        page: Markdown with a heading of this title.
        title: Text of the heading.
        section: What goes below it, up to the next heading.

    Raises:
        ValueError: The page has no such heading.
    """
    parts = re.split(r"(?m)^(#+ .*)\n", page)  # text, then heading and text in turn
    for index in range(1, len(parts), 2):
        if parts[index].lstrip("#").strip() == title:
            last = index + 2 == len(parts)
            parts[index + 1] = f"\n{section}" + ("" if last else "\n")
            return parts[0] + "".join(
                f"{heading}\n{text}" for heading, text in zip(parts[1::2], parts[2::2], strict=True)
            )
    raise ValueError(f"the page has no heading {title!r}")
