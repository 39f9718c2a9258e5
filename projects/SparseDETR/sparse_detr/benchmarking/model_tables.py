"""The detectors' measurements as tables, and beside what they were meant to reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .model_ways import OPTIMISED, OPTIMISED_BF16_BACKBONE, RELEASED
from .outside_models import DEFORMABLE_DETR, RT_DETR
from .stages import STAGES
from .tables import megabytes, significant, spread_text, table

Record = dict[str, Any]


@dataclass(frozen=True)
class ModelAim:
    """What a whole detector is to reach with a ResNet-50, 480 x 640, one image, CPU, two threads.

    Attributes:
        way: Which way.
        against: Which other.
        keep_ratio: Share of kept tokens; None for the dense twin.
        times_faster: Least ratio.
    """

    way: str
    against: str
    keep_ratio: float | None
    times_faster: float


AIMS = (
    ModelAim(OPTIMISED, RELEASED, 0.1, 2.3),
    ModelAim(OPTIMISED_BF16_BACKBONE, RELEASED, 0.1, 2.7),
    ModelAim(OPTIMISED, RELEASED, None, 5.0),
    ModelAim(OPTIMISED, DEFORMABLE_DETR, 0.1, 8.0),
    ModelAim(OPTIMISED, RT_DETR, 0.1, 2.2),
)
# Largest share of the released way's memory that a training step may need.
TRAINING_MEMORY_AIM = 0.5


def setting_name(setting: Record) -> str:
    """Gives a setting in words."""
    ratio = setting["keep_ratio"]
    tokens = "dense" if ratio is None else f"rho {ratio}"
    size = f"{setting['height']} x {setting['width']}"
    name = f"{setting['backbone']} {tokens}, {size}, batch {setting['batch']}"
    return name if setting["device"] == "cpu" else f"{name}, {setting['device']}"


def ways_table(runs: Sequence[Record], markdown: bool) -> str:
    """Gives latency, throughput and the ratio to the released way of each run."""
    rows = []
    for run in runs:
        name = setting_name(run["setting"]) + f", {run['threads']} threads"
        for way, found in run["ways"].items():
            against = found["faster_than"].get(RELEASED)
            rows.append(
                (
                    name,
                    way,
                    spread_text(found["ms"]),
                    significant(found["images_per_second"]),
                    "" if against is None else spread_text(against, "x"),
                    blocks_text(found),
                )
            )
            name = ""
    header = ("setting", "way", "ms", "images/s", "faster than the released way", "blocks")
    return table(header, rows, markdown)


def blocks_text(found: Record) -> str:
    """Gives how many blocks were rejected, and how many count although they were disturbed."""
    words = (("rejected_blocks", "rejected"), ("disturbed_blocks", "DISTURBED"))
    return ", ".join(f"{found[key]} {word}" for key, word in words if found[key])


def agreement_table(runs: Sequence[Record], markdown: bool) -> str:
    """Gives how far predictions are from those of the released way."""
    rows = []
    for run in runs:
        name = setting_name(run["setting"])
        for way, found in run["agreement"].items():
            rows.append(
                (
                    name,
                    way,
                    f"{found['logits']:.1e}",
                    f"{found['boxes']:.1e}",
                    f"{found['largest_logit']:.2f}",
                    f"{100 * found['matched']:.1f} %",
                    "yes" if found["holds"] else "no",
                )
            )
            name = ""
    header = (
        "setting",
        "way",
        "logits differ by",
        "boxes by",
        "largest logit",
        "queries with a counterpart",
        "within 1e-5",
    )
    return table(header, rows, markdown) if rows else ""


def stages_table(runs: Sequence[Record], markdown: bool) -> str:
    """Gives the milliseconds of each stage, a column per way."""
    tables = []
    for run in runs:
        ways = list(run["stages"])
        stages = list(dict.fromkeys(stage for way in ways for stage in run["stages"][way]))
        stages.sort(key=STAGES.index)
        rows = [
            (
                stage,
                *(
                    spread_text(run["stages"][way][stage]) if stage in run["stages"][way] else ""
                    for way in ways
                ),
            )
            for stage in stages
        ]
        if rows:
            header = (f"ms per stage: {setting_name(run['setting'])}", *ways)
            tables.append(table(header, rows, markdown))
    return "\n\n".join(tables)


def memory_table(memory: Sequence[Record], markdown: bool) -> str:
    """Gives the peak memory of one call beyond model and images."""
    rows = [
        (setting_name(record["setting"]), record["way"], megabytes(record["peak_bytes"]))
        for record in memory
    ]
    return table(("inference", "way", "peak MB"), rows, markdown) if rows else ""


def training_table(training: Sequence[Record], markdown: bool) -> str:
    """Gives the peak memory of a training step, and its share of the released way's."""
    rows = []
    for record in training:
        name = setting_name(record["setting"])
        for key, kind in (
            ("peak_bytes", "alive"),
            ("default_allocator_peak_bytes", "growth of the process"),
        ):
            ours, released = record["ours"][key], record["released"][key]
            share = ours / released
            aim = (
                f"at most {TRAINING_MEMORY_AIM}x",
                "yes" if share <= TRAINING_MEMORY_AIM else "no",
            )
            rows.append(
                (
                    name,
                    kind,
                    megabytes(ours),
                    megabytes(released),
                    megabytes(record["ours"]["gradient_bytes"]),
                    f"{significant(share)}x",
                    *(aim if kind == "alive" else ("", "")),
                )
            )
            name = ""
    header = (
        "training step with AdamW (its state does not count)",
        "peak of",
        "ours MB",
        "released way MB",
        "of which gradients MB",
        "ratio",
        "aim",
        "reached",
    )
    return table(header, rows, markdown) if rows else ""


def aims_table(runs: Sequence[Record], markdown: bool) -> str:
    """Gives each aim beside what was measured; "not measured" where no run fits."""
    rows = []
    for aim in AIMS:
        what = "dense" if aim.keep_ratio is None else f"rho {aim.keep_ratio}"
        row = (what, aim.way, aim.against, f"at least {significant(aim.times_faster, 2)}x")
        ratio = _measured(runs, aim)
        if ratio is None:
            rows.append((*row, "not measured", ""))
        else:
            reached = "yes" if ratio["median"] >= aim.times_faster else "no"
            rows.append((*row, spread_text(ratio, "x"), reached))
    header = ("R50, 480 x 640", "way", "against", "aim", "measured", "reached")
    return table(header, rows, markdown)


def _measured(runs: Sequence[Record], aim: ModelAim) -> Record | None:
    for run in reversed(runs):
        setting = run["setting"]
        key = tuple(setting[name] for name in ("height", "width", "batch", "backbone", "device"))
        if key == (480, 640, 1, "r50", "cpu") and setting["keep_ratio"] == aim.keep_ratio:
            found = run["ways"].get(aim.way, {}).get("faster_than", {}).get(aim.against)
            if found is not None:
                return dict(found)
    return None
