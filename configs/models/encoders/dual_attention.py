"""The encoder of Focus-DETR: its objects see each other, all kept tokens read the image."""

from detectron2.config import LazyCall as L

from sparse_detr.encoder import DualAttentionEncoder

encoder = L(DualAttentionEncoder)(
    hidden_dim="${model.hidden_dim}",
    num_levels="${model.num_levels}",
    num_heads=8,
    num_layers=6,
    num_points=4,
    feedforward_dim=2048,
    dropout=0.0,
    checkpoint_activations=False,
    project_after_sampling=None,
    num_objects=300,
    # True: the paper's algorithm 1. Released weights are trained without.
    update_values=False,
    multiply_probabilities=False,
    surplus_attends="${model.released_behaviour}",
)
