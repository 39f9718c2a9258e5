"""One picture that tells the sparsity of an image, and its single panels.

Role in the flow: panels -> **overview** -> PNG files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.structures import Boxes

from ...structures import Size
from ..panels import MARGIN, Picture, captioned, grid, stacked, text_panel
from ..predictions import class_name, draw_boxes
from .prior_panels import prior_panels
from .query_panels import query_panels
from .sparsity_view import SparsityView
from .token_panels import Frame, Panel, layer_panels, pooling_panels, target_panels, token_panels

_LONG_SIDE = 400
_LONG_SIDE_ALONE = 560
_SHORTEST_WIDTH = 260
_COLUMNS = 4
_TOP_COLUMNS = 3


@dataclass(frozen=True)
class BoxOptions:
    """How boxes are named, and which are shown.

    Attributes:
        class_names: Names by class id; None shows ids.
        score_threshold: Detections with a lower score are left out.
        ground_truth: Outline it in all panels of tokens, where it is known.
    """

    class_names: Sequence[str] | None = None
    score_threshold: float = 0.3
    ground_truth: bool = False


def overview(view: SparsityView, options: BoxOptions) -> Picture:
    """Gives one picture of detections, sampling, counts, and all panels of the tokens.

    Args:
        view: What to show.
        options: Which boxes are shown, and how they are named.
    """
    size = _panel_size(view.image_size, _LONG_SIDE, _SHORTEST_WIDTH)
    columns = _COLUMNS if view.scores is not None else _COLUMNS - 1
    frame = Frame.of(view, size, options.ground_truth)
    width = columns * (size[1] + MARGIN) - MARGIN
    wide = (width - (_TOP_COLUMNS - 1) * MARGIN) // _TOP_COLUMNS
    top_frame = Frame.of(view, (round(wide * size[0] / size[1]), wide), options.ground_truth)
    rows = [grid(_top_row(view, top_frame, options), _TOP_COLUMNS)]
    panels = [panel for row in token_panels(view, frame) for panel in row]
    if view.keep_ratio is None:
        # Room beside the attention, for the other queries.
        panels += [
            query_panels(view, frame, query, options.class_names)[-1] for query in view.queries[1:]
        ]
    priors = [
        panel
        for query in view.queries
        for panel in prior_panels(view, frame, query, options.class_names)[-1:]
    ]
    for below in (panels, layer_panels(view, frame), pooling_panels(view, frame)[:columns], priors):
        if below:
            rows.append(grid([captioned(p.picture, p.caption) for p in below], columns))
    return stacked(rows)


def single_panels(view: SparsityView, options: BoxOptions) -> Iterator[tuple[str, Picture]]:
    """Gives every panel of an image by itself, with its caption.

    Args:
        view: What to show.
        options: Which boxes are shown, and how they are named.

    Yields:
        The panel's name and its picture.
    """
    size = _panel_size(view.image_size, _LONG_SIDE_ALONE, _SHORTEST_WIDTH)
    frame = Frame.of(view, size, options.ground_truth)
    panels = [_detections(view, frame, options)]
    panels += [panel for row in token_panels(view, frame) for panel in row]
    panels += target_panels(view, frame) + layer_panels(view, frame) + pooling_panels(view, frame)
    for query in view.queries:
        panels += query_panels(view, frame, query, options.class_names)
        panels += prior_panels(view, frame, query, options.class_names)
    for panel in panels:
        yield panel.name, captioned(panel.picture, panel.caption)


def _panel_size(image_size: Size, long_side: int, shortest_width: int) -> Size:
    """Gives (height, width) in the image's aspect ratio; tall images get room for a caption."""
    scale = max(long_side / max(image_size), shortest_width / image_size[1])
    return max(1, round(image_size[0] * scale)), max(1, round(image_size[1] * scale))


def _top_row(view: SparsityView, frame: Frame, options: BoxOptions) -> list[Picture]:
    found = _detections(view, frame, options)
    row = [captioned(found.picture, found.caption)]
    if view.queries:
        last = query_panels(view, frame, view.queries[0], options.class_names)[-1]
        row.append(captioned(last.picture, last.caption))
    row.append(
        text_panel((frame.size[0] + 30, frame.size[1]), *summary(view, len(frame.boxes) > 0))
    )
    return row


def _detections(view: SparsityView, frame: Frame, options: BoxOptions) -> Panel:
    """Gives the detections above the threshold, by Detectron2's Visualizer."""
    found = view.detections
    assert found.scores is not None
    shown = found.scores >= options.score_threshold
    texts = [
        f"{class_name(class_id, options.class_names)} {score:.0%}"
        for class_id, score in zip(
            found.classes[shown].tolist(), found.scores[shown].tolist(), strict=True
        )
    ]
    picture = draw_boxes(
        view.image,
        Boxes(torch.from_numpy(found.boxes_xyxy[shown])),
        torch.from_numpy(found.classes[shown]),
        texts,
        frame.size,
    )
    caption = (
        f"{len(texts)} of {len(found.classes)} detections, score ≥ {options.score_threshold:g}"
    )
    return Panel("detections", caption, frame.marked(picture))


def summary(view: SparsityView, with_truth: bool) -> tuple[str, list[str]]:
    """Gives title and rows of the figures of an image.

    Args:
        view: The image.
        with_truth: Whether the panels outline ground truth.
    """
    height, width = view.image_size
    size = f"{width}x{height} pixels in the network"
    if view.keep_ratio is None:
        rows = [f"{size}, dense: all {view.num_tokens:,} tokens are updated", ""]
    else:
        kept = view.kept_by_any
        share = f"{int(kept.sum()):,} of {view.num_tokens:,} tokens"
        rows = [
            f"{size}, keeping ratio {view.keep_ratio}",
            f"{view.kept_word.capitalize()}: {share} ({kept.sum() / max(1, view.num_tokens):.1%})",
            f"Corr: {_percent(view.corr)} of the decoder's attention is on them",
            "",
        ]
    rows += _level_rows(view)
    if len(view.kept) > 1:
        counts = " ".join(f"{int(layer.sum()):,}" for layer in view.kept)
        rows += ["", f"Kept by encoder layer: {counts}"]
    rows += ["", *_legend(view), *(["White frames: ground truth"] if with_truth else [])]
    return view.name, rows


def _level_rows(view: SparsityView) -> list[str]:
    """Gives the figures of each level."""
    received = max(float(view.attention.sum()), 1e-9)
    rows = []
    for number, level in enumerate(view.levels):
        attended = f"{float(level.cells(view.attention).sum()) / received:.0%} of the attention"
        if view.keep_ratio is None:
            rows.append(f"Level {number}: {level.num_tokens:,} tokens, {attended}")
            continue
        own = int(level.cells(view.kept_by_any).sum())
        rows.append(
            f"Level {number}: {own:,} of {level.num_tokens:,} {view.kept_word}, {attended}, "
            f"Corr {_percent(view.corr_of_levels[number])}"
        )
    return rows


def _legend(view: SparsityView) -> list[str]:
    """Gives what the panels' colours and marks mean, of those that there are."""
    rows = []
    if view.keep_ratio is not None:
        word = view.kept_word
        others = (
            "grey tokens are passed on as they came"
            if view.pooling is None
            else f"all grey tokens are pooled into {len(view.pooling)} rows"
        )
        target = "in the DAM's target" if view.learns_attention else "among the most attended"
        other = "in the target" if view.learns_attention else "attended"
        rows += [
            f"{word.capitalize()}: bright; {others}",
            f"Last column: green {word} and {target},",
            f"    blue {word} only, orange {other} only",
        ]
    queries = [layer for query in view.queries for layer in query.layers[-1:]]
    if view.dense_attention:
        rows.append("Dots: cells that the query attends to most, area by weight")
        if view.pooling is not None:
            rows.append("    what a pooled row received is shared out to its tokens")
    else:
        rows.append("Dots: sampling points, area by weight, colour by level")
    if any(layer.prior is not None for layer in queries):
        rows.append("Prior: summed over heads and levels; ellipses: one sigma of each")
    return rows


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{share:.1%}"
