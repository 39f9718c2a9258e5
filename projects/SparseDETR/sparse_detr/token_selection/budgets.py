"""Keeping ratios that follow from what the whole detector may cost for an image."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from detectron2.utils.logger import log_first_n

from ..engine.errors import UserError
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


@dataclass(frozen=True)
class Cost:
    """What a detector costs for an image.

    Attributes:
        of: From (height, width) of an image, pixels, its tokens and how many of them are kept.
        rises_from: From (height, width) the numbers of kept tokens at which the cost may fall;
            between two of them it rises.
    """

    of: Callable[[Size, int, int], float]
    rises_from: Callable[[Size], tuple[int, ...]] = lambda image_size: ()


class UncountableError(UserError, ValueError):
    """What the detector costs is not known beforehand; the message says what to give instead."""


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
        if cost.of(image_size, valid, highest) <= self.limit:
            return highest
        found = most_within(
            lambda kept: cost.of(image_size, valid, kept),
            self.limit,
            lowest,
            highest - 1,
            cost.rises_from(image_size),
        )
        if cost.of(image_size, valid, found) > self.limit:
            log_first_n(
                logging.WARNING,
                f"keep_ratio {str(self)!r}: some images cost more even with the lowest bound, "
                f"{number_text(self.lowest)} of their tokens; they keep that many",
                name=__name__,
                key="message",
            )
        return found


def most_within(
    cost: Callable[[int], float],
    limit: float,
    lowest: int,
    highest: int,
    rises_from: Sequence[int] = (),
) -> int:
    """Gives the greatest number up to ``highest`` whose cost is within a limit.

    Args:
        cost: Cost of a number; it grows with the number, but at ``rises_from``.
        limit: What it may cost.
        lowest: What is given where nothing above it is within the limit.
        highest: The greatest number that is wanted.
        rises_from: Numbers at which the cost may be less than that of the number before.
    """
    starts = sorted({lowest, *(start for start in rises_from if lowest < start <= highest)})
    for start in reversed(starts):
        if cost(start) <= limit:
            return _last_within(cost, limit, start, highest)
        highest = start - 1
    return lowest


def _last_within(cost: Callable[[int], float], limit: float, within: int, highest: int) -> int:
    """The greatest number up to ``highest`` that is within the limit, by halving."""
    while within < highest:
        middle = (within + highest + 1) // 2
        if cost(middle) <= limit:
            within = middle
        else:
            highest = middle - 1
    return within


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
        """Multiply-adds, as counted.

        Raises:
            UncountableError: They cannot be told without running the detector on each image.
        """
        from ..analysis import inference_cost  # it imports the detectors

        try:
            known = inference_cost(detector)
        except ValueError as error:
            raise UncountableError(
                f"keep_ratio {str(self)!r} cannot be followed with this detector, whose GFLOPs "
                f"cannot be told beforehand ({error}); give a share of the tokens, such as 0.3, or "
                "latency:MILLISECONDS"
            ) from error

        def cost(image_size: Size, num_tokens: int, kept: int) -> float:
            return known.flops(image_size, min(kept, known.tokens(image_size)))

        return Cost(cost, known.rises_from)


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
        return Cost(lambda image_size, num_tokens, kept: predict(num_tokens, kept))


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
