"""Reproducible weights drawn from parameter names: the recipe that reference vectors are made with.

A reference run and this project draw the same tensor for the same released key name, so a
reference file holds inputs and outputs only and needs no copy of the weights.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def seeded_tensor(key: str, shape: Sequence[int], seed: int) -> npt.NDArray[np.float64]:
    """Values of the parameter or buffer that has the released name ``key``.

    The values are exact float32 numbers held in float64, so both precisions load them unchanged.

    Args:
        key: full name in the released state dict (``backbone.0.body.conv1.weight``), heads under
            their top-level names (``class_embed.N``, ``bbox_embed.N.layers.j``).
        shape: shape of the tensor.
        seed: seed of the recipe.

    Returns:
        float64 array of ``shape``.
    """
    size = tuple(int(extent) for extent in shape)
    generator = np.random.Generator(np.random.PCG64([zlib.crc32(key.encode()), seed]))
    drawn = np.asarray(generator.standard_normal(size), dtype=np.float64)
    return _scaled(key, size, drawn).astype(np.float32).astype(np.float64)


def _scaled(
    key: str, size: tuple[int, ...], drawn: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """``drawn`` brought to a scale at which activations neither vanish nor explode.

    The first rule that fits the key wins, so the order of the tests matters.
    """
    if key.endswith("running_var"):
        return 1.0 + 0.2 * np.abs(drawn)
    if key.endswith("running_mean"):
        return 0.1 * drawn
    if len(size) == 4:
        return drawn * math.sqrt(2.0 / (size[1] * size[2] * size[3]))
    if key.endswith(("relative_position_bias_table", "level_embed")):
        return 0.5 * drawn
    if "sampling_offsets.bias" in key:
        return 2.0 * drawn
    if len(size) == 2:
        return drawn / math.sqrt(size[1])
    if key.endswith("weight"):
        # The last norm of a residual block is kept small, else 16 blocks in a row explode.
        return (1.0 + 0.1 * drawn) * (0.25 if ".bn3." in key else 1.0)
    if "class_embed" in key:
        return -4.0 + 0.3 * drawn
    return 0.1 * drawn
