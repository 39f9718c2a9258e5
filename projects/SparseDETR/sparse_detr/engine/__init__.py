"""The training engine: command line, trainer, checkpoints, evaluation.

Role in the flow: everything around the meta-architecture. ``train_net.py`` calls
:func:`sparse_detr.engine.program.run`; the parts are importable one by one for other programs.
"""
