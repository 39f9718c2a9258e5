"""50 epochs, rate x0.1 at epoch 40; iterations follow from data set length and batch."""

schedule = dict(
    epochs=50,
    # step or cosine
    kind="step",
    milestones=[40],
    gamma=0.1,
    # Multiplier at the end of a cosine schedule.
    final_factor=0.0,
    # In optimiser steps.
    warmup_iterations=0,
    warmup_factor=0.001,
)
