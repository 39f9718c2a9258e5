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
from .query_panels import query_panels
from .sparsity_view import SparsityView
from .token_panels import Frame, Panel, layer_panels, target_panels, token_panels

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
    rows.append(grid([captioned(p.picture, p.caption) for p in panels], columns))
    layers = layer_panels(view, frame)
    if layers:
        rows.append(grid([captioned(p.picture, p.caption) for p in layers], columns))
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
    panels += target_panels(view, frame) + layer_panels(view, frame)
    for query in view.queries:
        panels += query_panels(view, frame, query, options.class_names)
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
    kept = view.kept_by_any
    total = int(kept.sum())
    height, width = view.image_size
    asked = "dense: all tokens" if view.keep_ratio is None else f"keeping ratio {view.keep_ratio}"
    rows = [
        f"{width}x{height} pixels in the network, {asked}",
        f"Kept: {total:,} of {view.num_tokens:,} tokens ({total / max(1, view.num_tokens):.1%})",
        f"Corr: {_percent(view.corr)} of the decoder's attention is on them",
        "",
    ]
    received = max(float(view.attention.sum()), 1e-9)
    for number, level in enumerate(view.levels):
        own = int(level.cells(kept).sum())
        attended = float(level.cells(view.attention).sum()) / received
        rows.append(
            f"Level {number}: {own:,} of {level.num_tokens:,} kept, {attended:.0%} of the "
            f"attention, Corr {_percent(view.corr_of_levels[number])}"
        )
    if len(view.kept) > 1:
        counts = " ".join(f"{int(layer.sum()):,}" for layer in view.kept)
        rows += ["", f"Kept by encoder layer: {counts}"]
    rows += [
        "",
        "Kept: bright; grey tokens are passed on as they came",
        "Last column: green kept and in the DAM's target,",
        "    blue kept only, orange in the target only",
        "Dots: sampling points, area by weight, colour by level",
        *(["White frames: ground truth"] if with_truth else []),
    ]
    return view.name, rows


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{share:.1%}"
