"""The operators' measurements as tables, and beside what they were meant to reach."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .operator_cases import OURS
from .operator_inputs import QUERY_SETS
from .operator_report import FORWARD, WITH_BACKWARD
from .tables import megabytes, significant, spread_text, table

Record = dict[str, Any]


@dataclass(frozen=True)
class Aim:
    """What one measurement is to reach on a CPU with two threads, in float32.

    Attributes:
        operator: Name of the operator.
        queries: Name of the set of queries.
        direction: Forward, or with backward.
        capability: Instruction set.
        times_faster: Least ratio to the case's baseline.
    """

    operator: str
    queries: str
    direction: str
    capability: str
    times_faster: float


def _attention_aims() -> Iterable[Aim]:
    aims = {
        ("avx512", FORWARD): (45, 40, 38),
        ("avx2", FORWARD): (18, 18, 18),
        ("baseline", FORWARD): (10, 10, 10),
        ("avx512", WITH_BACKWARD): (24, 20, 14),
    }
    for (capability, direction), values in aims.items():
        for queries, value in zip(("all", "tenth", "300"), values, strict=True):
            yield Aim("ms_deform_attn", queries, direction, capability, value)


AIMS = (
    *_attention_aims(),
    Aim("ms_deform_attn_fused", "tenth", FORWARD, "avx512", 4.5),
    Aim("sample_then_project", "300", FORWARD, "avx512", 10),
    Aim("sample_then_project", "tenth", FORWARD, "avx512", 2.5),
    Aim("decoder_attention_map", "300", FORWARD, "avx512", 40),
)
# Largest share of outputs + gradients that the attention's peak memory may be.
MEMORY_AIM = 1.1
_WITH_MEMORY_AIM = ("ms_deform_attn", "ms_deform_attn_fused")


def times_table(records: Sequence[Record], markdown: bool) -> str:
    """Gives one row per candidate of each measurement."""
    if not markdown:
        return "\n\n".join(_case_table(record) for record in records)
    rows = []
    for record in records:
        for name, candidate in record["candidates"].items():
            faster = candidate["ours_is_faster"]
            rows.append(
                (
                    _case_name(record) if name == OURS else "",
                    name,
                    spread_text(candidate["ms"]),
                    "" if faster is None else spread_text(faster, "x"),
                    _block_note(candidate),
                )
            )
    return table(("case", "way", "ms per call", "ours is faster", "blocks"), rows, markdown)


def _case_table(record: Record) -> str:
    """One case for the terminal, under its name."""
    rows = []
    for name, candidate in record["candidates"].items():
        faster = candidate["ours_is_faster"]
        ratio = "" if faster is None else spread_text(faster, "x")
        rows.append((f"  {name}", spread_text(candidate["ms"]), ratio, _block_note(candidate)))
    return table((_case_name(record), "ms per call", "ours is faster", "blocks"), rows, False)


def kernel_table(records: Sequence[Record], markdown: bool) -> str:
    """Gives the kernel times on a GPU, replayed from graphs; empty where there are none."""
    rows = []
    for record in records:
        for name, candidate in record.get("kernel", {}).items():
            faster = candidate["ours_is_faster"]
            rows.append(
                (
                    _case_name(record) if name == OURS else "",
                    name,
                    spread_text(candidate["ms"]),
                    "" if faster is None else spread_text(faster, "x"),
                )
            )
    header = ("case", "way", "kernel ms", "ours is faster")
    return table(header, rows, markdown) if rows else ""


def aims_table(records: Sequence[Record], markdown: bool) -> str:
    """Gives each aim beside what was measured; "not measured" where no record fits."""
    rows = []
    for aim in AIMS:
        record = _find(records, aim)
        what = (aim.operator, QUERY_SETS[aim.queries].name, aim.direction, aim.capability)
        bound = f"at least {significant(aim.times_faster, 2)}x"
        if record is None:
            rows.append((*what, "", bound, "not measured", "", ""))
            continue
        ratio = record["candidates"][record["baseline"]]["ours_is_faster"]
        reached = "yes" if ratio["median"] >= aim.times_faster else "no"
        name, fastest = _fastest_other(record)
        other = f"{spread_text(fastest, 'x')} against {name}"
        rows.append((*what, record["baseline"], bound, spread_text(ratio, "x"), reached, other))
    header = (
        "operator",
        "queries",
        "direction",
        "instructions",
        "against",
        "aim",
        "measured",
        "reached",
        "against the fastest other way",
    )
    return table(header, rows, markdown)


def memory_table(memory: Sequence[Record], markdown: bool) -> str:
    """Gives peak memory beside outputs + gradients."""
    rows = []
    for record in memory:
        share = record["peak_bytes"] / max(1, record["result_bytes"])
        reached = ""
        has_aim = record["direction"] == WITH_BACKWARD and record["operator"] in _WITH_MEMORY_AIM
        if has_aim and record["candidate"] == OURS:
            reached = "yes" if share <= MEMORY_AIM else "no"
        rows.append(
            (
                _case_name(record) if record["candidate"] == OURS else "",
                record["candidate"],
                megabytes(record["peak_bytes"]),
                megabytes(record["result_bytes"]),
                f"{significant(share)}x",
                reached,
            )
        )
    limit = f"at most {MEMORY_AIM}x"
    header = ("case", "way", "peak MB", "outputs + gradients MB", "ratio", limit)
    return table(header, rows, markdown)


def rates_table(rates: Record, records: Sequence[Record], markdown: bool) -> str:
    """Gives this machine's rates and which share of them the operator reads at."""
    rows = [("copy, far beyond the caches, read + written", spread_text(_giga(rates["copy"])), "")]
    for size, spread in rates["gather"].items():
        what = f"128-byte rows at random places of {megabytes(int(size))} MB"
        rows.append((what, spread_text(_giga(spread)), ""))
    reference = rates["gather"][rates["reference_table_bytes"]]["median"]
    for record in records:
        if record["gathered_bytes"]:
            rate = record["gathered_bytes_per_second"]
            share = f"{100 * rate / reference:.0f} %"
            rows.append((f"{_case_name(record)}, rows read", significant(rate / 1e9), share))
    size = megabytes(int(rates["reference_table_bytes"]))
    return table(("what", "GB/s", f"of the rate at {size} MB"), rows, markdown)


def _giga(spread: Record) -> Record:
    return {key: spread[key] / 1e9 for key in ("median", "smallest", "largest")}


def _case_name(record: Record) -> str:
    name = f"{record['operator']}, {QUERY_SETS[record['queries']].name}, {record['direction']}"
    settings = [record[key] for key in ("capability", "dtype") if record.get(key)]
    return ", ".join([name, *settings, f"{record['threads']} threads"])


def _block_note(candidate: Record) -> str:
    parts = [f"{candidate['ms']['count']} x {candidate['calls_per_block']}"]
    if candidate["rejected_blocks"]:
        parts.append(f"{candidate['rejected_blocks']} rejected")
    if candidate["disturbed_blocks"]:
        parts.append(f"{candidate['disturbed_blocks']} DISTURBED")
    faults = statistics.median(candidate.get("page_faults", [0]))  # older files have none
    if faults >= 1:
        parts.append(f"{faults:,.0f} page faults a call")
    return ", ".join(parts)


def _find(records: Sequence[Record], aim: Aim) -> Record | None:
    """The last record that an aim is about."""
    for record in reversed(records):
        key = (record["operator"], record["queries"], record["direction"], record["capability"])
        if (
            key == (aim.operator, aim.queries, aim.direction, aim.capability)
            and record["dtype"] == "float32"
            and record["device"] == "cpu"
            and record["baseline"] in record["candidates"]
        ):
            return record
    return None


def _fastest_other(record: Record) -> tuple[str, Record]:
    others = {k: v for k, v in record["candidates"].items() if v["ours_is_faster"] is not None}
    name = min(others, key=lambda other: float(others[other]["ms"]["median"]))
    return name, others[name]["ours_is_faster"]
