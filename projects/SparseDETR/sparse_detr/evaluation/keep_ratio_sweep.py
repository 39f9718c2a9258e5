"""One checkpoint over a list of keeping ratios: AP, cost, kept tokens and Corr of each.

Role in the flow: what ``tools/sweep_keep_ratio.py`` runs (the paper's Figure 7). Each ratio is
stored as soon as it is measured, so that an interrupted sweep goes on where it stopped.
"""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..analysis import DetectorCost, inference_cost
from ..benchmarking.blocks import run_block_for
from ..benchmarking.disturbance import DisturbanceWatch
from ..benchmarking.machine import describe_machine
from ..benchmarking.spread import Spread
from ..benchmarking.timing import Timer, TimingPlan
from ..engine.checkpoint_file import write_text
from ..engine.errors import UserError, user_errors
from ..meta_arch import TransformerDetector
from ..token_selection import KeepRatio, Uniform, as_keep_ratio
from ..token_selection.latency import same_machine
from .checkpoint_evaluation import CheckpointEvaluation
from .image_sparsity import ImageSparsity
from .sweep_report import sweep_page

logger = logging.getLogger(__name__)

Record = dict[str, Any]
DENSE = Uniform(1.0)
"""Every token is updated: what the dense encoder computes with the same weights."""
_AP = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def ratios_to_sweep(texts: Sequence[str], model: TransformerDetector) -> list[KeepRatio]:
    """Gives the keeping ratios that texts stand for, each once, the dense one last.

    Args:
        texts: Forms that :func:`sparse_detr.token_selection.as_keep_ratio` reads.
        model: The detector they are for.

    Raises:
        UserError: A text is none, does not fit the model, or the model selects no tokens.
    """
    if model.keep_ratio is None:
        raise UserError(
            "the model selects no tokens: its encoder updates all of them, so there is no keeping "
            "ratio to sweep; use a Sparse DETR config"
        )
    with user_errors("--keep-ratios", ValueError, TypeError):
        ratios = [as_keep_ratio(text) for text in texts]
        before = model.keep_ratio
        for ratio in ratios:
            model.keep_ratio = ratio  # says whether it fits
        model.keep_ratio = before
    return [*dict.fromkeys(ratio for ratio in ratios if ratio != DENSE), DENSE]


class KeepRatioSweep:
    """Measurements of one checkpoint, and the file that they are kept in.

    Args:
        evaluation: Checkpoint and images.
        file: JSON file of the measurements; read if it is there.
        settings: What the measurements hold for. A file of other settings is refused.

    Raises:
        UserError: The file cannot be read, or is of another sweep.
    """

    def __init__(
        self,
        evaluation: CheckpointEvaluation,
        file: Path,
        settings: Record,
    ) -> None:
        self.evaluation = evaluation
        self.file = file
        self.report = _stored_report(file, settings)
        self.report["machine"] = describe_machine(evaluation.model.device)

    def is_measured(self, ratio: KeepRatio) -> bool:
        """Whether the file has the ratio already."""
        return str(ratio) in self.report["points"]

    @cached_property
    def cost(self) -> DetectorCost | None:
        """What an image costs; None for a detector that the formula does not serve."""
        try:
            return inference_cost(self.evaluation.model)
        except ValueError as error:
            logger.warning("GFLOPs are left out: %s", error)
            return None

    def measure(self, ratio: KeepRatio) -> Record:
        """Evaluates with a keeping ratio and stores what was found.

        Args:
            ratio: The keeping ratio.

        Returns:
            The point: AP, figures of token selection, GFLOPs.
        """
        results = self.evaluation.run(ratio)
        precision = results.get("bbox", {})
        gflops = None
        if self.cost is not None:
            gflops = image_gflops(self.cost, self.evaluation.sparsity.images)
        point = {
            "keep_ratio": str(ratio),
            "bbox": {name: _finite(precision[name]) for name in _AP if name in precision},
            "sparsity": {name: _finite(v) for name, v in results.get("sparsity", {}).items()},
            "gflops": gflops,
        }
        self.report["points"][str(ratio)] = point
        self.save()
        return point

    def measure_latency(
        self, ratios: Sequence[KeepRatio], num_images: int, plan: TimingPlan
    ) -> Record:
        """Times single images with all ratios in turn, and stores the times.

        An image gives each ratio one time, the median over the rounds; the ratios take turns in
        every round, so that the slow changes of a machine fall on all of them alike.

        Args:
            ratios: The keeping ratios.
            num_images: Images, evenly spread over the data.
            plan: How much to measure per image.

        Returns:
            Median and extremes over the images by ratio, milliseconds.
        """
        samples = self.evaluation.samples(num_images)
        model = self.evaluation.model
        device = model.device
        threads = 1 if device.type == "cuda" else torch.get_num_threads()
        watch = DisturbanceWatch.of_this_machine(threads)
        timer = Timer(plan, watch, run_block_for(device))
        seconds: dict[str, list[float]] = {str(ratio): [] for ratio in ratios}
        rejected = disturbed = 0
        with torch.no_grad():
            for sample in samples:
                calls = {str(ratio): _call(model, sample, ratio) for ratio in ratios}
                compared = timer.compare(calls)
                for name, times in compared.by_name.items():
                    seconds[name].append(times.milliseconds.median)
                rejected += compared.rejected
                disturbed += compared.disturbed
        self.report["latency"] = {
            "num_images": len(samples),
            "machine": describe_machine(device),
            "threads": torch.get_num_threads(),
            "note": watch.note,
            "rejected_blocks": rejected,
            "disturbed_blocks": disturbed,
            "milliseconds": {name: asdict(Spread.of(values)) for name, values in seconds.items()},
        }
        self.save()
        found: Record = self.report["latency"]
        return found

    def has_latency(self, ratios: Sequence[KeepRatio], num_images: int) -> bool:
        """Whether the file has times of these ratios, taken together over so many images.

        Those of another machine, device or number of threads are none.
        """
        known = self.report["latency"]
        return (
            known is not None
            and same_machine(known.get("machine", {}), self.report["machine"])
            and known["num_images"] == min(num_images, self.evaluation.num_images)
            and known["milliseconds"].keys() >= {str(ratio) for ratio in ratios}
        )

    def save(self) -> None:
        """Writes the file, which is replaced as a whole."""
        with user_errors(str(self.file), OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_text(json.dumps(self.report, indent=1, allow_nan=False) + "\n", self.file)


def _call(model: TransformerDetector, sample: Record, ratio: KeepRatio) -> Callable[[], object]:
    return lambda: model([sample], ratio)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _stored_report(file: Path, settings: Record) -> Record:
    """Gives the measurements that a file holds, or an empty report."""
    # Through text, as the file's: tuples become lists.
    settings = json.loads(json.dumps(settings))
    if not file.exists():
        return {"settings": settings, "machine": {}, "points": {}, "latency": None}
    try:
        report: Record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as a sweep ({error}); remove it") from error
    if not _is_sweep(report):
        raise UserError(f"{file} is no sweep; remove it or give another --output")
    known = report["settings"]
    different = [key for key in settings | known if settings.get(key) != known.get(key)]
    if different:
        changes = ", ".join(f"{k} {known.get(k)!r} -> {settings.get(k)!r}" for k in different)
        raise UserError(
            f"{file} holds a sweep with other settings ({changes}); give another --output, or "
            "--restart to replace it"
        )
    return report


def _is_sweep(report: Any) -> bool:
    """Whether the content of a file is what a sweep keeps: whether it can be shown and compared."""
    try:
        sweep_page(report, "")
        latency = report["latency"]
        complete = latency is None or {"num_images", "milliseconds"} <= latency.keys()
        settings, machine = report["settings"], (latency or {}).get("machine", {})
    except (LookupError, TypeError, ValueError, AttributeError):
        return False
    return complete and isinstance(settings, dict) and isinstance(machine, dict)


def image_gflops(cost: DetectorCost, images: Sequence[ImageSparsity]) -> Record:
    """Gives the multiply-adds of the images, each with the tokens that it really kept.

    Args:
        cost: Of the detector.
        images: Their figures.

    Returns:
        ``mean``, ``smallest`` and ``largest``, 1e9.
    """
    counts = Counter((image.image_size, image.kept_by_layer) for image in images)
    flops = {
        (size, kept): cost.flops(size, kept[0] if len(kept) == 1 else kept) / 1e9
        for size, kept in counts
    }
    total = math.fsum(flops[key] * count for key, count in counts.items())
    return {
        "mean": total / len(images),
        "smallest": min(flops.values()),
        "largest": max(flops.values()),
    }
