"""Multiply-adds of the operators: one formula each, on plain numbers.

Everywhere in this package 1 multiply-add is 1 FLOP, as in fvcore and in the tables of the papers.
Counted are the multiply-adds of contractions (a sampled value times its weight, a projection) and
of the coordinate and weight arithmetic per sample. Not counted, as fvcore does not count them
either: element-wise functions (softmax, activations, sine), additions alone (residuals, biases,
the sum of the weights that a bias is scaled by), comparisons, sorting, copies.

The formulas say what the operators do for points that lie inside a map: a corner outside is
skipped in reality and counted here, so a count depends on shapes alone.
"""

from __future__ import annotations

from dataclasses import dataclass

# Bilinear interpolation reads the four cells around a location.
CORNERS = 4
# Two coordinates: reference + scaled offset.
LOCATION_FLOPS = 2
# Two coordinates: location * size - 0.5.
PIXEL_FLOPS = 2
# One product of a row and a column fraction per corner.
CORNER_FLOPS = CORNERS
# The attention weight, times each corner's weight.
WEIGHTING_FLOPS = CORNERS


@dataclass(frozen=True)
class SamplingSize:
    """How much a deformable attention samples.

    Attributes:
        batch: Images B.
        queries: Queries Q.
        heads: Heads H.
        levels: Levels L.
        points: Points P per head and level.
    """

    batch: int
    queries: int
    heads: int
    levels: int
    points: int

    @property
    def samples(self) -> int:
        """B * Q * H * L * P."""
        return self.batch * self.queries * self.heads * self.levels * self.points


def gather_flops(samples: int, channels: int) -> int:
    """Gives ``samples * 4 * channels``: each corner's channels times that corner's weight.

    Args:
        samples: Number of sampled points.
        channels: Channels read at each: D of a head, or C of a token.
    """
    return samples * CORNERS * channels


def ms_deform_attn_flops(size: SamplingSize, channels: int) -> int:
    """Gives ``B*Q*H*L*P * (4*D + 10)``.

    Per sample: 2 for the pixel coordinates, 4 for the weights of the corners, 4 for their products
    with the attention weight, and ``4 * D`` for the values.

    Args:
        size: How much is sampled.
        channels: Channels D of a head.
    """
    per_sample = PIXEL_FLOPS + CORNER_FLOPS + WEIGHTING_FLOPS
    return size.samples * per_sample + gather_flops(size.samples, channels)


def deform_attn_sampling_flops(size: SamplingSize) -> int:
    """Gives ``B*Q*H*L*P * 2``: the two coordinates of each location. The softmax is not counted.

    Args:
        size: How much is sampled.
    """
    return size.samples * LOCATION_FLOPS


def ms_deform_attn_fused_flops(size: SamplingSize, channels: int) -> int:
    """Gives ``B*Q*H*L*P * (4*D + 12)``: the locations, then the sampling.

    Args:
        size: How much is sampled.
        channels: Channels D of a head.
    """
    return deform_attn_sampling_flops(size) + ms_deform_attn_flops(size, channels)


def sample_then_project_flops(size: SamplingSize, source_channels: int, head_channels: int) -> int:
    """Gives ``B*Q*H*L*P * (4*C + 12) + B*Q*H*D*C + B*Q*H*D``.

    The samples are aggregated over all C channels of the source; then each head projects its own
    aggregate to D channels, and adds its bias times the sum of the weights that fell inside.

    Args:
        size: How much is sampled.
        source_channels: Channels C of a token.
        head_channels: Channels D of a head.
    """
    outputs = size.batch * size.queries * size.heads * head_channels
    return ms_deform_attn_fused_flops(size, source_channels) + outputs * (source_channels + 1)


def project_then_sample_flops(
    size: SamplingSize, tokens: int, source_channels: int, head_channels: int
) -> int:
    """Gives ``B*N*C*H*D + B*Q*H*L*P * (4*D + 12)``: the same attention in the usual order.

    Args:
        size: How much is sampled.
        tokens: Tokens N of an image.
        source_channels: Channels C of a token.
        head_channels: Channels D of a head.
    """
    projection = size.batch * tokens * source_channels * size.heads * head_channels
    return projection + ms_deform_attn_fused_flops(size, head_channels)


def decoder_attention_map_flops(sizes: list[SamplingSize]) -> int:
    """Gives ``B*Q*H*L*P * 10`` summed over the decoder's layers.

    Per sample: 2 for the pixel coordinates, 4 for the weights of the corners, and 4 for the
    attention weight times each of them, added to the map.

    Args:
        sizes: How much each layer sampled.
    """
    per_sample = PIXEL_FLOPS + CORNER_FLOPS + WEIGHTING_FLOPS
    return sum(size.samples * per_sample for size in sizes)


def grid_sample_flops(samples: int, channels: int) -> int:
    """Gives ``samples * (4 * channels + 12)``: one call of the path without compiled operators.

    That path places the samples and weights what `grid_sample` gives by element-wise arithmetic
    around it, which is not counted. They are counted here instead, as the compiled operators do
    them, so that a count does not depend on which path runs.

    Args:
        samples: Sampled points of all images.
        channels: Channels read at each.
    """
    per_sample = LOCATION_FLOPS + PIXEL_FLOPS + CORNER_FLOPS + WEIGHTING_FLOPS
    return samples * per_sample + gather_flops(samples, channels)


def attention_flops(batch: int, queries: int, keys: int, channels: int, read: int) -> int:
    """Gives ``B*Q*K * (C + D)``: logits and weighted sum of a dense attention, all heads together.

    Args:
        batch: Images B.
        queries: Queries Q.
        keys: Keys K.
        channels: Channels C of a query and a key.
        read: Channels D of a value.
    """
    return batch * queries * keys * (channels + read)
