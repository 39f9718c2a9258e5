"""Per-sample seeding of the global random generators.

Role in the flow: the loaders run the mapper of each sample under a seed made from the run's seed
and the sample's position in the stream, so what a sample becomes depends neither on the number of
loader workers nor on whether the run was resumed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded_generators(*entropy: int) -> Iterator[None]:
    """Seeds Python's, numpy's and torch's CPU generator inside the block, then restores them.

    Restoring matters where the loader runs in the training process (no workers): the model's own
    random numbers must not depend on the data.

    Args:
        entropy: non-negative integers that together make the seed.
    """
    words = np.random.SeedSequence(entropy).generate_state(4)
    python_state, numpy_state = random.getstate(), np.random.get_state()
    torch_state = torch.default_generator.get_state()
    random.seed(int(words[0]))
    np.random.seed(words[1:3])
    # The CPU generator only: torch.manual_seed would reseed the GPU's as well.
    torch.default_generator.manual_seed(int(words[3]))
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.default_generator.set_state(torch_state)
