"""Where SMCA's queries expect their objects: centres, offsets and scales of a Gaussian prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..layers.gaussian_attention import GaussianPrior
from ..layers.initialization import xavier_matrices_
from ..layers.mlp import MLP
from ..layers.precision import at_least_float32
from ..structures import FeatureTokens

# Numbers that a head predicts for its scale.
_SCALE_NUMBERS = {"fixed": 0, "isotropic": 1, "axes": 2, "axes_and_product": 3}


@dataclass(frozen=True)
class PriorForm:
    """The form of the prior; one choice of the paper's ablations.

    Attributes:
        scale: ``"axes"``: a scale for width and one for height. ``"isotropic"``: one for both.
            ``"fixed"``: none, the width is always the same. ``"axes_and_product"``: as axes, and
            one for the product of the squared distances.
        heads_share: Every head has the same prior, without an offset. False gives each head its
            own offset and scale.
        smooth: Divides the logarithm of the prior, the paper's beta.
        level_factors: Multiplies it on each level.
        select_scales: Weigh the levels by query. False counts all alike.

    Source: SMCA, sections 3.2, 3.3 and 4.3; the released code calls the four scales type3, type2,
        type1 and type4.
    """

    scale: str = "axes"
    heads_share: bool = False
    smooth: float = 8.0
    level_factors: tuple[float, ...] = (1.0,)
    select_scales: bool = True

    def __post_init__(self) -> None:
        if self.scale not in _SCALE_NUMBERS:
            known = ", ".join(_SCALE_NUMBERS)
            raise ValueError(f"prior_scale must be one of {known}, got {self.scale!r}")
        if not self.smooth > 0:
            raise ValueError(f"prior_smooth must be above 0, got {self.smooth}")
        factors = tuple(float(f) for f in self.level_factors)
        if not factors or min(factors) <= 0:
            raise ValueError(f"level_factors must be above 0, at least one, got {factors}")
        object.__setattr__(self, "level_factors", factors)

    @property
    def scale_numbers(self) -> int:
        """Numbers that a scale is made of."""
        return _SCALE_NUMBERS[self.scale]


class GaussianPriorNetwork(nn.Module):
    """Reads the priors of a decoder layer from its queries.

    Args:
        hidden_dim: Channels C.
        num_heads: Heads H.
        form: Of the prior.
        alpha_of_first_image: False weighs the levels for each image by its own queries. True is
            the released behaviour: by those of the first image of the batch.

    Source: SMCA, section 3.2; section 3.4 for the weights of the levels (scale selection). Scales
        start at one, so that a prior starts two cells wide.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        form: PriorForm,
        alpha_of_first_image: bool = False,
    ) -> None:
        super().__init__()
        self.form = form
        self.alpha_of_first_image = alpha_of_first_image
        self.num_levels = len(form.level_factors)
        self.num_heads = 1 if form.heads_share else num_heads
        places = self.num_levels * self.num_heads
        self.norm = nn.LayerNorm(hidden_dim)
        self.offset = None if form.heads_share else nn.Linear(hidden_dim, 2 * places)
        numbers = form.scale_numbers
        self.scale = nn.Linear(hidden_dim, numbers * places) if numbers else None
        selects = self.num_levels > 1 and form.select_scales
        self.level_weight = nn.Linear(hidden_dim, self.num_levels) if selects else None
        xavier_matrices_(self)
        if self.scale is not None:
            nn.init.zeros_(self.scale.weight)
            nn.init.ones_(self.scale.bias)

    def features(self, queries: Tensor) -> Tensor:
        """(B, Q, C) the normed queries, as all networks here read them."""
        output: Tensor = self.norm(queries.to(self.norm.weight.dtype))
        return output

    def forward(
        self, queries: Tensor, centres: Tensor, extents: Sequence[Tensor]
    ) -> tuple[tuple[GaussianPrior, ...], Tensor | None]:
        """Priors of the levels, and what each level counts.

        Args:
            queries: (B, Q, C) content with position, in front of the layer's self-attention.
            centres: (B, Q, 2) normalised, order (x, y).
            extents: For each level (B, 1, 2) width and height of the images in cells.

        Returns:
            L priors; and (B, Q, L) weights of the levels that sum to 1, None where all count alike.
        """
        with torch.autocast(queries.device.type, enabled=False):
            dtype = at_least_float32(queries.dtype)
            features = self.features(queries)
            cells = torch.stack([(centres.to(dtype) * e.to(dtype))[:, :, None] for e in extents], 2)
            if self.offset is not None:
                offset = self.offset(features).to(dtype)
                cells = cells + offset.view(*cells.shape[:3], self.num_heads, 2)
            precisions, products = self._precisions(features, cells)
            priors = tuple(
                GaussianPrior(
                    cells[:, :, level],
                    precisions[:, :, level],
                    None if products is None else products[:, :, level],
                )
                for level in range(self.num_levels)
            )
            return priors, self._level_weights(features)

    def _precisions(self, features: Tensor, cells: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B or 1, Q or 1, L, H, 2) along the axes, and (B, Q, L, H) of the product or None."""
        factors = cells.new_tensor(self.form.level_factors)[:, None, None] / self.form.smooth
        if self.scale is None:
            return factors.expand(1, 1, -1, self.num_heads, 2), None
        shape = (*cells.shape[:3], self.num_heads, self.form.scale_numbers)
        squared = self.scale(features).to(cells.dtype).view(shape) ** 2 * factors
        if self.form.scale_numbers < 3:
            return squared.expand(*shape[:-1], 2), None
        return squared[..., :2], squared[..., 2]

    def _level_weights(self, features: Tensor) -> Tensor | None:
        if self.level_weight is None:
            return None
        weights: Tensor = self.level_weight(features).softmax(-1)
        return weights[:1].expand_as(weights) if self.alpha_of_first_image else weights


class InitialCentres(MLP):
    """The point from which every layer's prior and every box of a query start.

    It is read from the queries as they enter the decoder. Where these are the same for every image
    (learned queries) so is the point.

    Args:
        hidden_dim: Channels C.

    Source: SMCA, section 3.2, equation 3. The paper's network has two layers, the released one
        three.
    """

    def __init__(self, hidden_dim: int) -> None:
        super().__init__(hidden_dim, hidden_dim, 2, num_layers=3)
        xavier_matrices_(self)

    def forward(self, features: Tensor) -> Tensor:
        """(B, Q, 2) normalised centres, order (x, y), from normed queries (B, Q, C)."""
        # Half precision would round where the queries start.
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features).sigmoid()


def image_extents(tokens: FeatureTokens, num_levels: int) -> tuple[Tensor, ...]:
    """For each level (B, 1, 2) width and height of the images in cells, which need not be whole.

    Args:
        tokens: With the sizes of the images and the strides of the levels.
        num_levels: Levels L that are expected.

    Raises:
        ValueError: The tokens do not know sizes or strides, or have other levels.
    """
    sizes, strides = tokens.image_sizes, tokens.strides
    if sizes is None or strides is None or len(strides) != num_levels:
        raise ValueError(
            f"tokens must know image_sizes and the strides of {num_levels} levels for a Gaussian "
            f"prior, got {sizes} and {strides}; take them from a Detectron2 backbone"
        )
    device, dtype = tokens.features.device, at_least_float32(tokens.features.dtype)
    pixels = torch.tensor([[w, h] for h, w in sizes], dtype=dtype, device=device)[:, None]
    return tuple(pixels / stride for stride in strides)
