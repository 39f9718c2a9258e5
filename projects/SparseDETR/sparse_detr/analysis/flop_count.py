"""Counts the multiply-adds of a detector on one image, part by part.

The detector is traced once on an image of the given size and fvcore adds up what the traced
operators count (:mod:`.operator_handles`). Only shapes matter, so the image is empty. The operators
counted are those that run: where the attention chooses its order by itself, the chosen one counts.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..inference import OptimizedDetector
from ..layers.deformable_attention import MultiScaleDeformableAttention
from ..meta_arch import TransformerDetector
from ..structures import DetectorOutput, ImageBatch, Size
from ..token_selection import GflopBudget, KeepRatioLike, PollAndPool, as_keep_ratio
from .conventions import HONEST, FlopConvention
from .operator_handles import ELEMENTWISE

# Part of the flow by name of the module that runs an operator; the first that fits.
_PARTS = (
    (r"backbone\b", "backbone"),
    (r"feature_projection\b", "feature projection"),
    (r"proposal_projection\b", "proposal projection"),
    (r"token_scoring\b", "token scoring"),
    (r"token_selection\b", "token selection"),
    (r"encoder\.layers\.\d+\.self_attn\b", "encoder attention"),
    (r"encoder\b", "encoder feed-forward"),
    (r"query_selection\b", "query selection"),
    (r"decoder\.layers\.\d+\.self_attn\b", "decoder self-attention"),
    (r"decoder\.layers\.\d+\.cross_attn\b", "decoder cross-attention"),
    (r"decoder\b", "decoder feed-forward"),
)
_HEADS = ("first-stage head", "decoder heads", "encoder auxiliary heads")
_REPEATED = "decoder box heads, second run"
# What runs outside all parts.
_OTHER = "other"
PARTS = (*(part for _, part in _PARTS), *_HEADS, _REPEATED, _OTHER)


@dataclass(frozen=True)
class FlopCount:
    """Multiply-adds of one forward pass of one image.

    Attributes:
        by_part: By part of the flow, in its order; see :data:`PARTS`. Norms count with the part
            they are in.
        by_operator: By traced operator.
        by_module: By module of the detector, with all below it; "" is everything. What the
            released code computes beyond what can be traced here is in ``by_part`` alone.
        uncounted: How often operators ran that count nothing and are not known to be element-wise;
            empty unless a part brings operators of its own.
        num_tokens: Tokens N of the image.
        kept: Tokens that each encoder layer updated, or one number for all layers; empty where no
            token was selected.
    """

    by_part: dict[str, int]
    by_operator: dict[str, int]
    by_module: dict[str, int] = field(repr=False)
    uncounted: dict[str, int]
    num_tokens: int = 0
    kept: tuple[int, ...] = ()

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(self.by_part.values())


def count_flops(
    model: TransformerDetector,
    image_size: Size,
    keep_ratio: KeepRatioLike | None = None,
    convention: FlopConvention = HONEST,
    project_after_sampling: bool | None = None,
) -> FlopCount:
    """Gives the multiply-adds of one forward pass.

    Args:
        model: The detector, in evaluation mode. It is not changed.
        image_size: (height, width) of the network's input, pixels.
        keep_ratio: Keeping ratio of this count; None takes the model's own.
        convention: What is counted.
        project_after_sampling: Order of every deformable attention: True samples the tokens and
            projects the sums, False projects all tokens and samples the values. None leaves each
            attention its own choice.

    Raises:
        ValueError: The model is in training mode or optimised, or an argument does not fit it.
    """
    if isinstance(model, OptimizedDetector):
        raise ValueError(
            "model is optimised for inference, which cannot be traced; count the detector that it "
            "was made from: the optimised one computes the same but for the folded batch norms"
        )
    if model.training:
        raise ValueError("model is in training mode, expected evaluation mode; call model.eval()")
    ratio = model.keep_ratio if keep_ratio is None else as_keep_ratio(keep_ratio)
    if isinstance(ratio, GflopBudget):
        ratio.cost_of(model)  # remembered: found here, as it cannot be within a trace
    like = model.position_embedding.level_embed
    image = torch.zeros(3, *image_size, device=like.device)
    flow = (
        _ReleasedComputation(model, keep_ratio, convention.encoder_auxiliary)
        if convention.released_computation
        else _Inference(model, keep_ratio)
    )
    with torch.no_grad(), _forced_order(model, project_after_sampling), _TraceableViews():
        analysis = FlopCountAnalysis(flow, (image,))
        analysis.set_op_handle(**convention.handles)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        modules = {_without_root(name): int(count) for name, count in analysis.by_module().items()}
        operators = {name: int(count) for name, count in analysis.by_operator().items() if count}
        uncounted = {k: n for k, n in analysis.unsupported_ops().items() if k not in ELEMENTWISE}
    parts = _by_part(modules, model)
    if isinstance(flow, _ReleasedComputation):
        parts = _with_released_work(parts, modules, model, flow)
    return FlopCount(parts, operators, modules, uncounted, flow.num_tokens, flow.kept)


class _Flow(nn.Module):
    """A detector with tensors in and out, which is what can be traced, and what it selected."""

    def __init__(self, detector: TransformerDetector, keep_ratio: KeepRatioLike | None) -> None:
        super().__init__()
        self.detector = detector
        self.keep_ratio = keep_ratio
        self.num_tokens = 0
        self.kept: tuple[int, ...] = ()

    def detect(self, images: ImageBatch, supervise: bool) -> DetectorOutput:
        """Everything up to the last predictions."""
        tokens = self.detector.extract_tokens(images)
        output = self.detector.detect(tokens, self.keep_ratio, supervise=supervise)
        self.num_tokens = sum(height * width for height, width in tokens.spatial_shapes)
        if output.selection is not None:
            self.kept = tuple(layer.kept_counts[0] for layer in output.selection.layers)
        return output


class _Inference(_Flow):
    """The detector as it runs."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes and scores of the detections."""
        images = self.detector.preprocess([{"image": image}])
        last = self.detect(images, supervise=False).decoder.predictions[-1]
        found = self.detector.postprocess(last, images.original_sizes)[0]
        return found.pred_boxes.tensor, found.scores


class _ReleasedComputation(_Flow):
    """The detector with all that the released code computes at inference."""

    def __init__(
        self,
        detector: TransformerDetector,
        keep_ratio: KeepRatioLike | None,
        encoder_auxiliary: bool,
    ) -> None:
        super().__init__(detector, keep_ratio)
        self.encoder_auxiliary = encoder_auxiliary

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Logits and boxes of all stages: what no output needs would not be traced."""
        heads, count = self.detector.heads, self.detector.heads.num_encoder_heads
        heads.num_encoder_heads = count if self.encoder_auxiliary else 0
        try:
            output = self.detect(self.detector.preprocess([{"image": image}]), supervise=True)
        finally:
            heads.num_encoder_heads = count
        predictions = [*output.decoder.predictions, *output.encoder_auxiliary]
        if output.queries.first_stage is not None:
            predictions.append(output.queries.first_stage)
        return tuple(t for p in predictions for t in (p.logits, p.boxes_cxcywh))


class _TraceableViews(TorchFunctionMode):
    """Replaces a view of the bits as another type, which a trace cannot hold, by a conversion.

    Other values of the same shape: the tokens are ranked otherwise, and as many are kept.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """What torch calls in place of one of its functions."""
        if func is Tensor.view and len(args) == 2 and isinstance(args[1], torch.dtype):
            return args[0].to(args[1])
        return func(*args, **(kwargs or {}))


@contextmanager
def _forced_order(model: nn.Module, project_after_sampling: bool | None) -> Iterator[None]:
    """Gives every deformable attention an order, for the time of the block."""
    if project_after_sampling is None:
        yield
        return
    attentions = [m for m in model.modules() if isinstance(m, MultiScaleDeformableAttention)]
    before = [attention.project_after_sampling for attention in attentions]
    for attention in attentions:
        attention.project_after_sampling = project_after_sampling
    try:
        yield
    finally:
        for attention, order in zip(attentions, before, strict=True):
            attention.project_after_sampling = order


def _with_released_work(
    parts: dict[str, int], modules: dict[str, int], model: TransformerDetector, flow: _Flow
) -> dict[str, int]:
    """The parts with the work that this project saves and the released code does.

    Every token is projected once for its score and once for the first stage, and passes all layers
    of the scoring network; every token gets a first-stage box; each box head of the decoder runs
    twice. On the other hand, only what was not polled is read for pooling there.
    """
    num_tokens = flow.num_tokens
    parts = {part: count for part, count in parts.items() if part != _OTHER}
    scoring = model.token_scoring
    runs = int(model.heads.two_stage) + int(scoring is not None and scoring.reads_projection)
    if model.proposal_projection is not None:
        once = _per_token(model.proposal_projection)
        parts["proposal projection"] = runs * num_tokens * once
    if scoring is not None:
        parts["token scoring"] = num_tokens * _per_token(scoring)
    if model.heads.two_stage:
        stage = model.heads.num_decoder_layers
        chosen = modules[f"heads.stages.{stage}.bbox_embed"]
        every = num_tokens * _per_token(model.heads.first_stage().bbox_embed)
        parts["first-stage head"] += every - chosen
    if isinstance(model.token_selection, PollAndPool):
        parts["token selection"] -= flow.kept[0] * _pooled_token(model.token_selection)
    if model.decoder.refine_boxes:
        layers = range(model.heads.num_decoder_layers)
        # Looking forward twice, all layers but the last run theirs twice here too.
        saved = layers[-1:] if model.decoder.look_forward_twice else layers
        parts[_REPEATED] = sum(modules[f"heads.stages.{i}.bbox_embed"] for i in saved)
    return parts


def _per_token(module: nn.Module) -> int:
    """What all linear layers and norms of a module count for one token."""
    linears = (m for m in module.modules() if isinstance(m, nn.Linear))
    norms = (m for m in module.modules() if isinstance(m, nn.LayerNorm))
    return sum(m.in_features * m.out_features for m in linears) + sum(
        5 * math.prod(m.normalized_shape) for m in norms
    )


def _pooled_token(selection: PollAndPool) -> int:
    """What pooling counts for a token: its key, its value, and the sums of values and positions."""
    pooled = [m for m in selection.key.modules() if isinstance(m, nn.Linear)][-1].out_features
    own = _per_token(selection.key) + _per_token(selection.value)
    return own + 2 * pooled * selection.value.out_features


def _without_root(name: str) -> str:
    """Name inside the detector of a name inside its wrapper."""
    return name.removeprefix("detector").removeprefix(".")


def _by_part(modules: dict[str, int], model: TransformerDetector) -> dict[str, int]:
    """Counts by part from the counts of all modules, each of which includes those below it."""
    own: Counter[str] = Counter(modules)
    for name, count in modules.items():
        if name:
            own[name.rpartition(".")[0]] -= count
    parts = dict.fromkeys(PARTS, 0)
    for name, count in own.items():
        parts[_part_of(name, model)] += count
    return {part: count for part, count in parts.items() if count}


def _part_of(name: str, model: TransformerDetector) -> str:
    head = re.match(r"heads\.stages\.(\d+)", name)
    if head:
        stage, decoder_layers = int(head[1]), model.heads.num_decoder_layers
        if stage < decoder_layers:
            return "decoder heads"
        first = model.heads.two_stage and stage == decoder_layers
        return "first-stage head" if first else "encoder auxiliary heads"
    for pattern, part in _PARTS:
        if re.match(pattern, name):
            return part
    return _OTHER
