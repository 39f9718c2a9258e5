"""Names of weights in released checkpoints and in this project."""
