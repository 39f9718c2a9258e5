"""The formulas against an implementation in scalars that counts as it computes."""

from __future__ import annotations

import itertools
import math

import pytest

from sparse_detr.analysis import operator_flops as flops
from sparse_detr.analysis.operator_flops import SamplingSize

SIZE = SamplingSize(batch=2, queries=3, heads=2, levels=2, points=3)


class MultiplyAdds:
    """Multiplies and adds scalars, and counts how often."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, a: float, b: float, c: float = 0.0) -> float:
        """a * b + c."""
        self.count += 1
        return a * b + c


def sample(
    madd: MultiplyAdds,
    channels: int,
    located: bool,
    read: bool = True,
) -> list[float]:
    """One sample of a deformable attention in scalars.

    Args:
        madd: Counts.
        channels: Channels read.
        located: Whether the location is computed from reference and offset.
        read: Whether values are read and summed.
    """
    x, y = 0.4, 0.6
    if located:
        x, y = madd(0.3, 0.1, x), madd(0.2, 0.1, y)
    x, y = madd(x, 7, -0.5), madd(y, 5, -0.5)
    right, lower = x - math.floor(x), y - math.floor(y)
    sums = [0.0] * channels
    for row, column in itertools.product((1 - lower, lower), (1 - right, right)):
        corner = madd(row, column)
        weight = madd(corner, 0.7)
        if read:
            sums = [madd(weight, 1.0, total) for total in sums]
    return sums


def samples(madd: MultiplyAdds, channels: int, located: bool, read: bool = True) -> int:
    for _ in range(2 * 3 * 2 * 2 * 3):
        sample(madd, channels, located, read)
    return madd.count


def test_sampling_at_given_locations_counts_every_multiply_add() -> None:
    expected = samples(MultiplyAdds(), channels=5, located=False)
    assert flops.ms_deform_attn_flops(SIZE, 5) == expected == 72 * (4 * 5 + 10)


def test_the_fused_operator_counts_the_locations_too() -> None:
    expected = samples(MultiplyAdds(), channels=5, located=True)
    assert flops.ms_deform_attn_fused_flops(SIZE, 5) == expected == 72 * (4 * 5 + 12)


def test_locations_and_sampling_apart_count_as_much_as_fused() -> None:
    apart = flops.deform_attn_sampling_flops(SIZE) + flops.ms_deform_attn_flops(SIZE, 5)
    assert apart == flops.ms_deform_attn_fused_flops(SIZE, 5)


def test_sampling_before_the_projection_counts_whole_tokens_the_projection_and_its_bias() -> None:
    madd = MultiplyAdds()
    channels, head_channels = 10, 5
    for _ in range(2 * 3 * 2):  # images, queries, heads
        aggregate = [0.0] * channels
        for _ in range(2 * 3):  # levels, points
            aggregate = [a + s for a, s in zip(aggregate, sample(madd, channels, True))]
        for _ in range(head_channels):
            output = madd(0.1, 1.0)  # bias times the sum of the weights
            for value in aggregate:
                output = madd(0.2, value, output)
    got = flops.sample_then_project_flops(SIZE, channels, head_channels)
    assert got == madd.count == 72 * (4 * 10 + 12) + 12 * 5 * 11


def test_the_usual_order_counts_the_projection_of_every_token() -> None:
    madd = MultiplyAdds()
    tokens, channels, head_channels = 4, 10, 5
    for _ in range(2 * tokens * 2 * head_channels):
        for _ in range(channels):
            madd(0.2, 1.0)
    expected = samples(madd, head_channels, located=True)
    assert flops.project_then_sample_flops(SIZE, tokens, channels, head_channels) == expected


def test_the_decoder_attention_map_counts_coordinates_and_corner_weights_of_all_layers() -> None:
    one_layer = samples(MultiplyAdds(), channels=0, located=False, read=False)
    assert flops.decoder_attention_map_flops([SIZE, SIZE]) == 2 * one_layer == 2 * 72 * 10


def test_the_path_without_compiled_operators_counts_as_they_do() -> None:
    of_a_level = 2 * 3 * 2 * 3  # images, queries, heads, points
    apart = sum(flops.grid_sample_flops(of_a_level, 5) for _ in range(2))
    assert apart == flops.ms_deform_attn_fused_flops(SIZE, 5)


@pytest.mark.parametrize(("queries", "cheaper"), [(300, True), (1783, True), (8911, False)])
def test_sampling_first_pays_where_queries_are_few(queries: int, cheaper: bool) -> None:
    size = SamplingSize(1, queries, 8, 4, 4)
    first = flops.sample_then_project_flops(size, 256, 32)
    assert (first < flops.project_then_sample_flops(size, 17821, 256, 32)) == cheaper


def test_one_attention_at_the_size_of_the_paper_equals_numbers_worked_out_by_hand() -> None:
    # 300 queries, 8 heads, 4 levels, 4 points: 38,400 samples of 32 or 256 channels.
    size = SamplingSize(1, 300, 8, 4, 4)
    assert flops.ms_deform_attn_fused_flops(size, 32) == 5_376_000
    assert flops.sample_then_project_flops(size, 256, 32) == 39_782_400 + 19_737_600
    assert flops.project_then_sample_flops(size, 17821, 256, 32) == 1_167_917_056 + 5_376_000


def test_a_dense_attention_counts_logits_and_weighted_sum() -> None:
    madd = MultiplyAdds()
    for _ in range(2 * 3 * 4 * 6):  # images, queries, keys, channels
        madd(1.0, 1.0)  # logit
        madd(1.0, 1.0)  # weighted sum
    assert flops.attention_flops(2, 3, 4, 6, 6) == madd.count
