"""Models at the size of the released ones, as the run configs give them."""

from __future__ import annotations

import functools

import torch
from detectron2.config import instantiate

from sparse_detr.config.loading import load_config
from sparse_detr.meta_arch import TransformerDetector

# Run config of each released model of which the weights' names and shapes are known.
CONFIGS = {
    "r50_sparse_0.1": "sparse_detr/sparse_detr_r50_rho10_50ep",
    "swint_sparse_0.1": "sparse_detr/sparse_detr_swint_rho10_50ep",
    "r50_deformable": "deformable_detr/deformable_detr_r50_base_50ep",
    "r50_deformable_bbr_topk": "deformable_detr/deformable_detr_r50_topk_queries_50ep",
    "swint_deformable": "deformable_detr/deformable_detr_swint_base_50ep",
    "swint_deformable_bbr_topk": "deformable_detr/deformable_detr_swint_topk_queries_50ep",
}


@functools.cache
def released_model(name: str, auxiliary: bool = True, device: str = "meta") -> TransformerDetector:
    """The model with 91 classes, like the released ones.

    Args:
        name: Key of :data:`CONFIGS`.
        auxiliary: False leaves the auxiliary heads of the encoder out.
        device: ``"meta"`` gives names and shapes without values, in no time.
    """
    model = load_config(CONFIGS[name]).model
    model.num_classes = 91
    model.heads.encoder_auxiliary = auxiliary and model.heads.encoder_auxiliary
    with torch.device(device):
        detector: TransformerDetector = instantiate(model)
    return detector
