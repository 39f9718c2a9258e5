"""Stages of the small ResNet."""

import pytest

from sparse_detr.backbone import make_basic_stages


def test_stages_have_the_asked_widths_depths_and_strides():
    stages = make_basic_stages(8, (8, 16, 24), (2, 1, 3))
    assert [len(stage) for stage in stages] == [2, 1, 3]
    assert [[block.out_channels for block in stage] for stage in stages] == [
        [8, 8],
        [16],
        [24, 24, 24],
    ]
    assert [[block.stride for block in stage] for stage in stages] == [[1, 1], [2], [2, 1, 1]]


@pytest.mark.parametrize(
    ("widths", "depths", "named"),
    [
        ((8, 16), (1,), "widths and depths"),
        ((), (), "widths and depths"),
        ((8, 16), (1, 0), "depths"),
        ((8, 8), (1, 1), "widths"),
    ],
)
def test_wrong_stages_are_named(widths, depths, named):
    with pytest.raises(ValueError, match=named):
        make_basic_stages(8, widths, depths)
