"""What measurements of all systems and small training runs leave, for the page that shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparse_detr.analysis.measured_systems import REFERENCE
from sparse_detr.benchmarking.compared_systems import COMPARED_WAYS
from sparse_detr.config.loading import load_config, save_config
from sparse_detr.engine.evaluation import save_results

ITERATIONS = 938  # 1.5 passes over 5,000 images at batch 8
MACHINE = {
    "measured_at": "2026-11-20T12:00:00+00:00", "processor": "A processor", "logical_cpus": 4,
    "usable_cpus": 2, "memory_gib": 23.5, "system": "Linux-6.18-x86_64", "python": "3.11.1",
    "torch": "2.11.0", "threads": 2, "device": "cpu", "backend": "compiled operators",
}  # fmt: skip


def spread(value: float) -> dict[str, float]:
    return {"median": value, "smallest": value - 1, "largest": value + 1, "count": 5}


def latency(title: str = "DETR") -> dict[str, Any]:
    """A record as the measurement gives it, of one system."""
    ways = {
        way: {"ms": spread(ms), "faster_than_reference": spread(ms / 100), "rejected_blocks": 1,
              "disturbed_blocks": int(way != COMPARED_WAYS[0])}
        for way, ms in zip(COMPARED_WAYS, (300, 200))
    }  # fmt: skip
    return {
        "machine": MACHINE, "note": "blocks were judged", "rounds": 5, "reference": REFERENCE,
        "images": {"height": 480, "width": 640, "batch": 1},
        "models": [{"title": title, "config": "detr/detr_r50_500ep", "ways": ways}],
    }  # fmt: skip


def training_memory(title: str = "DETR") -> dict[str, Any]:
    """A record as the measurement gives it, of one system."""
    model = {"title": title, "peak_bytes": 1_234_567_890, "gradient_bytes": 165_000_000}
    images = {"height": 640, "width": 640, "batch": 2}
    return {"machine": MACHINE, "images": images, "models": [model]}


def write_run(folder: Path, name: str, iteration: int | None = ITERATIONS, *changes: str) -> Path:
    """Gives the folder of a run that was evaluated after some iterations; None for not at all."""
    run = folder / name
    sparse = name.startswith("dam_rho")
    config = load_config(f"experiments/shapes_{'dam' if sparse else name}", changes)
    config.model.num_classes = 6
    if sparse:
        config.model.keep_ratio = int(name[-2:]) / 100
    run.mkdir()
    save_config(config, run / "config.yaml")
    if iteration is not None:
        results = {"bbox": {"AP": 41.234, "AP50": 60.0, "APl": float("nan")}}
        save_results(results, run / "results.json", iteration)
    return run
