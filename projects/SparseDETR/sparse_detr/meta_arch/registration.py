"""Registers the meta-architecture with Detectron2, so that ``build_model(cfg)`` finds it by name.

Role in the flow: the only link to Detectron2's yaml configs; the model itself is built from the
LazyConfig that the yacs config names.
"""

from __future__ import annotations

from detectron2.config import CfgNode, instantiate
from detectron2.modeling import META_ARCH_REGISTRY

from ..config.loading import load_config
from ..data.datasets import resolve_num_classes
from .transformer_detector import TransformerDetector

META_ARCHITECTURE = "SparseDETR"


# Detectron2 registers a callable under its own name, and the name is that of a model.
@META_ARCH_REGISTRY.register()
def SparseDETR(cfg: CfgNode) -> TransformerDetector:
    """The detector that a yacs config names in ``MODEL.SPARSE_DETR``.

    Args:
        cfg: Detectron2's config, prepared by
            :func:`sparse_detr.config.yacs.add_sparse_detr_config`.

    Returns:
        The detector with its initial weights, on the CPU.

    Raises:
        ValueError: The config was not prepared, names no LazyConfig or a wrong override, or its
            ``INPUT.FORMAT`` is not the channel order of the model.
    """
    node = cfg.MODEL.get("SPARSE_DETR")
    if node is None:
        raise ValueError(
            "cfg.MODEL.SPARSE_DETR is missing; call "
            "sparse_detr.config.yacs.add_sparse_detr_config(cfg) before merging files or options"
        )
    config = load_config(node.CONFIG, list(node.OVERRIDES))
    config.model.num_classes = resolve_num_classes(config)
    model: TransformerDetector = instantiate(config.model)
    if model.input_format != cfg.INPUT.FORMAT:
        raise ValueError(
            f"cfg.INPUT.FORMAT is {cfg.INPUT.FORMAT!r}, but the model of {node.CONFIG!r} takes "
            f"{model.input_format!r} images; set INPUT.FORMAT to {model.input_format!r}"
        )
    if node.KEEP_RATIO is not None:
        model.keep_ratio = node.KEEP_RATIO
    return model
