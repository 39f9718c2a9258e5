"""What one encoder layer costs, by hand: a formula in the kept tokens, without a trace.

With K kept of N tokens, C channels, H heads, L levels, P points and F channels between the two
linear layers of the feed-forward network, a layer counts

    K * (3*H*L*P*C + C*C)            offsets, attention logits, output projection
    + reading, one of
        N*C*C + K*H*L*P*(4*C/H + 12)             all tokens projected, then sampled
        K*H*L*P*(4*C + 12) + K*C*(C + 1)         sampled, then projected
    + K * (2*C*F + 10*C)             feed-forward network, two norms

Role: the tests hold the traced count to it, and it says where a saving comes from.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..encoder import DeformableEncoderLayer
from .operator_flops import SamplingSize, project_then_sample_flops, sample_then_project_flops

# fvcore's estimate of a norm with weights, per element.
NORM_FLOPS = 5


@dataclass(frozen=True)
class EncoderLayerSize:
    """The lengths that decide what an encoder layer costs.

    Attributes:
        hidden_dim: Channels C.
        num_heads: Heads H.
        num_levels: Levels L.
        num_points: Points P per head and level.
        feedforward_dim: Channels F between the layers of the feed-forward network.
    """

    hidden_dim: int
    num_heads: int
    num_levels: int
    num_points: int
    feedforward_dim: int

    @classmethod
    def of(cls, layer: DeformableEncoderLayer) -> EncoderLayerSize:
        """The lengths of a layer.

        Args:
            layer: Layer of a deformable encoder.
        """
        attention = layer.self_attn
        return cls(
            attention.output_proj.in_features,
            attention.num_heads,
            attention.num_levels,
            attention.num_points,
            layer.ffn.linear1.out_features,
        )


def encoder_layer_flops(kept: int, tokens: int, size: EncoderLayerSize, samples_first: bool) -> int:
    """Gives the multiply-adds of one encoder layer on one image; see the module's formula.

    Args:
        kept: Tokens K that the layer updates; all of them in a dense encoder.
        tokens: Tokens N of the image.
        size: The lengths of the layer.
        samples_first: Whether the attention samples tokens and projects what it read, instead of
            projecting all tokens first.

    Raises:
        ValueError: More tokens kept than there are.
    """
    if not 0 <= kept <= tokens:
        raise ValueError(f"kept must lie between 0 and tokens ({tokens}), got {kept}")
    channels, heads = size.hidden_dim, size.num_heads
    sampling = SamplingSize(1, kept, heads, size.num_levels, size.num_points)
    if samples_first:
        reading = sample_then_project_flops(sampling, channels, channels // heads)
    else:
        reading = project_then_sample_flops(sampling, tokens, channels, channels // heads)
    around_reading = 3 * sampling.samples * channels + kept * channels * channels
    feed_forward = 2 * kept * channels * size.feedforward_dim
    return around_reading + reading + feed_forward + 2 * NORM_FLOPS * kept * channels
