"""The way in from Detectron2's older yaml configs.

Role in the flow: beside the LazyConfigs, not instead of them. A yacs config only names a LazyConfig
and may change entries of it; the model is built from that, so there is one place that says what a
model is made of.
"""

from __future__ import annotations

from detectron2.config import CfgNode

# Imported for its effect: whoever prepares a yacs config needs the name to be registered.
from ..meta_arch.registration import META_ARCHITECTURE

DEFAULT_CONFIG = "sparse_detr/sparse_detr_r50_rho10_50ep"


def add_sparse_detr_config(cfg: CfgNode) -> None:
    """Adds ``MODEL.SPARSE_DETR`` to a yacs config and selects the meta-architecture.

    The entries:

    - ``MODEL.SPARSE_DETR.CONFIG``: name or path of a LazyConfig, as ``train_net.py`` takes it.
    - ``MODEL.SPARSE_DETR.OVERRIDES``: changes to it, such as ``["model.num_classes=7"]``.
    - ``MODEL.SPARSE_DETR.KEEP_RATIO``: keeping ratio, a number in (0, 1] or a text such as
      ``levels:0.1,0.3,0.5,1``; None leaves the LazyConfig's.

    ``INPUT`` is set to what the released detectors were trained with: RGB, shorter side 800 pixels,
    longer side at most 1333. ``MODEL.PIXEL_MEAN`` and ``MODEL.PIXEL_STD`` have no effect; the
    LazyConfig holds them.

    Args:
        cfg: Detectron2's config, from ``detectron2.config.get_cfg()``; changed in place.
    """
    cfg.MODEL.META_ARCHITECTURE = META_ARCHITECTURE
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.SPARSE_DETR = CfgNode()
    cfg.MODEL.SPARSE_DETR.CONFIG = DEFAULT_CONFIG
    cfg.MODEL.SPARSE_DETR.OVERRIDES = []
    cfg.MODEL.SPARSE_DETR.KEEP_RATIO = None
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.MIN_SIZE_TEST = 800
    cfg.INPUT.MAX_SIZE_TEST = 1333
