"""A bad argument of an operator raises an error that names it, by every way there is to call it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from deform_attn_inputs import Shapes
from interpreter import run_python
from operator_strategies import BACKENDS, make_variant, needs_native

from sparse_detr.layers.backend import use_backend
from sparse_detr.layers.ms_deform_attn import (
    deform_attn_sampling,
    ms_deform_attn,
    ms_deform_attn_fused,
)
from sparse_detr.layers.sample_then_project import sample_then_project

SHAPES: Shapes = [(5, 7), (3, 2)]
Arguments = dict[str, object]


def valid_arguments(operator: str) -> Arguments:
    """Arguments by name, in the order of the operator's schema."""
    variant = {"ms_deform_attn": "given", "sample_then_project": "projected points"}
    call = make_variant(
        variant.get(operator, "points"), SHAPES, queries=5, heads=2, channels=4, points=3
    )
    valid = torch.tensor([SHAPES, SHAPES])
    if operator == "ms_deform_attn":
        names = ["value", "sampling_locations", "attention_weights"]
    elif operator == "sample_then_project":
        names = ["source", "value_weight", "value_bias", *RAW]
    else:
        names = ["value", *RAW]
    named: Arguments = dict(zip(names, call.leaves, strict=True))
    if operator == "deform_attn_sampling":
        return {name: named[name] for name in RAW} | {"spatial_shapes": SHAPES}
    first = names[0]
    ordered: Arguments = {first: named.pop(first), "spatial_shapes": SHAPES}
    projection = {name: named.pop(name) for name in list(named) if name.startswith("value_")}
    return ordered | named | projection | {"valid_sizes": valid}


RAW = ("reference_points", "sampling_offsets", "attention_logits")
FUNCTIONS: dict[str, Callable[..., object]] = {
    "ms_deform_attn": ms_deform_attn,
    "ms_deform_attn_fused": ms_deform_attn_fused,
    "sample_then_project": sample_then_project,
    "deform_attn_sampling": deform_attn_sampling,
}


def zeros(*shape: int, dtype: torch.dtype = torch.float64, device: str = "cpu") -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype, device=device)


# Argument, wrong value, error. The tokens are 41, the images 2, the queries 5, the heads 2.
VALUES = [
    ("value", zeros(2, 41, 8), ValueError),
    ("value", zeros(2, 40, 2, 4), ValueError),
    ("value", zeros(2, 41, 2, 0), ValueError),
    ("value", zeros(2, 41, 0, 4), ValueError),
    ("value", zeros(2, 41, 2, 4, dtype=torch.int64), TypeError),
    ("value", zeros(2, 41, 2, 4, dtype=torch.complex64), TypeError),
    ("source", zeros(2, 41, 2, 4), ValueError),
    ("source", zeros(2, 41, 0), ValueError),
    ("source", zeros(2, 40, 5), ValueError),
    ("value_weight", zeros(8), ValueError),
    ("value_weight", zeros(8, 6), ValueError),
    ("value_weight", zeros(7, 5), ValueError),
    ("value_weight", zeros(0, 5), ValueError),
    ("value_weight", zeros(8, 5, dtype=torch.float32), TypeError),
    ("value_bias", zeros(7), ValueError),
    ("value_bias", zeros(8, 1), ValueError),
    ("value_bias", zeros(8, dtype=torch.bfloat16), TypeError),
    ("value_bias", zeros(8, device="meta"), ValueError),
    ("valid_sizes", zeros(2, 2, 2), TypeError),
    ("valid_sizes", zeros(2, 2, 2, dtype=torch.int32), TypeError),
    ("valid_sizes", zeros(2, 2, dtype=torch.int64), ValueError),
    ("valid_sizes", zeros(1, 2, 2, dtype=torch.int64), ValueError),
    ("valid_sizes", zeros(2, 3, 2, dtype=torch.int64), ValueError),
    ("valid_sizes", zeros(2, 2, 2, dtype=torch.int64, device="meta"), ValueError),
]
SAMPLES = [
    ("sampling_locations", zeros(2, 5, 2, 2, 3), ValueError),
    ("sampling_locations", zeros(1, 5, 2, 2, 3, 2), ValueError),
    ("sampling_locations", zeros(2, 5, 3, 2, 3, 2), ValueError),
    ("sampling_locations", zeros(2, 5, 2, 3, 3, 2), ValueError),
    ("sampling_locations", zeros(2, 5, 2, 2, 0, 2), ValueError),
    ("sampling_locations", zeros(2, 5, 2, 2, 3, 3), ValueError),
    ("sampling_locations", zeros(2, 5, 2, 2, 3, 2, dtype=torch.float32), TypeError),
    ("sampling_locations", zeros(2, 5, 2, 2, 3, 2, dtype=torch.float16), TypeError),
    ("sampling_locations", zeros(2, 5, 2, 2, 3, 2, device="meta"), ValueError),
    ("attention_weights", zeros(2, 5, 2, 2, 4), ValueError),
    ("attention_weights", zeros(2, 5, 2, 6), ValueError),
    ("attention_weights", zeros(2, 5, 2, 2, 3, dtype=torch.int32), TypeError),
    ("attention_weights", zeros(2, 5, 2, 2, 3, dtype=torch.bfloat16), TypeError),
    ("reference_points", zeros(2, 5, 2, 3), ValueError),
    ("reference_points", zeros(2, 5, 2), ValueError),
    ("reference_points", zeros(2, 4, 2, 2), ValueError),
    ("reference_points", zeros(2, 5, 1, 2), ValueError),
    ("reference_points", zeros(2, 5, 2, 2, dtype=torch.int64), TypeError),
    ("sampling_offsets", zeros(2, 5, 2, 2, 3), ValueError),
    ("sampling_offsets", zeros(1, 5, 2, 2, 3, 2), ValueError),
    ("sampling_offsets", zeros(2, 5, 2, 2, 0, 2), ValueError),
    ("sampling_offsets", zeros(2, 5, 2, 2, 3, 2, dtype=torch.float16), TypeError),
    ("sampling_offsets", zeros(2, 5, 2, 2, 3, 2, device="meta"), ValueError),
    ("attention_logits", zeros(2, 5, 2, 2, 4), ValueError),
    ("attention_logits", zeros(2, 5, 2, 2, 3, dtype=torch.float16), TypeError),
]
NO_TENSORS = [
    (name, wrong, TypeError)
    for name in (
        *("value", "source", "value_weight", "value_bias", "sampling_locations"),
        *("attention_weights", *RAW),
    )
    for wrong in (None, [1.0], 3)
] + [("valid_sizes", wrong, TypeError) for wrong in ([5, 7, 3, 2], 3, SHAPES)]
# As the Python functions take them.
PAIRS = [
    ("spatial_shapes", torch.tensor(SHAPES), TypeError),
    ("spatial_shapes", [5, 7, 3, 2], TypeError),
    ("spatial_shapes", [(5.0, 7.0), (3, 2)], TypeError),
    ("spatial_shapes", [(5, 7, 1), (3, 2)], TypeError),
    ("spatial_shapes", [(5, 7, 3), (2,)], TypeError),
    ("spatial_shapes", [(True, 35), (3, 2)], TypeError),
    ("spatial_shapes", None, TypeError),
    ("spatial_shapes", 3, TypeError),
    ("spatial_shapes", [(-5, -7), (3, 2)], ValueError),
    ("spatial_shapes", [(5, 7), (3, 3)], ValueError),
    ("spatial_shapes", [(5, 7)], ValueError),
    ("spatial_shapes", [], ValueError),
]
# As the operators take them.
FLAT = [
    ("spatial_shapes", [5, 7, 3], ValueError),
    ("spatial_shapes", [5, 7, 3, 3], ValueError),
    ("spatial_shapes", [-5, -7, 3, 2], ValueError),
    ("spatial_shapes", [2**32, 2**32, 3, 2], ValueError),
    ("spatial_shapes", [], ValueError),
]
# Values that no argument check of sampling alone can find wrong: it has no tokens to cover.
COVERING = ([(5, 7), (3, 3)], [5, 7, 3, 3])


def cases(*tables: list[tuple[str, object, type[Exception]]]) -> list[object]:
    """Gives every operator with the wrong arguments that it has."""
    rows = []
    for operator in FUNCTIONS:
        arguments = valid_arguments(operator)
        for name, wrong, error in (row for table in tables for row in table):
            covers = operator == "deform_attn_sampling" and wrong in COVERING
            if name in arguments and not covers:
                rows.append(pytest.param(operator, name, wrong, error, id=f"{operator}-{name}"))
    return rows


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("operator", "argument", "wrong", "error"), cases(VALUES, SAMPLES, NO_TENSORS, PAIRS)
)
def test_the_function_names_a_bad_argument(
    operator: str, argument: str, wrong: object, error: type[Exception], backend: str
) -> None:
    arguments = valid_arguments(operator)
    first = next(iter(arguments))
    # A value, or offsets, that do not fit the others may be reported with those.
    words = f"{argument}|spatial_shapes|{first}|sampling_offsets|attention_logits"
    with use_backend(backend):
        FUNCTIONS[operator](**arguments)
        with pytest.raises(error, match=rf"(^|\b)({words}): got .*expected"):
            FUNCTIONS[operator](**arguments | {argument: wrong})


def operator_arguments(operator: str, argument: str, wrong: object) -> list[object]:
    arguments = valid_arguments(operator) | {"spatial_shapes": [5, 7, 3, 2]}
    return list((arguments | {argument: wrong}).values())


@needs_native
@pytest.mark.parametrize(
    ("operator", "argument", "wrong", "error"), cases(VALUES, SAMPLES, NO_TENSORS, FLAT)
)
def test_the_operator_names_a_bad_argument_in_both_directions(
    operator: str, argument: str, wrong: object, error: type[Exception]
) -> None:
    arguments = operator_arguments(operator, argument, wrong)
    names = "|".join(valid_arguments(operator))
    message: str | None = rf"{operator}(_backward)?: ({names}): got .*expected"
    errors: tuple[type[Exception], ...] = (error,)
    if not isinstance(wrong, torch.Tensor) and argument != "spatial_shapes":
        # Some the dispatcher refuses itself; None reaches the operator as a tensor without a type.
        message, errors = None, (RuntimeError, TypeError, ValueError)
    namespace = torch.ops.sparse_detr
    with pytest.raises(errors, match=message):
        getattr(namespace, operator)(*arguments)
    if operator != "deform_attn_sampling":
        with pytest.raises(errors, match=message):
            getattr(namespace, f"{operator}_backward")(zeros(2, 5, 8), *arguments)


@needs_native
@pytest.mark.parametrize(
    "operator", ["ms_deform_attn", "ms_deform_attn_fused", "sample_then_project"]
)
def test_the_backward_names_a_bad_output_gradient(operator: str) -> None:
    arguments = operator_arguments(operator, "spatial_shapes", [5, 7, 3, 2])
    backward = getattr(torch.ops.sparse_detr, f"{operator}_backward")
    wrongs = {
        zeros(2, 5, 7): ValueError,
        zeros(2, 5, 2, 4): ValueError,
        zeros(1, 5, 8): ValueError,
        zeros(2, 4, 8): ValueError,
        zeros(2, 5, 8, dtype=torch.float32): TypeError,
        zeros(2, 5, 8, device="meta"): ValueError,
    }
    for wrong, error in wrongs.items():
        with pytest.raises(error, match=rf"{operator}_backward: grad_output: got .*expected"):
            backward(wrong, *arguments)


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_coordinates_are_refused_with_the_reason(backend: str) -> None:
    reason = "got dtype .*loat.*, expected .*half precision would move a location"
    for operator in ("ms_deform_attn", "ms_deform_attn_fused", "sample_then_project"):
        for dtype in (torch.float16, torch.bfloat16):
            arguments = valid_arguments(operator)
            half: Arguments = {
                name: argument.to(dtype)
                if isinstance(argument, torch.Tensor) and name != "valid_sizes"
                else argument
                for name, argument in arguments.items()
            }
            with use_backend(backend), pytest.raises(TypeError, match=reason):
                FUNCTIONS[operator](**half)


# Level sizes whose sum of tokens overflows 64 bits to exactly the 4 tokens that there are.
OVERFLOW = """
import torch
from sparse_detr.layers.ms_deform_attn import ms_deform_attn

largest = 2**31 - 1
shapes = [(largest, largest)] * 4 + [(2**17, 2**17)]
value = torch.ones(1, 4, 1, 2)
try:
    ms_deform_attn(value, shapes, torch.rand(1, 3, 1, 5, 1, 2), torch.ones(1, 3, 1, 5, 1))
except ValueError as error:
    print(error)
"""


@needs_native
def test_level_sizes_that_overflow_are_refused_and_the_process_lives() -> None:
    result = run_python(OVERFLOW)
    assert result.returncode == 0, f"the process ended with {result.returncode}: {result.stderr}"
    assert "spatial_shapes: got" in result.stdout
