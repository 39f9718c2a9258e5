"""The compiled decoder cross-attention map: against brute force, borders, threads, registration."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch

from sparse_detr.decoder_attention_map import decoder_attention_map, decoder_attention_map_torch
from sparse_detr.layers.backend import extension_status, use_backend
from sparse_detr.structures import Sampling

FOLDER = Path(__file__).resolve().parent
BACKENDS = ("native", "torch") if extension_status.loaded else ("torch",)
needs_native = pytest.mark.skipif(
    not extension_status.loaded,
    reason=f"the compiled operators are not there: {extension_status.problem}",
)
both_backends = pytest.mark.parametrize("backend", BACKENDS)
# Shapes of each case: levels, then B, layers, Q, H, P; primes leave no block of rows whole.
CASES = {
    "one of everything": ([(1, 1)], (1, 1, 1, 1, 1)),
    "prime counts of three images": ([(5, 7), (3, 2), (1, 11)], (3, 2, 13, 5, 3)),
    "four points": ([(6, 5), (3, 3)], (2, 3, 17, 2, 4)),
    "a row and a column": ([(1, 9), (9, 1)], (2, 1, 7, 1, 5)),
    "levels without cells": ([(0, 4), (2, 3), (3, 0)], (2, 1, 5, 2, 2)),
}


def draw(shapes, sizes, dtype=torch.float64, spread=0.4, seed=0):
    """Random sampling, a part of it outside the map."""
    batch, layers, queries, heads, points = sizes
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(layers):
        shape = (batch, queries, heads, len(shapes), points)
        locations = torch.rand(*shape, 2, generator=generator, dtype=torch.float64)
        locations = locations * (1 + 2 * spread) - spread
        weights = torch.rand(shape, generator=generator, dtype=torch.float64)
        found.append(Sampling(locations.to(dtype), weights.to(dtype)))
    return found


def by_hand(sampling, shapes, shift):
    """One sample and one corner at a time, in Python floats."""
    starts = [sum(h * w for h, w in shapes[:i]) for i in range(len(shapes) + 1)]
    batch = len(sampling[0].weights)
    maps = [[0.0] * starts[-1] for _ in range(batch)]
    for layer in sampling:
        locations, weights = layer.locations.tolist(), layer.weights.tolist()
        for place in product(*(range(n) for n in layer.weights.shape)):
            spot, weight = locations, weights
            for index in place:
                spot, weight = spot[index], weight[index]
            if not all(math.isfinite(number) for number in spot):
                continue
            height, width = shapes[place[3]]
            x, y = spot[0] * width - shift, spot[1] * height - shift
            for row in (math.floor(y), math.floor(y) + 1):
                for column in (math.floor(x), math.floor(x) + 1):
                    if 0 <= row < height and 0 <= column < width:
                        share = (1 - abs(x - column)) * (1 - abs(y - row))
                        maps[place[0]][starts[place[3]] + row * width + column] += weight * share
    return torch.tensor(maps, dtype=torch.float64)


@both_backends
@pytest.mark.parametrize(("flag", "shift"), [(True, 0.0), (False, 0.5)])
@pytest.mark.parametrize("case", CASES)
def test_it_is_the_map_formed_one_sample_at_a_time(case, flag, shift, backend):
    shapes, sizes = CASES[case]
    sampling = draw(shapes, sizes)
    with use_backend(backend):
        got = decoder_attention_map(sampling, shapes, flag)
    torch.testing.assert_close(got, by_hand(sampling, shapes, shift), rtol=1e-12, atol=1e-12)


@both_backends
@pytest.mark.parametrize("size", [1, 2, 5, 64])
def test_samples_on_cell_borders_and_far_sides_count_in_full(size, backend):
    """Locations k / size for k from -2 to size + 2 are whole positions, without rounding."""
    steps = torch.arange(-2, size + 3, dtype=torch.float32)
    grid = torch.cartesian_prod(steps, steps) / size
    sampling = [Sampling(grid[None, :, None, None, None], torch.ones(1, len(grid), 1, 1, 1))]
    with use_backend(backend):
        got = decoder_attention_map(sampling, [(size, size)])
    exact = size in (1, 2, 64)  # a fifth is no binary fraction
    torch.testing.assert_close(got, torch.ones(1, size * size), rtol=0, atol=0 if exact else 1e-6)


@both_backends
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30, -1e30, 3e9, -3e9])
def test_a_location_that_is_not_finite_or_far_away_adds_nothing_whatever_its_weight(
    bad, dtype, backend
):
    shapes, sizes = CASES["prime counts of three images"]
    sampling = draw(shapes, sizes, dtype)
    kept = [Sampling(s.locations.clone(), s.weights.clone()) for s in sampling]
    for layer, without, coordinate in zip(sampling, kept, (0, 1), strict=True):
        layer.locations[:, ::3, :, :, 1, coordinate] = bad
        layer.weights[:, ::3, :, :, 1] = math.nan
        without.weights[:, ::3, :, :, 1] = 0
    with use_backend(backend):
        got = decoder_attention_map(sampling, shapes)
        expected = decoder_attention_map(kept, shapes)
    assert got.isfinite().all()
    torch.testing.assert_close(got, expected)


@both_backends
def test_float32_follows_float64_as_far_as_it_can(backend):
    shapes, sizes = [(50, 67), (13, 17)], (2, 3, 101, 4, 4)
    exact = draw(shapes, sizes)
    rounded = [Sampling(s.locations.float(), s.weights.float()) for s in exact]
    with use_backend(backend):
        got = decoder_attention_map(rounded, shapes)
        expected = decoder_attention_map(exact, shapes)
    assert got.dtype == torch.float32 and expected.dtype == torch.float64
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=2e-5 * expected.max().item())


@both_backends
@pytest.mark.parametrize("missing", [0, 2])
def test_without_images_or_queries_the_map_is_empty_or_zero(missing, backend):
    sizes = [2, 2, 3, 2, 2]
    sizes[missing] = 0
    with use_backend(backend):
        got = decoder_attention_map(draw([(2, 3), (1, 1)], sizes), [(2, 3), (1, 1)])
    assert got.shape == (sizes[0], 7) and (got == 0).all()


@both_backends
def test_views_and_half_types_are_taken_too(backend):
    shapes, sizes = CASES["four points"]
    sampling = draw(shapes, sizes, torch.float32)
    expected = decoder_attention_map(sampling, shapes)
    views = [
        Sampling(
            s.locations.flip(1).transpose(0, 2).contiguous().transpose(0, 2).flip(1),
            s.weights.transpose(0, 4).contiguous().transpose(0, 4),
        )
        for s in sampling
    ]
    with use_backend(backend):
        torch.testing.assert_close(decoder_attention_map(views, shapes), expected)
        halves = [Sampling(s.locations, s.weights.bfloat16()) for s in sampling]
        got = decoder_attention_map(halves, shapes)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("sampling", "shapes", "message"),
    [
        ([], [(2, 3)], "got no layer"),
        (draw([(2, 3)], (1, 1, 2, 1, 1)), [(2, 3), (1, 1)], "match the 2 levels"),
        (
            draw([(2, 3)], (1, 1, 2, 1, 1)) + draw([(2, 3)], (1, 1, 3, 1, 1)),
            [(2, 3)],
            "for layer 1",
        ),
        (draw([(2, 3)], (1, 1, 2, 1, 1)), [], "got no level"),
    ],
)
def test_arguments_that_do_not_fit_are_named(sampling, shapes, message):
    with pytest.raises(ValueError, match=message):
        decoder_attention_map(sampling, shapes)


@needs_native
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": []}, "got 2 and 0 layers"),
        ({"shapes": [5, 7]}, "got 2 numbers, expected a height and a width for each of the 3"),
        ({"shapes": [5, 7, 3, 2, 1, -1]}, r"got \(1, -1\) for level 2"),
        ({"shapes": [2**16, 2**16, 1, 1, 1, 1]}, "fewer than 2\\^31 cells"),
        ({"dtype": torch.bfloat16}, "got dtype BFloat16, expected float32 or float64"),
    ],
)
def test_the_compiled_operator_names_a_bad_argument_too(change, message):
    shapes, sizes = CASES["prime counts of three images"]
    sampling = draw(shapes, sizes, change.get("dtype", torch.float32))
    flat = change.get("shapes", [n for shape in shapes for n in shape])
    weights = change.get("weights", [s.weights for s in sampling])
    with pytest.raises(RuntimeError, match=message):
        torch.ops.sparse_detr.decoder_attention_map(
            [s.locations for s in sampling], weights, flat, True
        )


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_every_number_of_threads_gives_the_same_bits(case, dtype):
    shapes, sizes = CASES[case]
    sampling = draw(shapes, sizes, dtype)
    before = torch.get_num_threads()
    try:
        maps = []
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            maps.append(decoder_attention_map(sampling, shapes, half_cell_shift=False))
    finally:
        torch.set_num_threads(before)
    for other in maps[1:]:
        assert torch.equal(maps[0], other)


@needs_native
def test_an_image_has_the_same_bits_alone_and_in_a_batch():
    shapes, sizes = CASES["prime counts of three images"]
    sampling = draw(shapes, sizes, torch.float32)
    together = decoder_attention_map(sampling, shapes)
    for image in range(sizes[0]):
        part = slice(image, image + 1)
        alone = [Sampling(s.locations[part], s.weights[part]) for s in sampling]
        assert torch.equal(decoder_attention_map(alone, shapes), together[part])


# In a process of its own: the choice of instructions is made once per process.
COMPARE = """
import torch
import sparse_detr._C
from test_decoder_attention_map_operator import CASES, by_hand, decoder_attention_map, draw

for shapes, sizes in CASES.values():
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        sampling = draw(shapes, sizes, dtype)
        sampling[0].locations[0, 0, 0, 0, 0] = float("nan")
        got = decoder_attention_map(sampling, shapes, False)
        expected = by_hand(sampling, shapes, 0.5).to(dtype)
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
print(sparse_detr._C.cpu_capability())
"""


@needs_native
@pytest.mark.parametrize("capability", ["baseline", "avx2", "avx512"])
def test_every_vector_width_gives_the_same_map(capability):
    package_parent = FOLDER.parent / "projects" / "SparseDETR"
    environment = {
        **os.environ,
        "PYTHONPATH": f"{package_parent}{os.pathsep}{FOLDER}",
        "SPARSE_DETR_CPU_CAPABILITY": capability,
    }
    result = subprocess.run(
        [sys.executable, "-c", COMPARE],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    used = result.stdout.split()[-1]
    if used != capability:
        pytest.skip(f"this processor has no {capability}; {used} was compared instead")


def test_the_kernel_stays_inside_its_buffers(tmp_path):
    compiler, program = shutil.which("g++"), tmp_path / "sanitized"
    if compiler is None:
        pytest.skip("g++ is not installed: the kernel cannot be compiled with sanitizers")
    flags = ["-std=c++20", "-O1", "-fno-trapping-math", "-fsanitize=address,undefined"]
    source = FOLDER / "attention_map_sanitized.cpp"
    command = [compiler, *flags, "-fno-sanitize-recover=all", str(source), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if "cannot find -l" in built.stderr or "cannot find lib" in built.stderr:
        pytest.skip("the sanitizers of g++ are not installed")
    assert built.returncode == 0, built.stderr
    result = subprocess.run([program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@needs_native
@pytest.mark.parametrize("sizes", [(2, 2, 5, 2, 3), (0, 1, 5, 2, 3), (2, 1, 0, 2, 3)])
def test_the_registration_passes_opcheck(sizes):
    sampling = draw([(5, 7), (3, 2)], sizes, torch.float32)
    torch.library.opcheck(
        torch.ops.sparse_detr.decoder_attention_map,
        ([s.locations for s in sampling], [s.weights for s in sampling], [5, 7, 3, 2], True),
    )


@both_backends
def test_it_compiles_as_one_graph_with_dynamic_sizes(backend):
    def twice(locations, weights, height):
        sampling = [Sampling(*pair) for pair in zip(locations, weights, strict=True)]
        return 2 * decoder_attention_map(sampling, [(height, 7), (3, 2)], half_cell_shift=False)

    torch.compiler.reset()
    compiled = torch.compile(twice, backend="aot_eager", fullgraph=True, dynamic=True)
    with use_backend(backend):
        for height, queries in ((5, 3), (8, 11)):
            sampling = draw([(height, 7), (3, 2)], (2, 1, queries, 2, 3))
            arguments = [s.locations for s in sampling], [s.weights for s in sampling], height
            torch.testing.assert_close(compiled(*arguments), twice(*arguments))


@needs_native
def test_it_has_no_gradient_and_no_shape_of_its_own_on_the_meta_device():
    shapes, sizes = CASES["four points"]
    sampling = draw(shapes, sizes, torch.float32)
    for layer in sampling:
        layer.locations.requires_grad_()
        layer.weights.requires_grad_()
    assert not decoder_attention_map(sampling, shapes).requires_grad
    hollow = [Sampling(s.locations.to("meta"), s.weights.to("meta")) for s in sampling]
    got = decoder_attention_map(hollow, shapes)
    assert got.device.type == "meta" and got.shape == (2, 39)


def test_the_reference_is_what_runs_without_compiled_operators():
    shapes, sizes = CASES["four points"]
    sampling = draw(shapes, sizes)
    expected = decoder_attention_map_torch(
        [s.locations for s in sampling], [s.weights for s in sampling], shapes, True
    )
    with use_backend("torch"):
        assert torch.equal(decoder_attention_map(sampling, shapes), expected)
