import random

import numpy as np
import torch

from sparse_detr.data.seeding import seeded_generators


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))


def test_equal_seeds_give_equal_numbers_and_others_do_not() -> None:
    results = []
    for entropy in ((1, 2), (1, 2), (1, 3), (2, 2)):
        with seeded_generators(*entropy):
            results.append(draw())
    assert results[0] == results[1]
    assert len(set(results)) == 3


def test_generators_outside_go_on_as_if_nothing_had_happened() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    expected = [draw(), draw()]
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    first = draw()
    try:
        with seeded_generators(7):
            draw()
            raise KeyError("inside")
    except KeyError:
        pass
    assert [first, draw()] == expected
