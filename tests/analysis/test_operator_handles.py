"""The handles on calls written out as a traced graph would hold them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sparse_detr.analysis.operator_handles import (
    ELEMENTWISE,
    HONEST_HANDLES,
    RELEASED_HANDLES,
    Handle,
)

# B=2, N=20, H=2, D=5, C=10, Q=3, L=2, P=3.
SAMPLES = 2 * 3 * 2 * 2 * 3
_TENSORS = {
    "value": (2, 20, 2, 5),
    "source": (2, 20, 10),
    "locations": (2, 3, 2, 2, 3, 2),
    "offsets": (2, 3, 2, 2, 3, 2),
    "weights": (2, 3, 2, 2, 3),
    "logits": (2, 3, 2, 2, 3),
    "reference": (2, 3, 2, 4),
    "matrix": (10, 10),
    "bias": (10,),
    "output": (2, 3, 10),
    "map": (2, 20),
}


def node_of(call: str, output: str) -> Any:
    """The node of an operator call in a graph whose tensors have known shapes.

    Args:
        call: The call, with the tensors of this module by name as `%name`, `%shapes` for the level
            sizes, `%none`, and `%<name>_list` for lists of two.
        output: Name of the tensor whose shape the result has.
    """

    def tensor(name: str) -> str:
        shape = _TENSORS[name]
        strides = torch.empty(shape).stride()
        sizes = ", ".join(map(str, shape))
        return f"Float({sizes}, strides={list(strides)}, requires_grad=0, device=cpu)"

    inputs = ", ".join(f"%{name} : {tensor(name)}" for name in _TENSORS)
    graph = torch._C.parse_ir(
        f"""graph({inputs}, %shapes : int[], %none : NoneType, %shift : bool):
        %locations_list : Tensor[] = prim::ListConstruct(%locations, %locations)
        %weights_list : Tensor[] = prim::ListConstruct(%weights, %weights)
        %result : {tensor(output)} = {call}
        return (%result)"""
    )
    (node,) = [n for n in graph.nodes() if not n.kind().startswith("prim::")]
    return node, graph


def counted(handles: Any, call: str, output: str = "output") -> int:
    node, _graph = node_of(call, output)
    handle: Handle = handles[node.kind()]
    return handle(list(node.inputs()), list(node.outputs()))


ATTENTION = "sparse_detr::ms_deform_attn(%value, %shapes, %locations, %weights, %none)"
FUSED = "sparse_detr::ms_deform_attn_fused(%value, %shapes, %reference, %offsets, %logits, %none)"
SAMPLING = "sparse_detr::deform_attn_sampling(%reference, %offsets, %logits, %shapes)"
SAMPLE_FIRST = (
    "sparse_detr::sample_then_project"
    "(%source, %shapes, %reference, %offsets, %logits, %matrix, %bias, %none)"
)
MAP = "sparse_detr::decoder_attention_map(%locations_list, %weights_list, %shapes, %shift)"


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (ATTENTION, SAMPLES * (4 * 5 + 10)),
        (FUSED, SAMPLES * (4 * 5 + 12)),
        (SAMPLING, SAMPLES * 2),
        (SAMPLE_FIRST, SAMPLES * (4 * 10 + 12) + 2 * 3 * 10 * (10 + 1)),
        (MAP, 2 * SAMPLES * 10),
    ],
)
def test_honest_counts_every_sampling_and_projection_multiply_add(call: str, expected: int) -> None:
    assert counted(HONEST_HANDLES, call) == expected


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (ATTENTION, SAMPLES * 4 * 5),
        (FUSED, SAMPLES * 4 * 5),
        (SAMPLING, 0),
        (SAMPLE_FIRST, 2 * 20 * 10 * 10 + SAMPLES * 4 * 5),
        (MAP, 0),
    ],
)
def test_the_released_convention_counts_projected_values_and_four_per_sampled_value(
    call: str, expected: int
) -> None:
    assert counted(RELEASED_HANDLES, call) == expected


def test_an_unknown_shape_is_an_error_and_not_a_zero() -> None:
    graph = torch._C.parse_ir(
        """graph(%value : Tensor, %shapes : int[]):
        %result : Tensor = sparse_detr::ms_deform_attn(%value, %shapes, %value, %value)
        return (%result)"""
    )
    (node,) = graph.nodes()
    with pytest.raises(ValueError, match="without a known shape"):
        HONEST_HANDLES[node.kind()](list(node.inputs()), list(node.outputs()))


def test_an_einsum_counts_the_product_of_its_index_lengths() -> None:
    node, _graph = einsum_node("bnc,bmc->bnm")
    assert HONEST_HANDLES["aten::einsum"](list(node.inputs()), []) == 2 * 20 * 20 * 10


def test_an_einsum_of_unknown_form_is_refused() -> None:
    node, _graph = einsum_node("...nc,bmc->...nm")
    with pytest.raises(ValueError, match="einsum"):
        HONEST_HANDLES["aten::einsum"](list(node.inputs()), [])


def einsum_node(equation: str) -> Any:
    graph = torch._C.parse_ir(
        f"""graph(%source : Float(2, 20, 10, strides=[200, 10, 1], requires_grad=0, device=cpu)):
        %equation : str = prim::Constant[value="{equation}"]()
        %operands : Tensor[] = prim::ListConstruct(%source, %source)
        %path : NoneType = prim::Constant()
        %result : Tensor = aten::einsum(%equation, %operands, %path)
        return (%result)"""
    )
    (node,) = [n for n in graph.nodes() if n.kind() == "aten::einsum"]
    return node, graph


def test_no_operator_is_both_counted_and_taken_for_elementwise() -> None:
    assert not ELEMENTWISE & set(HONEST_HANDLES)
