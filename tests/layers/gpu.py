"""What the tests of the CUDA operators need, and why they are skipped where it is missing."""

from __future__ import annotations

import pytest
import torch

from sparse_detr.layers.backend import extension_status

DEVICE = "cuda"


def _missing() -> str | None:
    if not torch.cuda.is_available():
        return "no GPU is visible"
    if not extension_status.loaded:
        return f"the compiled operators are not there: {extension_status.problem}"
    return None if extension_status.with_cuda else "the operators were built without CUDA"


needs_gpu = pytest.mark.skipif(_missing() is not None, reason=f"{_missing()}")
