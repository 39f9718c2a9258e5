"""The CPU kernels of every vector width give the same as the torch path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparse_detr.layers.backend import extension_status

FOLDER = Path(__file__).resolve().parent
PACKAGE_PARENT = FOLDER.parents[1] / "projects" / "SparseDETR"
pytestmark = pytest.mark.skipif(
    not extension_status.loaded,
    reason=f"the compiled operators are not there: {extension_status.problem}",
)

# In a process of its own: the choice is made once per process.
COMPARE = """
import sys
import torch
import sparse_detr._C
from deform_attn_inputs import away_from_kinks, make_inputs
from test_ms_deform_attn import assert_backends_agree

shapes = [(6, 5), (3, 2), (1, 1)]
for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 2e-4)):
    for channels in (1, 3, 7, 8, 30, 32, 64, 71, 256):
        value, locations, weights = make_inputs(shapes, channels=channels, queries=9, dtype=dtype)
        locations = away_from_kinks(locations, shapes)
        locations[0, 0, 0, 0, 0] = float("nan")
        assert_backends_agree(value, shapes, locations, weights, tolerance)
print(sparse_detr._C.cpu_capability())
"""


def run(program: str, capability: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{PACKAGE_PARENT}{os.pathsep}{FOLDER}",
        "SPARSE_DETR_CPU_CAPABILITY": capability,
    }
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("capability", ["baseline", "avx2", "avx512"])
def test_every_vector_width_gives_what_the_torch_path_gives(capability: str) -> None:
    result = run(COMPARE, capability)
    assert result.returncode == 0, result.stderr
    used = result.stdout.split()[-1]
    if used != capability:
        pytest.skip(f"this processor has no {capability}; {used} was compared instead")


def test_an_unknown_vector_width_is_an_error_that_lists_the_names() -> None:
    program = "import torch, sparse_detr._C as library; library.cpu_capability()"
    result = run(program, "sse9")
    assert result.returncode != 0
    assert "got 'sse9', expected baseline, avx2 or avx512" in result.stderr
