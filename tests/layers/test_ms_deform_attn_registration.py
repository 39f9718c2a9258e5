"""Deformable attention as an operator of torch: checks, registration, compilation."""

from __future__ import annotations

import pytest
import torch
from deform_attn_inputs import Shapes, make_inputs
from torch import Tensor

from sparse_detr.layers.backend import extension_status, use_backend
from sparse_detr.layers.ms_deform_attn import ms_deform_attn

SHAPES: Shapes = [(5, 7), (3, 2)]
FLAT_SHAPES = [5, 7, 3, 2]
needs_native = pytest.mark.skipif(
    not extension_status.loaded,
    reason=f"the compiled operators are not there: {extension_status.problem}",
)
OPCHECKS = (
    "test_schema",
    "test_autograd_registration",
    "test_faketensor",
    "test_aot_dispatch_dynamic",
)


def call_with(**changes: object) -> Tensor:
    value, locations, weights = make_inputs(SHAPES)
    arguments: dict[str, object] = {
        "value": value,
        "spatial_shapes": SHAPES,
        "sampling_locations": locations,
        "attention_weights": weights,
    }
    arguments.update(changes)
    return ms_deform_attn(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("argument", "wrong", "error"),
    [
        ("value", torch.zeros(2, 41, 8, dtype=torch.float64), ValueError),
        ("value", torch.zeros(2, 40, 2, 4, dtype=torch.float64), ValueError),
        ("value", torch.zeros(2, 41, 2, 0, dtype=torch.float64), ValueError),
        ("value", torch.zeros(2, 41, 2, 4, dtype=torch.int64), TypeError),
        ("value", [1.0], TypeError),
        ("spatial_shapes", torch.tensor(SHAPES), TypeError),
        ("spatial_shapes", [5, 7, 3, 2], TypeError),
        ("spatial_shapes", [(5.0, 7.0), (3, 2)], TypeError),
        ("spatial_shapes", [(5, 7, 1), (3, 2)], TypeError),
        ("spatial_shapes", [(True, 35), (3, 2)], TypeError),
        ("spatial_shapes", [(-5, -7), (3, 2)], ValueError),
        ("spatial_shapes", [(5, 7), (3, 3)], ValueError),
        ("spatial_shapes", [], ValueError),
        ("sampling_locations", torch.zeros(2, 5, 2, 2, 3, dtype=torch.float64), ValueError),
        ("sampling_locations", torch.zeros(1, 5, 2, 2, 3, 2, dtype=torch.float64), ValueError),
        ("sampling_locations", torch.zeros(2, 5, 2, 3, 3, 2, dtype=torch.float64), ValueError),
        ("sampling_locations", torch.zeros(2, 5, 2, 2, 0, 2, dtype=torch.float64), ValueError),
        ("sampling_locations", torch.zeros(2, 5, 2, 2, 3, 2, dtype=torch.float32), TypeError),
        ("sampling_locations", torch.zeros(2, 5, 2, 2, 3, 2, device="meta").double(), ValueError),
        ("sampling_locations", None, TypeError),
        ("attention_weights", torch.zeros(2, 5, 2, 2, 4, dtype=torch.float64), ValueError),
        ("attention_weights", torch.zeros(2, 5, 2, 6, dtype=torch.float64), ValueError),
        ("attention_weights", torch.zeros(2, 5, 2, 2, 3, dtype=torch.int32), TypeError),
    ],
)
@pytest.mark.parametrize("backend", [pytest.param("native", marks=needs_native), "torch"])
def test_a_bad_argument_raises_an_error_that_names_it(
    backend: str, argument: str, wrong: object, error: type[Exception]
) -> None:
    # A value that does not fit the level sizes is reported with the level sizes.
    named = rf"(^|\b)({argument}|spatial_shapes): got .*expected"
    with use_backend(backend), pytest.raises(error, match=named):
        call_with(**{argument: wrong})


def test_half_precision_locations_are_refused() -> None:
    value, locations, weights = make_inputs(SHAPES, dtype=torch.float32)
    with pytest.raises(TypeError, match=r"sampling_locations: got dtype torch\.float16"):
        ms_deform_attn(value.half(), SHAPES, locations.half(), weights.half())


@needs_native
@pytest.mark.parametrize(
    ("argument", "position", "wrong"),
    [
        ("value", 0, torch.zeros(2, 41, 8, dtype=torch.float64)),
        ("value", 0, torch.zeros(2, 41, 2, 4, dtype=torch.bfloat16)),
        ("value", 0, torch.zeros(2, 41, 2, 0, dtype=torch.float64)),
        ("spatial_shapes", 1, [5, 7, 3]),
        ("spatial_shapes", 1, [5, 7, 3, 3]),
        ("spatial_shapes", 1, [-5, -7, 3, 2]),
        ("spatial_shapes", 1, [2**32, 2**32, 3, 2]),
        ("sampling_locations", 2, torch.zeros(2, 5, 2, 2, 3, dtype=torch.float64)),
        ("sampling_locations", 2, torch.zeros(2, 5, 3, 2, 3, 2, dtype=torch.float64)),
        ("sampling_locations", 2, torch.zeros(2, 5, 2, 2, 3, 2)),
        ("attention_weights", 3, torch.zeros(2, 5, 2, 2, 4, dtype=torch.float64)),
        ("attention_weights", 3, torch.zeros(2, 5, 2, 2, 3)),
    ],
)
def test_the_compiled_operators_name_a_bad_argument_too(
    argument: str, position: int, wrong: object
) -> None:
    value, locations, weights = make_inputs(SHAPES)
    arguments: list[object] = [value, FLAT_SHAPES, locations, weights]
    arguments[position] = wrong
    grad = torch.zeros(2, 5, 8, dtype=torch.float64)
    with pytest.raises(
        RuntimeError, match=f"^ms_deform_attn: argument '{argument}': got .*expected"
    ):
        torch.ops.sparse_detr.ms_deform_attn(*arguments)
    with pytest.raises(RuntimeError, match=f"^ms_deform_attn_backward: argument '{argument}': got"):
        torch.ops.sparse_detr.ms_deform_attn_backward(grad, *arguments)


@needs_native
def test_the_compiled_backward_names_a_bad_output_gradient() -> None:
    value, locations, weights = make_inputs(SHAPES)
    for wrong in (torch.zeros(2, 5, 7, dtype=torch.float64), torch.zeros(2, 5, 8)):
        with pytest.raises(RuntimeError, match=r"argument 'grad_output': got .*expected"):
            torch.ops.sparse_detr.ms_deform_attn_backward(
                wrong, value, FLAT_SHAPES, locations, weights
            )


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("batch", "queries"), [(2, 5), (0, 5), (2, 0)])
def test_the_registration_passes_opcheck(dtype: torch.dtype, batch: int, queries: int) -> None:
    value, locations, weights = make_inputs(SHAPES, batch=batch, queries=queries, dtype=dtype)
    grad = torch.randn(batch, queries, 8, dtype=dtype)
    backward = torch.ops.sparse_detr.ms_deform_attn_backward.default
    torch.library.opcheck(
        backward, (grad, value, FLAT_SHAPES, locations, weights), test_utils=OPCHECKS
    )
    for tensor in (value, locations, weights):
        tensor.requires_grad_()
    forward = torch.ops.sparse_detr.ms_deform_attn.default
    torch.library.opcheck(forward, (value, FLAT_SHAPES, locations, weights), test_utils=OPCHECKS)


@pytest.mark.parametrize("backend", [pytest.param("native", marks=needs_native), "torch"])
def test_compiles_as_one_graph_with_dynamic_sizes(backend: str) -> None:
    def attend(value: Tensor, locations: Tensor, weights: Tensor, height: int) -> Tensor:
        return 2 * ms_deform_attn(value, [(height, 4), (2, 2)], locations, weights)

    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager", dynamic=True)
    with use_backend(backend):
        for height, queries in ((3, 5), (6, 9)):
            value, locations, weights = make_inputs([(height, 4), (2, 2)], queries=queries)
            value.requires_grad_()
            got = compiled(value, locations, weights, height)
            expected = attend(value, locations, weights, height)
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
            grads = [torch.autograd.grad(result.sum(), value)[0] for result in (got, expected)]
            torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=1e-12)


@needs_native
def test_double_backward_is_refused() -> None:
    value, locations, weights = make_inputs(SHAPES)
    value.requires_grad_()
    with use_backend("native"):
        output = ms_deform_attn(value, SHAPES, locations.requires_grad_(), weights)
        (gradient,) = torch.autograd.grad(output.square().sum(), value, create_graph=True)
        with pytest.raises(RuntimeError, match="cannot be differentiated again"):
            gradient.sum().backward()
