"""AdamW of the released training; rates are for a batch of 16 and follow it by `batch_rule`."""

from detectron2.config import LazyCall as L

from sparse_detr.engine.optimizer import build_adamw

optimizer = L(build_adamw)(
    lr=2e-4,
    lr_backbone=2e-5,
    # Factor on lr for sampling offsets and reference points.
    sampling_factor=0.1,
    weight_decay=1e-4,
    # Of norms, instead; null: like the others.
    norm_weight_decay=None,
    betas=[0.9, 0.999],
    eps=1e-8,
    # sqrt (released), linear, or none (Deformable DETR)
    batch_rule="sqrt",
    reference_batch=16,
)
