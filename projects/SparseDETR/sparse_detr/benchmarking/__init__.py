"""Measuring speed and memory: the ground of the benchmarks in `tools`.

Nothing of the model imports it.
"""
