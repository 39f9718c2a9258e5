"""Views that the tests of the sparsity pictures share."""

from __future__ import annotations

from typing import Any

import numpy as np

from builders import batch, small_detector
from sparse_detr.visualization.sparsity import QueryChoice, SparsityView, view_sparsity
from sparse_detr.visualization.sparsity.chosen_queries import ChosenQuery, LayerSampling
from sparse_detr.visualization.sparsity.sparsity_view import ShownBoxes, TokenLevel

BEST = [QueryChoice(rank=rank) for rank in range(2)]


def view_of(system: str = "sparse_detr", **arguments: Any) -> SparsityView:
    """The view of a small detector's only image."""
    (sample,) = batch([(70, 100)])
    arguments.setdefault("queries", BEST)
    return view_sparsity(small_detector(system), sample, "scene.png", **arguments)


def drawn_view(**changes: Any) -> SparsityView:
    """A view of 8 + 2 tokens made by hand, on a grey image of 80 x 160 pixels.

    Level 0 has 2 x 4 cells of 40 pixels, level 1 has 1 x 2 of 80. Kept: tokens 1, 2 and 8; the
    decoder looked at 2, 3 and 8.
    """
    kept = np.zeros(10, dtype=bool)
    kept[[1, 2, 8]] = True
    target = np.zeros(10, dtype=bool)
    target[[2, 3, 8]] = True
    scores = np.linspace(-3, 1.5, 10, dtype=np.float32)
    attention = np.zeros(10, dtype=np.float32)
    attention[[2, 3, 8]] = [4, 2, 2]
    layer = LayerSampling(
        np.array([40.0, 20.0, 120.0, 60.0]),
        np.array([[60.0, 30.0], [100.0, 50.0]]),
        np.array([1.0, 0.5]),
        np.array([0, 1]),
    )
    content: dict[str, Any] = {
        "name": "scene.png",
        "image": np.full((80, 160, 3), 200, dtype=np.uint8),
        "padded_size": (80, 160),
        "original_size": (40, 80),
        "levels": (TokenLevel(40, (2, 4), (2, 4), 0), TokenLevel(80, (1, 2), (1, 2), 8)),
        "keep_ratio": "0.3",
        "kept": (kept,),
        "scores": scores,
        "counted": np.ones(10, dtype=bool),
        "ranking": np.arange(9, -1, -1),
        "attention": attention,
        "target": target,
        "corr": 0.75,
        "corr_of_levels": (4 / 6, 1.0),
        "detections": ShownBoxes(
            np.array([[40.0, 20.0, 120.0, 60.0]]),
            np.array([1]),
            np.array([0.9], dtype=np.float32),
            np.array([5]),
        ),
        "truth": None,
        "queries": (ChosenQuery(5, 0, (layer,)),),
    }
    return SparsityView(**{**content, **changes})
