"""Functions that tests run in started processes; at module level, because they are looked up by
name there."""

from __future__ import annotations

import json
from pathlib import Path

from detectron2.data import MetadataCatalog
from detectron2.utils import comm

from builders import batch, small_detector
from sparse_detr.evaluation import SparsityEvaluator, WithTokenUse

NAME = "sparsity_workers_test"
SIZES = [(64, 64), (70, 90), (50, 100), (64, 80), (90, 60)]


def evaluated(folder: str, share: slice, distributed: bool) -> dict[str, dict[str, float]]:
    """Gives the figures of a share of a few random images with one object each."""
    annotations = [
        {"image_id": index, "bbox": [5, 5, 30, 20], "area": 600.0} for index in range(len(SIZES))
    ]
    file = Path(folder) / f"annotations_{comm.get_rank()}.json"
    file.write_text(json.dumps({"annotations": annotations}))
    MetadataCatalog.pop(NAME, None)
    MetadataCatalog.get(NAME).set(json_file=str(file))
    evaluator = SparsityEvaluator(
        NAME, distributed=distributed, output_dir=folder, store_selections=True
    )
    evaluator.reset()
    model = WithTokenUse(small_detector().double())
    for item in batch(SIZES)[share]:
        evaluator.process([item], model([item]))
    return evaluator.evaluate()


def evaluate_share(folder: str) -> int:
    """Evaluates every second image; the first process stores what all found."""
    found = evaluated(folder, slice(comm.get_rank(), None, comm.get_world_size()), True)
    name = f"results_{comm.get_rank()}.json"
    (Path(folder) / name).write_text(json.dumps(found))
    return 0
