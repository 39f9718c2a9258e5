"""Panels of the queries: where each looked in every decoder layer, and the box that it gave.

Role in the flow: sparsity view -> **panels** -> overview.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..cells import as_picture, greyed, level_colour
from ..panels import Picture
from ..predictions import class_name
from .chosen_queries import ChosenQuery, LayerSampling
from .sparsity_view import SparsityView
from .token_panels import Frame, Panel

_OVERSAMPLED = 2
_GROUND = 0.62
_LARGEST_RADIUS = 0.022
_FRAME = (255, 255, 255)


def query_title(view: SparsityView, query: ChosenQuery, class_names: Sequence[str] | None) -> str:
    """Gives ``Detection 0, query 17: circle 86%``."""
    if query.rank is None or view.detections.scores is None:
        return f"Query {query.index}, no detection"
    label = class_name(int(view.detections.classes[query.rank]), class_names)
    score = float(view.detections.scores[query.rank])
    return f"Detection {query.rank}, query {query.index}: {label} {score:.0%}"


def query_panels(
    view: SparsityView, frame: Frame, query: ChosenQuery, class_names: Sequence[str] | None
) -> list[Panel]:
    """Gives one panel per decoder layer, first to last.

    Dots lie where the query read; their area is the weight, their colour the level. The frame is
    the box that the layer predicts.

    Args:
        view: What to show.
        frame: The image at the panels' size.
        query: One of the view's queries.
        class_names: Names by class id; None shows ids.
    """
    title = query_title(view, query, class_names)
    scale = (frame.size[1] / view.image_size[1], frame.size[0] / view.image_size[0])
    return [
        Panel(
            f"query{query.index}_layer{number}",
            f"{title}; decoder layer {number}",
            draw_sampling(frame.shown, layer, scale),
        )
        for number, layer in enumerate(query.layers)
    ]


def draw_sampling(image: Picture, layer: LayerSampling, scale: tuple[float, float]) -> Picture:
    """Gives the image with the sampling points of one query in one layer and its box.

    Args:
        image: The panel's image.
        layer: The sampling, in pixels of the network's input.
        scale: Pixels of ``image`` per pixel of the network's input, (x, y).
    """
    height, width = image.shape[:2]
    ground = Image.fromarray(as_picture(greyed(image, _GROUND)))
    canvas = ground.resize((width * _OVERSAMPLED, height * _OVERSAMPLED), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(canvas)
    factor = np.array(scale) * _OVERSAMPLED
    if layer.box_xyxy is not None:
        box = layer.box_xyxy * np.tile(factor, 2)
        draw.rectangle(box.tolist(), outline=_FRAME, width=2 * _OVERSAMPLED)
    heaviest = max(float(layer.weights.max(initial=0)), 1e-9)
    radii = np.sqrt(layer.weights / heaviest) * _LARGEST_RADIUS * max(canvas.size)
    # The heaviest first, so that no dot hides a smaller one.
    for point in np.argsort(-layer.weights, kind="stable").tolist():
        radius = float(radii[point])
        if radius < _OVERSAMPLED / 2:
            break
        x, y = (layer.points[point] * factor).tolist()
        draw.ellipse(
            (x - radius, y - radius, x + radius, y + radius),
            fill=level_colour(int(layer.levels[point])),
            outline=(0, 0, 0),
            width=_OVERSAMPLED // 2 + 1,
        )
    return np.asarray(canvas.resize((width, height), Image.Resampling.LANCZOS))
