"""AdamW of detrex's DINO: one rate beside the backbone's, no weight decay on norms."""

from .optimizer import optimizer

optimizer.lr = 1e-4
optimizer.lr_backbone = 1e-5
optimizer.sampling_factor = 1.0
optimizer.batch_rule = "none"
optimizer.norm_weight_decay = 0.0
