"""The released way to form the decoder cross-attention map gives the map of the detector."""

import pytest
import torch

from sparse_detr.decoder_attention_map import decoder_attention_map
from sparse_detr.structures import Sampling
from sparse_detr.testing.released_attention_map import released_attention_map

SHAPES = ((7, 5), (4, 3), (1, 2))


@pytest.mark.parametrize(("batch", "layers"), [(1, 1), (3, 2)])
def test_it_is_the_map_with_the_released_shift(batch, layers):
    sampling = [
        Sampling(
            torch.rand(batch, 5, 2, 3, 4, 2).double() * 1.6 - 0.3,
            torch.rand(batch, 5, 2, 3, 4).double(),
        )
        for _ in range(layers)
    ]
    released = released_attention_map(sampling, SHAPES)
    torch.testing.assert_close(released, decoder_attention_map(sampling, SHAPES))
    exact = decoder_attention_map(sampling, SHAPES, half_cell_shift=False)
    assert not torch.allclose(released, exact)
