"""The operators as operators of torch: opcheck, compilation, export, autocast."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from deform_attn_inputs import Shapes
from operator_calls import OperatorCall
from operator_strategies import VARIANTS, assert_close, make_variant, needs_native
from torch import Tensor, nn

from sparse_detr.layers.backend import use_backend
from sparse_detr.layers.ms_deform_attn import (
    deform_attn_sampling,
    ms_deform_attn,
    ms_deform_attn_fused,
)
from sparse_detr.layers.sample_then_project import sample_then_project

SHAPES: Shapes = [(5, 7), (3, 2)]
FLAT_SHAPES = [5, 7, 3, 2]
OPCHECKS = (
    "test_schema",
    "test_autograd_registration",
    "test_faketensor",
    "test_aot_dispatch_dynamic",
)
NAMES = {
    "given": "ms_deform_attn",
    "points": "ms_deform_attn_fused",
    "boxes": "ms_deform_attn_fused",
    "sample_then_project": "sample_then_project",
}
# Type of the values, images, queries, padding.
CALLS = [
    pytest.param(torch.float64, 2, 5, True, id="float64"),
    pytest.param(torch.float32, 2, 5, False, id="float32"),
    pytest.param(torch.bfloat16, 2, 5, True, id="bfloat16"),
    pytest.param(torch.float16, 1, 3, False, id="float16"),
    pytest.param(torch.float32, 0, 5, True, id="no image"),
    pytest.param(torch.float32, 2, 0, False, id="no query"),
]


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    """torch limits how often a function is compiled again, over all tests of a process."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def operator_arguments(call: OperatorCall, shapes: object = FLAT_SHAPES) -> list[object]:
    """Gives the arguments of the operator below the Python function."""
    leaves: list[object] = list(call.leaves)
    if call.operator == "sample_then_project":
        source, weight, bias, *samples = leaves
        return [source, shapes, *samples, weight, bias, call.valid_sizes]
    return [leaves[0], shapes, *leaves[1:], call.valid_sizes]


def small_call(variant: str, **sizes: object) -> OperatorCall:
    return make_variant(variant, SHAPES, heads=2, channels=4, points=3, **sizes)  # type: ignore[arg-type]


@needs_native
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("dtype", "batch", "queries", "padded"), CALLS)
def test_the_registration_passes_opcheck(
    variant: str, dtype: torch.dtype, batch: int, queries: int, padded: bool
) -> None:
    call = small_call(variant, dtype=dtype, batch=batch, queries=queries, padded=padded)
    name = NAMES[call.operator]
    backward = getattr(torch.ops.sparse_detr, f"{name}_backward").default
    arguments = operator_arguments(call)
    torch.library.opcheck(backward, (call.grad, *arguments), test_utils=OPCHECKS)
    for leaf in call.leaves:
        leaf.requires_grad_()
    forward = getattr(torch.ops.sparse_detr, name).default
    torch.library.opcheck(forward, tuple(arguments), test_utils=OPCHECKS)


@needs_native
@pytest.mark.parametrize("variant", ["points", "boxes"])
@pytest.mark.parametrize(("batch", "queries"), [(2, 5), (0, 5), (2, 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_registration_of_the_sampling_passes_opcheck(
    variant: str, batch: int, queries: int, dtype: torch.dtype
) -> None:
    call = small_call(variant, batch=batch, queries=queries, dtype=dtype)
    operator = torch.ops.sparse_detr.deform_attn_sampling.default
    torch.library.opcheck(operator, (*call.leaves[1:], FLAT_SHAPES), test_utils=OPCHECKS)


def compiled_and_eager(
    call: OperatorCall, compiled: Callable[..., Tensor], eager: Callable[..., Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Gives output and gradients of both; the last argument is the height of the first level."""
    results = []
    for function in (compiled, eager):
        leaves = [leaf.detach().requires_grad_() for leaf in call.leaves]
        output = function(leaves, call.valid_sizes, call.shapes[0][0])
        results.append([output.detach(), *torch.autograd.grad(output.sum(), leaves)])
    return results[0], results[1]


def check_compiled(variant: str, backend: str, compiler: str) -> None:
    def attend(leaves: list[Tensor], valid_sizes: Tensor, height: int) -> Tensor:
        operator = "sample_then_project" if variant.startswith("projected") else variant
        shapes = [(height, 4), (2, 2)]
        call = OperatorCall(operator, shapes, [], leaves[0], valid_sizes)
        return 2 * call.output(*leaves)

    compiled = torch.compile(attend, fullgraph=True, backend=compiler, dynamic=True)
    with use_backend(backend):
        # No two sizes are equal in the first call: the compiler would take them for one.
        for height, queries, batch in ((9, 13, 11), (10, 19, 17)):
            sizes = {"queries": queries, "heads": 3, "channels": 6, "points": 5, "width": 7}
            call = make_variant(variant, [(height, 4), (2, 2)], batch=batch, padded=True, **sizes)
            again = backend == "native" and height == 10
            with torch._dynamo.config.patch(error_on_recompile=again):
                assert_close(*compiled_and_eager(call, compiled, attend), 1e-11)


@needs_native
@pytest.mark.parametrize("variant", VARIANTS)
def test_compiles_as_one_graph_with_dynamic_sizes(variant: str) -> None:
    check_compiled(variant, "native", "aot_eager")


def test_the_torch_path_compiles_as_one_graph_with_dynamic_sizes() -> None:
    check_compiled("points", "torch", "aot_eager")


@needs_native
@pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="it needs a compiler of C++"
)
def test_compiles_with_the_default_compiler() -> None:
    check_compiled("points", "native", "inductor")


@needs_native
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_lowers_the_values_and_never_the_coordinates(
    variant: str, dtype: torch.dtype, compiled: bool
) -> None:
    call = small_call(variant, dtype=torch.float32, queries=5, padded=True)

    def attend(leaves: list[Tensor], valid_sizes: Tensor) -> Tensor:
        now = OperatorCall(call.operator, SHAPES, [], leaves[0], valid_sizes)
        with torch.autocast("cpu", dtype=dtype):
            return now.output(*leaves)

    if compiled:
        attend = torch.compile(attend, fullgraph=True, backend="aot_eager")
    leaves = [leaf.detach().requires_grad_() for leaf in call.leaves]
    values = 3 if call.operator == "sample_then_project" else 1
    lowered = [leaf.to(dtype) for leaf in call.leaves[:values]] + call.leaves[values:]
    by_hand = replace(call, leaves=lowered, grad=call.grad.to(dtype))
    with use_backend("native"):
        output = attend(leaves, call.valid_sizes)
        gradients = torch.autograd.grad(output, leaves, by_hand.grad)
        expected = by_hand.results()
    assert output.dtype == dtype
    # The same bits as with the values lowered by hand: nothing else was rounded.
    assert torch.equal(output, expected[0])
    for gradient, leaf, other in zip(gradients, leaves, expected[1:], strict=True):
        assert gradient.dtype == leaf.dtype == torch.float32
        assert torch.equal(gradient, other.float())


@needs_native
def test_autocast_leaves_float64_as_it_is() -> None:
    call = small_call("points", queries=5)
    with use_backend("native"), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(call.output(*call.leaves), replace(call).output(*call.leaves))
        assert call.output(*call.leaves).dtype == torch.float64


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_torch_path_under_autocast_gives_the_same_within_its_rounding(variant: str) -> None:
    call = small_call(variant, dtype=torch.float32, queries=5)
    with use_backend("torch"):
        expected = call.output(*call.leaves)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = call.output(*call.leaves)
    assert_close([got], [expected], 2e-2)


class Attention(nn.Module):
    """All operators on the tokens of a map whose height and width may change."""

    def forward(
        self,
        feature_map: Tensor,
        reference: Tensor,
        offsets: Tensor,
        logits: Tensor,
        weight: Tensor,
    ) -> tuple[Tensor, ...]:
        shapes = [(feature_map.shape[2], feature_map.shape[3]), (2, 2)]
        tokens = feature_map.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens, tokens[:, :4]], dim=1)
        value = tokens.unflatten(-1, (2, 4))
        samples = (reference, offsets, logits)
        locations, weights = deform_attn_sampling(*samples, shapes)
        return (
            ms_deform_attn(value, shapes, locations, weights),
            ms_deform_attn_fused(value, shapes, *samples),
            sample_then_project(tokens, shapes, *samples, weight, weight[:, 0]),
        )


@needs_native
def test_exports_with_dynamic_sizes() -> None:
    def arguments(batch: int, queries: int, height: int, width: int) -> tuple[Tensor, ...]:
        return (
            torch.randn(batch, 8, height, width),
            torch.rand(batch, queries, 2, 2),
            torch.randn(batch, queries, 2, 2, 3, 2),
            torch.randn(batch, queries, 2, 2, 3),
            torch.randn(8, 8),
        )

    dim = torch.export.Dim
    batch, queries = dim("batch", max=64), dim("queries", max=4096)
    samples = {0: batch, 1: queries}
    sizes = {0: batch, 2: dim("height", min=2, max=512), 3: dim("width", min=2, max=512)}
    with use_backend("native"):
        program = torch.export.export(
            Attention(),
            arguments(2, 5, 6, 7),
            dynamic_shapes=(sizes, samples, samples, samples, None),
        )
        text = str(program.graph)
        for name in ("ms_deform_attn", "ms_deform_attn_fused", "sample_then_project"):
            assert f"sparse_detr.{name}.default" in text
        exported = program.module()
        for size in ((2, 5, 6, 7), (3, 11, 9, 4)):
            inputs = arguments(*size)
            for got, expected in zip(exported(*inputs), Attention()(*inputs), strict=True):
                assert torch.equal(got, expected)
