"""The CPU kernels of every vector width give the definition."""

from __future__ import annotations

import pytest
from interpreter import run_python

from sparse_detr.layers.backend import extension_status

pytestmark = pytest.mark.skipif(
    not extension_status.loaded,
    reason=f"the compiled operators are not there: {extension_status.problem}",
)

# In a process of its own: the choice is made once per process.
COMPARE = """
import torch
import sparse_detr._C
from operator_strategies import VARIANTS, assert_close, make_variant, results_of, threads
from scalar_reference import expected_results

small, usual = [(6, 5), (3, 2), (1, 1)], [(5, 6), (3, 4), (2, 2), (1, 1)]
tolerances = {torch.float64: 1e-11, torch.float32: 3e-4, torch.bfloat16: 8e-3, torch.float16: 1e-3}

for variant in VARIANTS:
    for dtype, tolerance in tolerances.items():
        for channels in (1, 3, 7, 8, 30, 32, 64, 71, 256):
            for shapes in (small, usual):
                call = make_variant(variant, shapes, dtype=dtype, channels=channels, queries=2,
                                    heads=2, points=4, width=channels + 1, padded=True)
                # Of locations, or of reference points.
                place = 3 if call.operator == "sample_then_project" else 1
                call.leaves[place].view(-1)[0] = float("nan")
                got = results_of("native", call)
                assert_close(got, expected_results(call), tolerance)
    call = make_variant(variant, usual, dtype=torch.float32, channels=32, queries=301, heads=3)
    results = []
    for number in (1, 2, 3):
        with threads(number):
            results.append(results_of("native", call))
    for others in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], others, strict=True))
print(sparse_detr._C.cpu_capability())
"""


@pytest.mark.parametrize("capability", ["baseline", "avx2", "avx512"])
def test_every_vector_width_gives_the_definition_with_any_number_of_threads(
    capability: str,
) -> None:
    result = run_python(COMPARE, SPARSE_DETR_CPU_CAPABILITY=capability)
    assert result.returncode == 0, result.stderr
    used = result.stdout.split()[-1]
    if used != capability:
        pytest.skip(f"this processor has no {capability}; {used} was compared instead")


def test_an_unknown_vector_width_is_an_error_that_lists_the_names() -> None:
    program = "import torch, sparse_detr._C as library; library.cpu_capability()"
    result = run_python(program, SPARSE_DETR_CPU_CAPABILITY="sse9")
    assert result.returncode != 0
    assert "got 'sse9', expected baseline, avx2 or avx512" in result.stderr
