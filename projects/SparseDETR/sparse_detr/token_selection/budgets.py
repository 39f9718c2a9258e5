"""Keeping ratios that follow from what the whole detector may cost for an image."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from detectron2.utils.logger import log_first_n

from ..structures import FeatureTokens, KeptTokens, Size
from .keep_ratio import (
    HIGHEST,
    LOWEST,
    FixedCounts,
    KeepRatio,
    bounds_text,
    check_bounds,
    kept_count,
    number_text,
)
from .ranked_tokens import RankedTokens

if TYPE_CHECKING:
    from ..meta_arch import TransformerDetector

# From (height, width) of an image, pixels, its tokens and how many of them are kept.
Cost: TypeAlias = Callable[[Size, int, int], float]


class Budget(KeepRatio):
    """As many tokens as a budget of the whole detector allows, for each image by itself.

    Where even the lowest bound does not fit, that is kept, and a warning says so once.
    """

    lowest: float
    highest: float

    def keep(self, ranked: RankedTokens) -> KeptTokens:
        """Refused: the cost of the detector is not known here.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"keep_ratio {str(self)!r} is a budget of the whole detector; set it on a detector or "
            "give it to model(...) or model.detect(...)"
        )

    @abstractmethod
    def cost_of(self, detector: TransformerDetector) -> Cost:
        """What the detector costs, in the unit of :attr:`limit`."""

    @property
    @abstractmethod
    def limit(self) -> float:
        """The budget of an image."""

    def resolved(self, detector: TransformerDetector, tokens: FeatureTokens) -> KeepRatio:
        """The numbers of tokens that the budget comes to for a batch.

        Each image is taken as if it were alone. The host computes them, the device is not asked.

        Args:
            detector: The detector that asks.
            tokens: The tokens of the batch, of images.

        Raises:
            ValueError: The tokens come from no images, or the cost cannot be told.
        """
        if tokens.image_sizes is None:
            raise ValueError(
                f"keep_ratio {str(self)!r} needs tokens.image_sizes, got None; take the tokens of "
                "model.extract_tokens(images)"
            )
        cost = self.cost_of(detector)
        pairs = zip(tokens.image_sizes, tokens.valid_counts, strict=True)
        return FixedCounts(tuple(self._count(cost, size, valid) for size, valid in pairs))

    def _count(self, cost: Cost, image_size: Size, valid: int) -> int:
        lowest, highest = (min(kept_count(valid, r), valid) for r in (self.lowest, self.highest))
        if cost(image_size, valid, highest) <= self.limit:
            return highest
        if cost(image_size, valid, lowest) > self.limit:
            log_first_n(
                logging.WARNING,
                f"keep_ratio {str(self)!r}: some images cost more even with the lowest bound, "
                f"{number_text(self.lowest)} of their tokens; they keep that many",
                name=__name__,
                key="message",
            )
            return lowest
        while highest - lowest > 1:  # the cost grows with the kept tokens
            middle = (lowest + highest) // 2
            if cost(image_size, valid, middle) <= self.limit:
                lowest = middle
            else:
                highest = middle
        return lowest


@dataclass(frozen=True)
class GflopBudget(Budget):
    """As many tokens as fit a number of GFLOPs.

    Attributes:
        gflops: Multiply-adds of one image, 1e9, as :func:`sparse_detr.analysis.count_flops`
            counts them.
        lowest: Least share of the tokens to keep, also where it does not fit.
        highest: Greatest share of the tokens to keep.
    """

    gflops: float
    lowest: float = LOWEST
    highest: float = HIGHEST

    def __post_init__(self) -> None:
        _set_checked(self, "gflops", self.gflops, self.lowest, self.highest)

    def __str__(self) -> str:
        return f"gflops:{number_text(self.gflops)}{bounds_text(self.lowest, self.highest)}"

    @property
    def limit(self) -> float:
        """Multiply-adds of an image."""
        return self.gflops * 1e9

    def cost_of(self, detector: TransformerDetector) -> Cost:
        """Multiply-adds, as counted."""
        from .flop_prediction import prediction_of  # takes a while to import

        total = prediction_of(detector).total
        return lambda image_size, num_tokens, kept: total(image_size, kept)


@dataclass(frozen=True)
class LatencyBudget(Budget):
    """As many tokens as fit a time, by a calibration of this machine.

    Attributes:
        milliseconds: For one image.
        lowest: Least share of the tokens to keep, also where it does not fit.
        highest: Greatest share of the tokens to keep.
        calibration: JSON file of the calibration; None takes the usual one.
    """

    milliseconds: float
    lowest: float = LOWEST
    highest: float = HIGHEST
    calibration: str | None = None

    def __post_init__(self) -> None:
        _set_checked(self, "milliseconds", self.milliseconds, self.lowest, self.highest)
        name = self.calibration
        if name is not None and ("," in name or not name.endswith(".json")):
            raise ValueError(
                f"calibration must be the name of a .json file without commas, got {name!r}"
            )

    def __str__(self) -> str:
        file = "" if self.calibration is None else f",{self.calibration}"
        bounds = bounds_text(self.lowest, self.highest)
        return f"latency:{number_text(self.milliseconds)}{bounds}{file}"

    @property
    def limit(self) -> float:
        """Milliseconds of an image."""
        return self.milliseconds

    def cost_of(self, detector: TransformerDetector) -> Cost:
        """Milliseconds, by the calibration of this detector on this machine."""
        from .latency import find_calibration  # only read where a latency is asked for

        predict = find_calibration(detector, self.calibration).milliseconds
        return lambda image_size, num_tokens, kept: predict(num_tokens, kept)


def _set_checked(budget: Budget, name: str, value: Any, lowest: float, highest: float) -> None:
    """Sets number and bounds of a frozen budget as floats.

    Raises:
        ValueError: A value does not fit.
    """
    no_number = isinstance(value, (str, bytes, bool)) or not isinstance(value, (int, float))
    if no_number or not math.isfinite(value) or value <= 0:
        raise ValueError(f"{name} of keep_ratio must be a positive number, got {value!r}")
    object.__setattr__(budget, name, float(value))
    low, high = check_bounds(lowest, highest, "gflops" if name == "gflops" else "latency")
    object.__setattr__(budget, "lowest", low)
    object.__setattr__(budget, "highest", high)
