"""The kinds of files that the table converter knows."""

from __future__ import annotations

from collections.abc import Collection

from .detr_formats import DETR_FILES
from .dino_formats import DETREX_DINO, ORIGINAL_DINO
from .focus_formats import FOCUS_DETR
from .pnp_detr_formats import PNP_DETR_FORMATS
from .smca_formats import (
    SMCA_FILES,
    SMCA_MULTI_SCALE_FILES,
    SMCA_MULTI_SCALE_SEPARATE_FILES,
)
from .table_conversion import ReleasedFormat

RELEASED_FORMATS: tuple[ReleasedFormat, ...] = (
    FOCUS_DETR,
    DETREX_DINO,
    ORIGINAL_DINO,
    SMCA_MULTI_SCALE_SEPARATE_FILES,
    SMCA_MULTI_SCALE_FILES,
    SMCA_FILES,
    *PNP_DETR_FORMATS,
    DETR_FILES,
)
"""The first whose marks are all there counts."""


def format_of(keys: Collection[str]) -> ReleasedFormat | None:
    """The format of a file with these keys; None where it is none of these."""
    return next((known for known in RELEASED_FORMATS if known.fits(keys)), None)


def format_for(names: Collection[str]) -> ReleasedFormat | None:
    """The first format that has a place for all weights of a detector here, or None."""
    for known in RELEASED_FORMATS:
        renamed = {known.released(name) for name in names if not name.startswith("backbone.")}
        if None not in renamed and known.fits({key for key in renamed if key is not None}):
            return known
    return None
