"""The one call that makes a detector faster.

Role in the flow: between loading a model and using it.
"""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch
from torch import nn

from ...feature_projection import MultiScaleProjection
from ...layers.deformable_attention import MultiScaleDeformableAttention
from ...meta_arch import TransformerDetector
from .batch_norm_folding import fold_batch_norms
from .cuda_graphs import RecordedBackbone
from .detector import OptimizedDetector
from .onednn import can_pack
from .packed_convolution import PackedConvolution
from .packed_linear import PackedLinear
from .packed_parts import pack_linears
from .residual_blocks import pack_resnet
from .wrapped_backbone import Run, WrappedBackbone

Precision = Literal["exact", "bfloat16-backbone", "bfloat16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


def optimize_for_inference(
    model: TransformerDetector,
    precision: Precision = "exact",
    compile_backbone: bool = False,
    cuda_graphs: bool = False,
) -> OptimizedDetector:
    """Gives a faster copy of a detector, with the same detections; the detector stays as it is.

    Batch norms are folded into the convolutions, the backbone runs with channels last, and on a
    CPU convolutions and linear layers take their weights in the library's layout, ReLU and residual
    sum within the product. That changes results by rounding alone: logits and boxes agree within
    1e-5 of the largest one in float32. A float64 detector is folded, no more.

    Args:
        model: In evaluation mode, with its weights, on its device.
        precision: "exact" keeps the type of the model. "bfloat16-backbone" runs the backbone in
            bfloat16. "bfloat16" also runs the large products of encoder and decoder in it, while
            coordinates, attention weights, norms, scores and heads stay in float32.
        compile_backbone: Hand the backbone to torch.compile, which needs a compiler and takes
            minutes at the first image of a size; further sizes compile again, then once for all.
        cuda_graphs: Record the backbone as CUDA graphs, one per image size; for few fixed sizes.

    Returns:
        The copy. It cannot be trained, saved or loaded into.

    Raises:
        TypeError: ``model`` is no detector of this package.
        ValueError: It is in training mode or optimised already, or an argument does not fit it.
    """
    _check(model, precision, compile_backbone, cuda_graphs)
    optimized = OptimizedDetector.copy_of(model)
    options = {"compiled": compile_backbone, "cuda graphs": cuda_graphs}
    optimized.optimization = ", ".join([precision, *(name for name, on in options.items() if on)])
    dtype = torch.bfloat16 if precision != "exact" else None
    optimized.backbone = _optimized_backbone(
        optimized.backbone, dtype, compile_backbone, cuda_graphs
    )
    reduced = dtype if precision == "bfloat16" else None
    _pack_projection(optimized.feature_projection)
    _pack_transformer(optimized, reduced)
    return optimized


def _check(
    model: TransformerDetector, precision: str, compile_backbone: bool, cuda_graphs: bool
) -> None:
    if not isinstance(model, TransformerDetector):
        raise TypeError(f"model must be a TransformerDetector, got {type(model).__name__}")
    if isinstance(model, OptimizedDetector):
        raise ValueError("model is optimised already; optimise the one that it was made from")
    training = [name or "model" for name, module in model.named_modules() if module.training]
    if training:
        raise ValueError(
            f"model must be in evaluation mode, got training mode in {training[0]}; call "
            "model.eval() first"
        )
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    own = model.position_embedding.level_embed.dtype
    if precision != "exact" and own is not torch.float32:
        raise ValueError(f"precision {precision!r} needs a float32 model, got {own}")
    if cuda_graphs and model.device.type != "cuda":
        raise ValueError(f"cuda_graphs needs a model on a GPU, got one on {model.device}")
    if cuda_graphs and compile_backbone:
        raise ValueError("cuda_graphs and compile_backbone exclude each other, got both")


def _optimized_backbone(
    backbone: nn.Module, dtype: torch.dtype | None, compiled: bool, recorded: bool
) -> WrappedBackbone:
    fold_batch_norms(backbone)
    own = next(backbone.parameters()).dtype
    backbone.to(dtype or own)
    backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if can_pack(next(backbone.parameters())) and not compiled:
        pack_resnet(backbone)
        pack_linears(backbone)
    run: Run | None = None
    if compiled:
        # Freezing makes the weights constants, in the layout of the library.
        run = cast(Run, torch.compile(backbone, options={"freezing": True}))
    elif recorded:
        run = RecordedBackbone(cast(Run, backbone))
    return WrappedBackbone(backbone, dtype or own, run)


def _pack_projection(projection: MultiScaleProjection) -> None:
    for level in projection.projections:
        assert isinstance(level, nn.Sequential)
        if PackedConvolution.serves(level[0]):
            level[0] = PackedConvolution(cast(nn.Conv2d, level[0]))


def _pack_transformer(model: OptimizedDetector, dtype: torch.dtype | None) -> None:
    """Packs the linear layers of everything behind the projection, in place.

    Args:
        model: The copy.
        dtype: Type of the large products; None keeps the model's own.
    """
    if dtype is None and not can_pack(model.position_embedding.level_embed):
        return
    for module in (*model.encoder.modules(), *model.decoder.modules()):
        if isinstance(module, MultiScaleDeformableAttention):
            # Half precision would round where an attention looks.
            for name in ("sampling_offsets", "attention_weights"):
                setattr(module, name, PackedLinear(getattr(module, name)))
    pack_linears(model.encoder, dtype)
    pack_linears(model.decoder, dtype)
    # What ranks tokens and places boxes keeps its type: half precision would tie scores.
    for part in (model.heads, model.query_selection, model.proposal_projection):
        if part is not None:
            pack_linears(part)
    if model.token_scoring is not None:
        pack_linears(model.token_scoring)
