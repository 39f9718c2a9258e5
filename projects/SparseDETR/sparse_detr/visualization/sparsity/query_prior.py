"""Where a query expected its object: the Gaussians in front of its attention, by head.

Role in the flow: part of the sparsity view, for decoders with a Gaussian prior.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...inference.inspection import LayerPriors
from ...layers.gaussian_attention import GaussianPrior
from ...structures import Size

_LEAST_PRECISION = 1e-6
"""Per cell squared; a flatter Gaussian is drawn as if it had this, 700 cells wide."""


@dataclass(frozen=True)
class QueryPrior:
    """The prior of one query in one decoder layer, pixels of the network's input.

    Attributes:
        centres: (n, 2) x and y of the Gaussian of each level and head.
        sigmas: (n, 2) standard deviations along x and y, of the separable part.
        levels: (n,) level of each.
        maps: For each level (H_l, W_l) the prior over the cells of the padded image, summed over
            the heads, times what the level counts for the query.
    """

    centres: npt.NDArray[np.float64]
    sigmas: npt.NDArray[np.float64]
    levels: npt.NDArray[np.int64]
    maps: tuple[npt.NDArray[np.float64], ...]


def query_prior(layer: LayerPriors, query: int, padded_size: Size) -> QueryPrior:
    """Gives the prior of a query of the only image of a batch.

    Args:
        layer: Priors of a decoder layer.
        query: Index of the query.
        padded_size: (height, width) of the network's input with padding.

    Source: SMCA, section 3.2: a head's prior is exp(-p d^2) for a precision p, so its standard
        deviation is 1 / sqrt(2 p).
    """
    centres, sigmas, levels, maps = [], [], [], []
    for level, (priors, shape) in enumerate(zip(layer.priors, layer.spatial_shapes, strict=True)):
        prior = _of_query(priors, query)
        cell = np.array([padded_size[1] / shape[1], padded_size[0] / shape[0]])
        own = prior.centres[0, 0].double().cpu().numpy()
        precisions = prior.precisions[0, 0].double().cpu().numpy()
        # The coordinate 0 is the middle of the first cell.
        centres.append((own + 0.5) * cell)
        sigmas.append(cell / np.sqrt(2 * np.maximum(precisions, _LEAST_PRECISION)))
        levels.append(np.full(len(own), level))
        heads = prior.log_map(shape)[0, :, 0].double().exp()
        weights = layer.level_weights
        counts = 1.0 if weights is None else float(weights[0, query, level])
        maps.append(counts * heads.sum(0).view(shape).cpu().numpy())
    return QueryPrior(
        np.concatenate(centres), np.concatenate(sigmas), np.concatenate(levels), tuple(maps)
    )


def _of_query(prior: GaussianPrior, query: int) -> GaussianPrior:
    """Gives the prior of a query of the first image, (1, 1, H or 1, ...)."""
    row = (slice(1), slice(query, query + 1))
    product = prior.product_precision
    return GaussianPrior(
        prior.centres[row],
        prior.precisions.expand(*prior.centres.shape)[row],
        None if product is None else product[row],
    )
