"""Which queries are shown, and where each of them looked.

Role in the flow: part of the sparsity view; a query is named by the rank of its detection, by its
index, or by a place in the image.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...inference import InspectedImage
from ...layers.boxes import cxcywh_to_xyxy
from ...structures import DetectorOutput, Sampling, Size
from .query_prior import QueryPrior, query_prior

_MOST_CELLS = 128
"""Cells kept of a dense attention: as many as a query of deformable attention samples."""


@dataclass(frozen=True)
class QueryChoice:
    """How a query is named.

    Attributes:
        rank: Of a detection among the final ones, from 0; or None.
        index: Of the query; or None.
        point: (x, y) in pixels of the original image, which asks for the query with the nearest
            final box centre; or None.
    """

    rank: int | None = None
    index: int | None = None
    point: tuple[float, float] | None = None

    @staticmethod
    def of_text(text: str) -> QueryChoice:
        """Gives the choice from ``3`` or ``rank:3``, ``index:17`` or ``at:120,80``.

        Raises:
            ValueError: The text is none of these.
        """
        if match := re.fullmatch(r"(?:rank:)?(\d+)", text):
            return QueryChoice(rank=int(match[1]))
        if match := re.fullmatch(r"index:(\d+)", text):
            return QueryChoice(index=int(match[1]))
        if match := re.fullmatch(r"at:([\d.]+),([\d.]+)", text):
            try:
                return QueryChoice(point=(float(match[1]), float(match[2])))
            except ValueError:
                pass
        raise ValueError(
            f"a query must be a rank (0 is the best detection), index:N or at:X,Y, got {text!r}"
        )


@dataclass(frozen=True)
class LayerSampling:
    """Where a query looked in one decoder layer, pixels of the network's input.

    Attributes:
        box_xyxy: (4,) box that the layer predicts; None where it predicts none.
        points: (n, 2) x and y.
        weights: (n,) attention weights: over all heads they sum to the number of heads.
        levels: (n,) level of each point.
        prior: Where it expected its object; None where the attention has no prior.
    """

    box_xyxy: npt.NDArray[np.float64] | None
    points: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    levels: npt.NDArray[np.int64]
    prior: QueryPrior | None = None


@dataclass(frozen=True)
class ChosenQuery:
    """A query that is shown.

    Attributes:
        index: Of the query.
        rank: Of its best detection, None where it has none.
        layers: Of the decoder, first to last.
    """

    index: int
    rank: int | None
    layers: tuple[LayerSampling, ...]


def queries_of(
    inspected: InspectedImage, detected: Sequence[int], choices: Sequence[QueryChoice]
) -> tuple[ChosenQuery, ...]:
    """Gives the chosen queries, each once, in the order of the choices.

    Args:
        inspected: With the decoder's sampling.
        detected: Query of each detection, best first.
        choices: Ranks beyond the last detection are left out.

    Raises:
        ValueError: An index is not one of a query, or a point lies outside the image.
    """
    found: list[int] = []
    for choice in choices:
        query = _query_of(inspected, detected, choice)
        if query is not None and query not in found:
            found.append(query)
    best: dict[int, int] = {}
    for rank, query in enumerate(detected):
        best.setdefault(query, rank)
    boxes = [
        _boxes_in_pixels(layer.boxes_cxcywh[0], inspected.image_size)
        for layer in inspected.output.decoder.predictions
    ]
    return tuple(
        ChosenQuery(query, best.get(query), _layers(inspected, query, boxes)) for query in found
    )


def _query_of(
    inspected: InspectedImage, detected: Sequence[int], choice: QueryChoice
) -> int | None:
    predictions = inspected.output.decoder.predictions[-1]
    if choice.rank is not None:
        return detected[choice.rank] if choice.rank < len(detected) else None
    if choice.index is not None:
        number = predictions.logits.shape[1]
        if not 0 <= choice.index < number:
            raise ValueError(f"query index:{choice.index} must be below {number}")
        return choice.index
    assert choice.point is not None
    height, width = inspected.instances.image_size
    x, y = choice.point
    if not (math.isfinite(x) and math.isfinite(y) and x <= width and y <= height):
        raise ValueError(f"query at:{x:g},{y:g} lies outside the image of {width}x{height} pixels")
    size = predictions.boxes_cxcywh.new_tensor([width, height])
    centres = predictions.boxes_cxcywh[0, :, :2] * size
    distance = (centres - centres.new_tensor([x, y])).norm(dim=1)
    if predictions.candidate_mask is not None:
        distance = distance.masked_fill(~predictions.candidate_mask[0], math.inf)
    return int(distance.argmin())


def _boxes_in_pixels(boxes_cxcywh: Tensor, image_size: Size) -> npt.NDArray[np.float64]:
    scale = np.array([image_size[1], image_size[0]] * 2, dtype=np.float64)
    boxes: npt.NDArray[np.float64] = cxcywh_to_xyxy(boxes_cxcywh).double().cpu().numpy() * scale
    return boxes


def _layers(
    inspected: InspectedImage, query: int, boxes: Sequence[npt.NDArray[np.float64]]
) -> tuple[LayerSampling, ...]:
    output, padded_size = inspected.output, inspected.padded_size
    decoder = output.decoder
    if decoder.sampling:
        looked = [_sampled(layer, query) for layer in decoder.sampling]
    else:
        looked = [_most_attended(m[0, query], output) for m in decoder.attention_maps]
    scale = np.array([padded_size[1], padded_size[0]], dtype=np.float64)
    # A decoder that predicts in its last layer alone has no boxes of the others.
    missing = len(looked) - len(boxes)
    priors = [query_prior(layer, query, padded_size) for layer in inspected.gaussian_priors]
    return tuple(
        LayerSampling(
            boxes[layer - missing][query] if layer >= missing else None,
            points.double().cpu().numpy() * scale,
            weights.double().cpu().numpy(),
            levels.cpu().numpy(),
            priors[layer] if priors else None,
        )
        for layer, (points, weights, levels) in enumerate(looked)
    )


def _sampled(sampling: Sampling, query: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points (n, 2), normalised to the padded image, weights (n,) and levels (n,) of a query."""
    locations, weights = sampling.locations[0, query], sampling.weights[0, query]
    levels = torch.arange(weights.shape[1], device=weights.device)[None, :, None]
    return (
        locations.flatten(0, 2),
        weights.flatten(),
        levels.expand(weights.shape).flatten(),
    )


def _most_attended(attention: Tensor, output: DetectorOutput) -> tuple[Tensor, Tensor, Tensor]:
    """The same of a dense attention (N,): the cells with the greatest weight, at their centres."""
    tokens = output.tokens
    weights, cells = attention.topk(min(_MOST_CELLS, len(attention)))
    rows, columns, levels = (part[cells] for part in tokens.geometry.cells)
    shapes = torch.tensor(tokens.spatial_shapes, device=cells.device)[levels]
    points = (torch.stack([columns, rows], dim=1) + 0.5) / shapes.flip(1)
    return points, weights, levels
