"""The ordinary model computed the way the released code computes it: the benchmark's yardstick.

The same weights and the same detections, but each step done as in the released code of Sparse DETR
without its CUDA operator: `grid_sample` per level, a projection of all tokens and a masked copy of
it in every layer, frozen batch norms as separate multiplications and additions, auxiliary heads and
boxes of all tokens also at inference, box heads run twice, `scatter` into a new memory for each
image, positions and reference grids anew in each call. It is no part of the model.
"""

from .detector import ReleasedDetector
from .output import ReleasedOutput

__all__ = ["ReleasedDetector", "ReleasedOutput"]
