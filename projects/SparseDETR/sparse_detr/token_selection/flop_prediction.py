"""The GFLOPs of a detector for any image size and number of kept tokens, without running it.

Role in the flow: read by the GFLOP budget. The operators are those that would run, called with
stand-ins that have a shape and no contents; what each counts is the honest convention of
:mod:`sparse_detr.analysis`, whose figures these are.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from ..layers import backend
from ..layers.deformable_attention import MultiScaleDeformableAttention
from ..layers.sample_then_project import sampling_first_is_faster
from ..structures import FeatureTokens, Size
from .keep_ratio import FixedCounts

if TYPE_CHECKING:
    from ..meta_arch import TransformerDetector

_MAX_SIZES = 4096


class FlopPrediction:
    """Multiply-adds of a detector on one image by the number of tokens that it keeps.

    Args:
        detector: The detector; only its structure is kept. An optimised one counts as the one that
            it was made from.
    """

    def __init__(self, detector: TransformerDetector) -> None:
        self.device = detector.device
        with _outside_traces():
            self.structure = structure_of(detector)
        attentions = [
            module
            for module in self.structure.encoder.modules()
            if isinstance(module, MultiScaleDeformableAttention)
        ]
        self._orders = [attention.project_after_sampling for attention in attentions]
        self._attentions = attentions
        for attention in attentions:
            # The order that makes the count affine in the kept tokens; see `total`.
            attention.project_after_sampling = False
        self._slope_is_shared = len(attentions) == len(self.structure.encoder.layers)
        self._lines: OrderedDict[Size, tuple[int, int, int]] = OrderedDict()

    def total(self, image_size: Size, kept: int) -> int:
        """Multiply-adds of one image alone.

        Args:
            image_size: (height, width) of the network's input, pixels.
            kept: Tokens that every encoder layer updates.
        """
        constant, slope, num_tokens = self._line(image_size)
        return constant + slope * kept + self._order_difference(num_tokens, kept)

    def _line(self, image_size: Size) -> tuple[int, int, int]:
        """(constant, multiply-adds of a kept token, tokens) of an image size."""
        known = self._lines.get(image_size)
        if known is not None:
            self._lines.move_to_end(image_size)
            return known
        first, num_tokens = self._count(image_size, 1)
        if self._slope_is_shared and self._lines:
            slope = next(iter(self._lines.values()))[1]
        elif num_tokens > 1:
            slope = self._count(image_size, 2)[0] - first
        else:
            slope = 0
        line = first - slope, slope, num_tokens
        if num_tokens > 1:
            self._lines[image_size] = line
        if len(self._lines) > _MAX_SIZES:
            self._lines.popitem(last=False)
        return line

    def _order_difference(self, num_tokens: int, kept: int) -> int:
        """What sampling before projecting changes, in the encoder layers that do so."""
        from ..analysis import (
            operator_flops as flops,
        )  # it imports the detectors, which import this

        difference = 0
        kind = self.device.type
        automatic = sampling_first_is_faster(kind, kept, num_tokens, with_gradient=False)
        for attention, order in zip(self._attentions, self._orders, strict=True):
            if not (automatic if order is None else order and backend.is_native(kind)):
                continue
            heads, rows = attention.num_heads, attention.value_proj.out_features
            channels = attention.value_proj.in_features
            size = flops.SamplingSize(1, kept, heads, attention.num_levels, attention.num_points)
            difference += flops.sample_then_project_flops(size, channels, rows // heads)
            difference -= flops.project_then_sample_flops(size, num_tokens, channels, rows // heads)
        return difference

    def _count(self, image_size: Size, kept: int) -> tuple[int, int]:
        """Multiply-adds of one image with all values projected first, and its tokens."""
        flow = _Flow(self.structure, FixedCounts((kept,)))
        counter = FlopCounterMode(display=False, depth=1, custom_mapping=_operator_counts())
        with _outside_traces(), torch.no_grad(), FakeTensorMode():
            own = [*flow.named_parameters(), *flow.named_buffers()]
            stand_ins = {
                name: torch.empty(t.shape, dtype=t.dtype, device=self.device) for name, t in own
            }
            image = torch.zeros(3, *image_size, device=self.device)
            quiet = torch.autocast(self.device.type, enabled=False)
            with quiet, _KnownShapes(), counter:
                _, tokens = torch.func.functional_call(flow, stand_ins, (image,))
        # The counter counts a multiplication and an addition as two.
        return int(counter.get_total_flops()) // 2, tokens.features.shape[1]


_predictions: WeakKeyDictionary[nn.Module, FlopPrediction] = WeakKeyDictionary()


def prediction_of(detector: TransformerDetector) -> FlopPrediction:
    """The prediction of a detector, made when first asked for.

    Args:
        detector: The detector.
    """
    known = _predictions.get(detector)
    if known is None or known.device != detector.device:
        known = _predictions[detector] = FlopPrediction(detector)
    return known


def structure_of(detector: TransformerDetector) -> TransformerDetector:
    """A copy that has the shapes of all weights and none of the weights, in evaluation mode.

    Args:
        detector: The detector; of an optimised one, that which it was made from.
    """
    source: TransformerDetector = getattr(detector, "structure", detector)
    tensors = [*source.parameters(), *source.buffers()]
    memo: dict[int, Any] = {}
    for tensor in tensors:
        shape: Tensor = torch.empty_like(tensor, device="meta")
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(shape, requires_grad=False) if is_parameter else shape
    structure = copy.deepcopy(source, memo).eval()
    for module in structure.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return structure


@contextmanager
def _outside_traces() -> Iterator[None]:
    """Leaves torch's tracer, in which sizes are tensors, for the time of the block."""
    tracer: Any = torch._C  # its setter has no type
    state = tracer._get_tracing_state()
    tracer._set_tracing_state(None)
    try:
        yield
    finally:
        tracer._set_tracing_state(state)


class _Flow(nn.Module):
    """From the image to the last predictions; what comes after counts nothing."""

    def __init__(self, detector: TransformerDetector, keep: FixedCounts) -> None:
        super().__init__()
        self.detector = detector
        self.keep = keep

    def forward(self, image: Tensor) -> tuple[Any, FeatureTokens]:
        """Output of the detector and its tokens."""
        tokens = self.detector.extract_tokens(self.detector.preprocess([{"image": image}]))
        return self.detector.detect(tokens, self.keep), tokens


class _KnownShapes(TorchFunctionMode):
    """Gives what depends on contents a shape: as if every element were found."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """What torch calls in place of one of its functions."""
        if func is Tensor.nonzero:
            mask = args[0]
            return torch.zeros(mask.numel(), mask.dim(), dtype=torch.long, device=mask.device)
        return func(*args, **(kwargs or {}))


def _operator_counts() -> dict[Any, Callable[..., int]]:
    """What the counter does not know, in its unit of two for a multiply-add."""
    from ..analysis import operator_flops as flops  # it imports the detectors, which import this

    def per_element(count: int) -> Callable[..., int]:
        return lambda x, *rest, **options: 2 * count * math.prod(x)

    def fused(value: Any, shapes: Any, points: Any, offsets: Any, logits: Any, *rest: Any,
              **options: Any) -> int:  # fmt: skip
        return 2 * flops.ms_deform_attn_fused_flops(flops.SamplingSize(*logits[:5]), value[-1])

    def sampled_first(source: Any, shapes: Any, points: Any, offsets: Any, logits: Any,
                      weight: Any, *rest: Any, **options: Any) -> int:  # fmt: skip
        size = flops.SamplingSize(*logits[:5])
        return 2 * flops.sample_then_project_flops(size, weight[1], weight[0] // size.heads)

    def grid_sample(x: Any, grid: Any, *rest: Any, out_shape: Any, **options: Any) -> int:
        batch, channels, height, width = out_shape
        return 2 * flops.grid_sample_flops(batch * height * width, channels)

    def attention(query: Any, key: Any, *rest: Any, **options: Any) -> int:
        *leading, queries, channels = query
        return 2 * flops.attention_flops(math.prod(leading), queries, key[-2], channels)

    aten = torch.ops.aten
    counts: dict[Any, Callable[..., int]] = {
        aten.native_layer_norm: per_element(5),
        aten.native_group_norm: per_element(5),
        aten._native_batch_norm_legit_no_training: per_element(2),
        aten.native_batch_norm: per_element(2),
        aten.cudnn_batch_norm: per_element(2),
        aten.grid_sampler_2d: grid_sample,
        aten._scaled_dot_product_flash_attention_for_cpu: attention,
    }
    if backend.extension_status.loaded:
        counts[torch.ops.sparse_detr.ms_deform_attn_fused] = fused
        counts[torch.ops.sparse_detr.sample_then_project] = sampled_first
    return counts
