"""What is counted, and for which way of computing.

Two conventions, so that a figure can stand beside the released one and still be true of what runs:

- :data:`HONEST` counts what this model runs at inference, with every multiply-add of the sampling
  and of its projections. Frozen batch norms count 2 per element, as fvcore counts them.
- :data:`RELEASED` counts as the release's table does: what the released code runs at inference
  (predictions of every decoder layer, boxes of every token in the first stage, the box heads of
  the decoder twice, all values projected before they are sampled), a sampled value as 4, and
  neither frozen batch norms nor the arithmetic of locations and weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .operator_handles import (
    HONEST_HANDLES,
    RELEASED_HANDLES,
    RELEASED_WITH_NORMS_HANDLES,
    Handle,
)


@dataclass(frozen=True)
class FlopConvention:
    """A way of counting.

    Attributes:
        name: As programs take and print it.
        handles: What a traced operator counts, by its name, over fvcore's own handles.
        released_computation: Run and count all that the released code computes at inference.
        encoder_auxiliary: Among that, the auxiliary heads of the encoder, which the released code
            also runs at inference unless it is built without them.
    """

    name: str
    handles: Mapping[str, Handle]
    released_computation: bool = False
    encoder_auxiliary: bool = False


HONEST = FlopConvention("honest", HONEST_HANDLES)
RELEASED = FlopConvention("released", RELEASED_HANDLES, released_computation=True)
RELEASED_AS_BUILT = FlopConvention(
    "released-as-built", RELEASED_HANDLES, released_computation=True, encoder_auxiliary=True
)
# DINO and Focus-DETR, whose frozen batch norms fvcore sees.
RELEASED_WITH_NORMS = FlopConvention(
    "released-with-norms", RELEASED_WITH_NORMS_HANDLES, released_computation=True
)
CONVENTIONS_BY_NAME = {c.name: c for c in (HONEST, RELEASED, RELEASED_AS_BUILT)}
