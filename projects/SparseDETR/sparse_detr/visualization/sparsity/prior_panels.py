"""Panels of Gaussian priors: where a query expected its object before it looked.

Role in the flow: sparsity view -> **panels** -> overview.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..cells import cells_as_pixels, level_colour
from ..panels import Picture
from .chosen_queries import ChosenQuery
from .query_panels import query_title
from .query_prior import QueryPrior
from .sparsity_view import SparsityView
from .token_panels import Frame, Panel, heated

_OVERSAMPLED = 2
_CENTRE_RADIUS = 0.008
_FRAME = (255, 255, 255)


def prior_panels(
    view: SparsityView, frame: Frame, query: ChosenQuery, class_names: Sequence[str] | None
) -> list[Panel]:
    """Gives one panel per decoder layer with a Gaussian prior, first to last.

    The heat map is the prior summed over heads and levels; an ellipse for each head and level lies
    one standard deviation around the centre, its colour is the level. The frame is the box that
    the layer predicts.

    Args:
        view: What to show.
        frame: The image at the panels' size.
        query: One of the view's queries.
        class_names: Names by class id; None shows ids.
    """
    title = query_title(view, query, class_names)
    scale = np.array(
        [frame.size[1] / view.image_size[1], frame.size[0] / view.image_size[0]]
    )  # (x, y)
    return [
        Panel(
            f"query{query.index}_layer{number}_prior",
            f"Prior of layer {number}, {title[0].lower()}{title[1:]}",
            draw_prior(frame, layer.prior, scale, layer.box_xyxy),
        )
        for number, layer in enumerate(query.layers)
        if layer.prior is not None
    ]


def draw_prior(
    frame: Frame, prior: QueryPrior, scale: np.ndarray, box_xyxy: np.ndarray | None
) -> Picture:
    """Gives the heat map of a prior, with its ellipses, their centres and a box.

    Args:
        frame: The image at the panel's size.
        prior: In pixels of the network's input.
        scale: (2,) pixels of the panel per pixel of the network's input, (x, y).
        box_xyxy: (4,) in pixels of the network's input; None for no box.
    """
    maps = [cells_as_pixels(cells, frame.padded, frame.size) for cells in prior.maps]
    total = np.sum(maps, axis=0)
    ground = Image.fromarray(heated(frame, total / max(float(total.max()), 1e-9)))
    height, width = frame.size
    canvas = ground.resize((width * _OVERSAMPLED, height * _OVERSAMPLED), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(canvas)
    factor = scale * _OVERSAMPLED
    if box_xyxy is not None:
        draw.rectangle(
            (box_xyxy * np.tile(factor, 2)).tolist(), outline=_FRAME, width=2 * _OVERSAMPLED
        )
    dot = _CENTRE_RADIUS * max(canvas.size)
    for centre, sigma, level in zip(
        prior.centres * factor, prior.sigmas * factor, prior.levels.tolist(), strict=True
    ):
        colour = level_colour(level)
        draw.ellipse(
            [*(centre - sigma).tolist(), *(centre + sigma).tolist()],
            outline=colour,
            width=_OVERSAMPLED + 1,
        )
        draw.ellipse([*(centre - dot).tolist(), *(centre + dot).tolist()], fill=colour)
    return np.asarray(canvas.resize((width, height), Image.Resampling.LANCZOS))
