"""How a run goes: output, device, precision, checkpoints, evaluation. Periods are in epochs."""

train = dict(
    output_dir="./output",
    # Weights to start from, or to evaluate: a .pth file of tensors. Empty: as the model
    # initialises itself.
    init_checkpoint="",
    # Weights for the backbone alone: a local file of ImageNet weights as torchvision or the Swin
    # authors publish them. Empty: as the backbone initialises itself.
    backbone_weights="",
    # Fine-tuning: accept weights that do not fit (they are listed) and keep the initialisation
    # there.
    allow_partial_init=False,
    # Share of the model's entries that a checkpoint may lack without allow_partial_init.
    max_missing_weights=0.0,
    # auto, cpu, cuda or cuda:N
    device="auto",
    seed=42,
    deterministic=False,
    # Optimiser steps of this run; null: schedule.epochs. The milestones stay where they are.
    max_iter=None,
    # bfloat16 (CPU and GPU) or float16 (GPU, with loss scaling)
    amp=dict(enabled=False, dtype="bfloat16"),
    # Moving average of the weights; where it is on, it is what gets evaluated. warmup in
    # iterations.
    ema=dict(enabled=False, decay=0.9998, warmup=2000),
    # Total gradient norm; 0: no clipping.
    clip=dict(max_norm=0.1),
    # Micro-batches per optimiser step; dataloader.train.total_batch_size is the batch of the whole
    # step.
    accumulation=1,
    checkpointer=dict(
        period_epochs=1,
        # In iterations, instead of period_epochs.
        period=None,
        max_to_keep=3,
        best_metric="bbox/AP",
    ),
    # 0: only at the end.
    eval_period_epochs=1,
    # Iterations between log lines.
    log_period=20,
    # Train and evaluate on the N training images whose smallest object is largest; 0: off.
    overfit_images=0,
    # 20 iterations and an evaluation of 8 images, to see that everything is in place.
    fast_dev_run=False,
    # Rows [task, metric, value, tolerance] or [task, metric, minimum]; the run fails when one is
    # missed.
    expected_results=[],
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False),
)
