"""Positions of queries from the boxes that they start from."""

import math

import pytest
import torch

from sparse_detr.decoder import ReferencePosition

C = 8


@pytest.mark.parametrize("scaled", [False, True])
def test_a_box_is_described_by_sines_in_the_order_y_x_w_h(scaled):
    part = ReferencePosition(C, scaled_to_padded_map=scaled).double()
    box, ratio = torch.tensor([0.2, 0.3, 0.4, 0.5]).double(), torch.tensor([0.5, 0.25]).double()
    got = part(box[None, None], ratio[None, None].expand(1, 2, 2))
    values = box * ratio.repeat(2) if scaled else box
    features = []
    for value in (values[1], values[0], values[2], values[3]):
        for pair in range(C // 4):
            angle = value * 2 * math.pi / 10000 ** (2 * pair / (C // 2))
            features += [angle.sin(), angle.cos()]
    torch.testing.assert_close(got[0, 0], part.mlp(torch.stack(features)))


def test_channels_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="divisible by 4"):
        ReferencePosition(6)
