"""The numbers of an image as the page holds them: exact and compact.

Role in the flow: sparsity view -> **page data** -> page. Arrays are little-endian bytes in base64.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..cells import Mask
from ..panels import Picture, display_size, resized
from ..predictions import class_colour, class_name
from .chosen_queries import ChosenQuery, LayerSampling
from .overview import BoxOptions
from .query_prior import QueryPrior
from .sparsity_view import ShownBoxes, SparsityView

_JPEG_QUALITY = 85
_SMALLEST = 800
POINT_UNIT = 1 / 8192
"""Sampling points are whole numbers of this share of the image's width and height."""
WEIGHT_UNIT = 1 / 65535
_FURTHEST = 32767
_LOWEST_SCORE = 0.05


def page_data(view: SparsityView, options: BoxOptions) -> dict[str, Any]:
    """Gives what the page knows about an image, ready for json.

    Scores, attention and ranking are the model's own numbers; boxes and points are in shares of
    the image's width and height.

    Args:
        view: The image.
        options: Class names, and the threshold that the page starts with.
    """
    found = view.detections
    assert found.scores is not None and found.queries is not None
    size = display_size(*view.image_size, smallest=_SMALLEST)
    queries = view.queries + view.other_queries
    shown = {query.index: position for position, query in enumerate(queries)}
    return {
        "name": view.name,
        "size": list(view.image_size),
        "padded": list(view.padded_size),
        "original": list(view.original_size),
        "picture": picture_uri(resized(view.image, size)),
        "levels": [
            {"stride": level.stride, "shape": list(level.shape), "covered": list(level.covered)}
            for level in view.levels
        ],
        "keepRatio": view.keep_ratio,
        "kept": [_packed_bits(kept) for kept in view.kept],
        "scores": None if view.scores is None else _packed(view.scores.astype("<f4")),
        "counted": None if view.counted is None else _packed_bits(view.counted),
        "ranking": None if view.ranking is None else _packed(view.ranking.astype("<u4")),
        "attention": _packed(view.attention.astype("<f4")),
        "scoreName": view.score_name,
        "learnsAttention": view.learns_attention,
        "pooledRows": 0 if view.pooling is None else len(view.pooling),
        "corr": round(view.corr, 6) if np.isfinite(view.corr) else None,
        "detections": [
            {
                **_box(view, found, row, options.class_names),
                "score": round(float(found.scores[row]), 4),
                "query": shown.get(int(found.queries[row])),
            }
            for row in range(len(found.classes))
            if found.scores[row] >= min(options.score_threshold, _LOWEST_SCORE)
            or int(found.queries[row]) in shown
        ],
        "truth": None
        if view.truth is None
        else [
            _box(view, view.truth, row, options.class_names)
            for row in range(len(view.truth.classes))
        ],
        "queries": [_query(view, query) for query in queries],
    }


def _box(
    view: SparsityView, boxes: ShownBoxes, row: int, names: Sequence[str] | None
) -> dict[str, Any]:
    class_id = int(boxes.classes[row])
    colour = "#" + "".join(f"{round(255 * part):02x}" for part in class_colour(class_id))
    shares = boxes.boxes_xyxy[row] / _extent(view)
    return {
        "label": class_name(class_id, names),
        "colour": colour,
        "box": [round(float(value), 5) for value in shares],
    }


def _extent(view: SparsityView) -> npt.NDArray[np.float64]:
    """(4,) width, height, width, height of the image."""
    return np.array([view.image_size[1], view.image_size[0]] * 2, dtype=np.float64)


def _query(view: SparsityView, query: ChosenQuery) -> dict[str, Any]:
    return {
        "index": query.index,
        "rank": query.rank,
        "layers": [_layer(view, layer) for layer in query.layers],
    }


def _layer(view: SparsityView, layer: LayerSampling) -> dict[str, Any]:
    extent = _extent(view)
    points = np.clip(np.rint(layer.points / extent[:2] / POINT_UNIT), -_FURTHEST, _FURTHEST)
    weights = np.rint(np.clip(layer.weights, 0, 1) / WEIGHT_UNIT)
    box = None
    if layer.box_xyxy is not None:
        box = [round(float(value), 5) for value in layer.box_xyxy / extent]
    return {
        "box": box,
        "points": _packed(points.astype("<i2")),
        "weights": _packed(weights.astype("<u2")),
        "levels": _packed(layer.levels.astype("u1")),
        "prior": None if layer.prior is None else _prior(layer.prior, extent),
    }


def _prior(prior: QueryPrior, extent: npt.NDArray[np.float64]) -> list[list[float]]:
    """Gives x, y, both standard deviations and the level of each Gaussian."""
    shares = np.concatenate([prior.centres, prior.sigmas], axis=1) / extent
    return [
        [*(round(float(value), 4) for value in row), int(level)]
        for row, level in zip(shares, prior.levels, strict=True)
    ]


def _packed_bits(mask: Mask) -> str:
    return _packed(np.packbits(mask, bitorder="little"))


def _packed(values: npt.NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


def picture_uri(image: Picture) -> str:
    """Gives the image as a ``data:`` address."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
