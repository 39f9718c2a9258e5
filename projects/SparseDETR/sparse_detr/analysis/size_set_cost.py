"""What a detector costs over a set of image sizes: traced where there are few, else by formula."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..meta_arch import TransformerDetector
from ..structures import Size
from ..token_selection import KeepRatio, PerLayer, Uniform, kept_count
from .conventions import FlopConvention
from .detector_cost import DetectorCost
from .flop_count import count_flops

# Traces that take as long as finding the formula.
_FEW = 6


@dataclass(frozen=True)
class SizeSetCost:
    """Multiply-adds of a detector over a set of images.

    Attributes:
        by_size: Parts by size of the network's input.
        images: How many images have each size.
        kept: Tokens that the encoder layers update, by size: one number for all or one for each;
            empty where no token is selected.
        tokens: Tokens of an image, by size.
    """

    by_size: dict[Size, dict[str, int]]
    images: dict[Size, int]
    kept: dict[Size, tuple[int, ...]]
    tokens: dict[Size, int]

    def total(self, size: Size) -> int:
        """Multiply-adds of an image of a size."""
        return sum(self.by_size[size].values())

    @property
    def mean_by_part(self) -> dict[str, float]:
        """Parts of the mean over the images."""
        sums: Counter[str] = Counter()
        for size, parts in self.by_size.items():
            for part, count in parts.items():
                sums[part] += count * self.images[size]
        count = sum(self.images.values())
        return {part: total / count for part, total in sums.items()}

    @property
    def mean(self) -> float:
        """Mean over the images."""
        return sum(self.mean_by_part.values())


class SizeSetCounter:
    """Counts a detector over sets of image sizes; what was found once serves all keeping ratios.

    ``uncounted`` names the operators met that count nothing and are not known to be element-wise.

    Args:
        model: The detector, in evaluation mode.
        convention: What is counted.
        project_after_sampling: As :func:`count_flops` takes it.
    """

    def __init__(
        self,
        model: TransformerDetector,
        convention: FlopConvention,
        project_after_sampling: bool | None = None,
    ) -> None:
        self._model = model
        self._convention = convention
        self._order = project_after_sampling
        self._formula: DetectorCost | None = None
        self.uncounted: set[str] = set()

    def __call__(
        self, sizes: Sequence[Size], ratios: Sequence[KeepRatio | None]
    ) -> list[SizeSetCost]:
        """Gives the cost over the sizes with each keeping ratio.

        Args:
            sizes: (height, width) of the network's input, one for each image.
            ratios: Keeping ratios; None for a dense encoder.
        """
        images = dict(Counter(sizes))
        by_formula = [ratio for ratio in ratios if _follows_from_tokens(ratio)]
        if len(images) * len(by_formula) > _FEW and self._formula is None:
            self._formula = DetectorCost(self._model, self._convention, self._order)
            self.uncounted |= self._formula.uncounted
        return [self._cost(images, ratio) for ratio in ratios]

    def _cost(self, images: dict[Size, int], ratio: KeepRatio | None) -> SizeSetCost:
        cost = SizeSetCost({}, images, {}, {})
        formula = self._formula if _follows_from_tokens(ratio) else None
        for size in images:
            if formula is None:
                count = count_flops(self._model, size, ratio, self._convention, self._order)
                parts, kept, tokens = count.by_part, count.kept, count.num_tokens
                self.uncounted |= set(count.uncounted)
            else:
                tokens = formula.tokens(size)
                kept = _kept(ratio, tokens)
                parts = formula.by_part(size, kept[0] if len(kept) == 1 else kept)
            cost.by_size[size], cost.kept[size], cost.tokens[size] = parts, kept, tokens
        return cost


def _follows_from_tokens(ratio: KeepRatio | None) -> bool:
    """Whether the number of tokens of an image says how many are kept."""
    entries = ratio.entries if isinstance(ratio, PerLayer) else (ratio,)
    return all(entry is None or isinstance(entry, Uniform) for entry in entries)


def _kept(ratio: KeepRatio | None, tokens: int) -> tuple[int, ...]:
    """Kept tokens of each layer, one number where all layers share a selection."""
    if ratio is None:
        return ()
    entries = ratio.entries if isinstance(ratio, PerLayer) else (ratio,)
    ratios = [entry.ratio for entry in entries if isinstance(entry, Uniform)]
    kept = tuple(min(tokens, kept_count(tokens, share)) for share in ratios)
    return kept[:1] if len(set(ratios)) == 1 else kept
