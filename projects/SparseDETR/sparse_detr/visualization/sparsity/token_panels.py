"""Panels of an image's tokens: kept ones, scores, decoder attention, its target, the difference.

Role in the flow: sparsity view -> **panels** -> overview. Every panel is the image at one size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import matplotlib
import numpy as np
import numpy.typing as npt

from ...structures import Size
from ..cells import Mask, as_picture, cells_as_pixels, greyed, level_colour, lit, outlined
from ..panels import Picture, resized
from .sparsity_view import SparsityView, TokenLevel, Values

HEAT_COLOURS = "inferno"
"""Matplotlib's map of the heat maps: dark is low, also in grey and for colour-blind readers."""

BOTH, KEPT_ONLY, ATTENDED_ONLY = (0, 158, 115), (86, 180, 233), (213, 94, 0)
"""Okabe and Ito's green, blue and vermilion."""

_HEAT_SHARE = 0.72
_MARK_SHARE = 0.75
_GROUND = 0.45


@dataclass(frozen=True)
class Frame:
    """The image at the size of a panel.

    Attributes:
        shown: The image.
        padded: (height, width) of the padded image in pixels of the panel.
        boxes: (n, 4) ground truth to outline, xyxy in pixels of the panel.
    """

    shown: Picture
    padded: tuple[float, float]
    boxes: npt.NDArray[np.float64]

    @staticmethod
    def of(view: SparsityView, size: Size, ground_truth: bool) -> Frame:
        """The image of a view.

        Args:
            view: Of the image.
            size: (height, width) of the panel.
            ground_truth: Whether to outline it, where it is known.
        """
        down, across = (size[axis] / view.image_size[axis] for axis in (0, 1))
        outline = ground_truth and view.truth is not None
        boxes = view.truth.boxes_xyxy if outline and view.truth else np.zeros((0, 4))
        return Frame(
            resized(view.image, size),
            (view.padded_size[0] * down, view.padded_size[1] * across),
            boxes * np.array([across, down] * 2),
        )

    @property
    def size(self) -> Size:
        """(height, width) of the panel."""
        return int(self.shown.shape[0]), int(self.shown.shape[1])

    def pixels(self, level: TokenLevel, values: Values) -> Values:
        """(height, width) value of the token that each pixel lies in, from (N,)."""
        return cells_as_pixels(level.cells(values), self.padded, self.size)

    def marked(self, panel: Picture) -> Picture:
        """Gives the panel with the ground truth."""
        return outlined(panel, self.boxes)


@dataclass(frozen=True)
class Panel:
    """A panel before its caption.

    Attributes:
        name: For the file: ``kept_level0``.
        caption: One line.
        picture: At the frame's size.
    """

    name: str
    caption: str
    picture: Picture


def token_panels(view: SparsityView, frame: Frame) -> Iterator[list[Panel]]:
    """Gives the panels of all levels together, then those of each level, finest first.

    Args:
        view: What to show.
        frame: The image at the panels' size.

    Yields:
        Kept tokens, scores (where there are any), attention, and kept against attended; of a
        detector that keeps all tokens attention alone. A single level has no panels of all levels.
    """
    for place in _shown_places(view):
        panels = []
        if view.keep_ratio is not None:
            panels.append(_kept(view, frame, place))
        if view.scores is not None:
            panels.append(_scores(view, frame, place))
        panels.append(_attention(view, frame, place))
        if view.keep_ratio is not None:
            panels.append(_difference(view, frame, place))
        yield [Panel(p.name, p.caption, frame.marked(p.picture)) for p in panels]


def target_panels(view: SparsityView, frame: Frame) -> list[Panel]:
    """Gives the binarised target: all levels together, then each; none where all is kept."""
    panels: list[Panel] = []
    what = "DAM target" if view.learns_attention else "attended most"
    for place in _shown_places(view) if view.keep_ratio is not None else ():
        picture = _shares(frame, view, view.target, place)
        caption = f"{_title(view, place)}: {what}, {_count(view, view.target, place)}"
        panels.append(Panel(f"target_{_suffix(place)}", caption, frame.marked(picture)))
    return panels


def layer_panels(view: SparsityView, frame: Frame) -> list[Panel]:
    """Gives the kept tokens of each encoder layer; none where all layers keep the same."""
    if len(view.kept) < 2:
        return []
    return [
        Panel(
            f"kept_layer{number}",
            f"Encoder layer {number}: {_count(view, kept, None)} kept",
            frame.marked(_shares(frame, view, kept, None)),
        )
        for number, kept in enumerate(view.kept)
    ]


def pooling_panels(view: SparsityView, frame: Frame) -> list[Panel]:
    """Gives what the pooled rows are made of: all rows together, then each; none without them.

    Brightness is the square root of the weight, each panel on its own scale.
    """
    if view.pooling is None:
        return []
    total = view.pooling.sum(0)
    panels = [_pooled(view, frame, "all", f"{len(view.pooling)} pooled rows, sum", total)]
    for number, weights in enumerate(view.pooling):
        panels.append(_pooled(view, frame, f"row{number}", f"Pooled row {number}", weights))
    return panels


def _pooled(view: SparsityView, frame: Frame, name: str, what: str, weights: Values) -> Panel:
    highest = float(weights.max())
    density = np.sqrt(np.mean([frame.pixels(level, weights) for level in view.levels], axis=0))
    heat = density / max(float(density.max()), 1e-9)
    caption = f"{what}: weight of each token, up to {highest:.2g}"
    return Panel(f"pooling_{name}", caption, frame.marked(heated(frame, heat)))


def _shown_places(view: SparsityView) -> tuple[int | None, ...]:
    """All levels together, unless there is but one, then each."""
    levels = tuple(range(len(view.levels)))
    return levels if len(levels) == 1 else (None, *levels)


def _suffix(place: int | None) -> str:
    return "all" if place is None else f"level{place}"


def _title(view: SparsityView, place: int | None) -> str:
    if place is None:
        return "All levels"
    return f"Level {place}, stride {view.levels[place].stride}"


def _places(view: SparsityView, place: int | None) -> tuple[TokenLevel, ...]:
    return view.levels if place is None else (view.levels[place],)


def _count(view: SparsityView, tokens: Mask, place: int | None) -> str:
    """Gives ``120 of 400 (30%)`` of the tokens of a level or of all."""
    levels = _places(view, place)
    marked = sum(int(level.cells(tokens).sum()) for level in levels)
    total = sum(level.num_tokens for level in levels)
    return f"{marked:,} of {total:,} ({marked / max(1, total):.0%})"


def _kept(view: SparsityView, frame: Frame, place: int | None) -> Panel:
    kept = view.kept_by_any
    picture = _shares(frame, view, kept, place)
    caption = f"{_title(view, place)}: {_count(view, kept, place)} {view.kept_word}"
    return Panel(f"kept_{_suffix(place)}", caption, picture)


def _shares(frame: Frame, view: SparsityView, tokens: Mask, place: int | None) -> Picture:
    """Gives the image lit where tokens are marked; of all levels: by the share that are."""
    if place is not None:
        covered = frame.pixels(view.levels[place], tokens)
        return lit(frame.shown, covered, level_colour(place))
    levels = [frame.pixels(level, tokens) for level in view.levels]
    share = np.mean(levels, axis=0)[..., None]
    return as_picture(share * frame.shown + (1 - share) * greyed(frame.shown))


def _scores(view: SparsityView, frame: Frame, place: int | None) -> Panel:
    assert view.scores is not None and view.counted is not None
    own = view.scores[view.counted if view.counted.any() else np.isfinite(view.scores)]
    low, high = float(own.min()), float(own.max())
    scaled = np.clip((view.scores - low) / max(high - low, 1e-9), 0, 1)
    scaled = np.where(view.counted, scaled, 0)
    heat = np.mean([frame.pixels(level, scaled) for level in _places(view, place)], axis=0)
    what = view.score_name.capitalize() + (", mean of levels" if place is None else "")
    caption = f"{what}: {low:.1f} (dark) to {high:.1f}"
    return Panel(f"scores_{_suffix(place)}", caption, heated(frame, heat))


def _attention(view: SparsityView, frame: Frame, place: int | None) -> Panel:
    """Gives the attention per area, so that levels add up; brightness by square root."""
    levels = _places(view, place)
    maps = [
        frame.pixels(level, view.attention).astype(np.float64) * level.shape[0] * level.shape[1]
        for level in levels
    ]
    density = np.sqrt(np.sum(maps, axis=0))
    received = sum(float(level.cells(view.attention).sum()) for level in levels)
    total = float(view.attention.sum())
    share = f"DAM: {received / max(total, 1e-9):.0%} of the decoder's attention"
    # Where it stands alone, no panel beside it names the level.
    caption = share if view.keep_ratio is not None else f"{_title(view, place)}: {share}"
    heat = density / max(float(density.max()), 1e-9)
    return Panel(f"attention_{_suffix(place)}", caption, heated(frame, heat))


def heated(frame: Frame, heat: npt.NDArray[np.floating]) -> Picture:
    """Gives the grey image under a heat map of values in 0..1."""
    colours = matplotlib.colormaps[HEAT_COLOURS](heat)[..., :3] * 255
    return as_picture(_HEAT_SHARE * colours + (1 - _HEAT_SHARE) * greyed(frame.shown, 1.0))


def _difference(view: SparsityView, frame: Frame, place: int | None) -> Panel:
    """Gives the tokens that are kept, in the target, or both, in a colour each."""
    levels = _places(view, place)
    kept, target = view.kept_by_any, view.target
    picture = greyed(frame.shown, _GROUND)
    marks = np.zeros_like(picture)
    share = np.zeros((*frame.size, 1))
    for tokens, colour in (
        (kept & target, BOTH),
        (kept & ~target, KEPT_ONLY),
        (target & ~kept, ATTENDED_ONLY),
    ):
        of_levels = np.mean([frame.pixels(level, tokens) for level in levels], axis=0)[..., None]
        marks += _MARK_SHARE * of_levels * np.array(colour)
        share += _MARK_SHARE * of_levels
    corr = view.corr if place is None else view.corr_of_levels[place]
    both = sum(int(level.cells(kept & target).sum()) for level in levels)
    hits = f"{both:,} of {sum(int(level.cells(target).sum()) for level in levels):,}"
    what = "Target met" if view.learns_attention else "Attended most"
    caption = f"{what}: {hits}; Corr " + ("–" if np.isnan(corr) else f"{corr:.1%}")
    return Panel(f"difference_{_suffix(place)}", caption, as_picture(marks + (1 - share) * picture))
