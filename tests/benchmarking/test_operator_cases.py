from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

from sparse_detr.benchmarking.operator_cases import (
    OPERATORS,
    OURS,
    WITHOUT_GRADIENT,
    make_operator_case,
)
from sparse_detr.benchmarking.operator_inputs import (
    QUERY_SETS,
    OperatorInputs,
    make_operator_inputs,
)
from sparse_detr.benchmarking.operator_peers import installed_peers, level_tensors

LEVELS = ((12, 15), (6, 8), (3, 4), (2, 2))
CPU = torch.device("cpu")


def small_inputs(queries: str, dtype: torch.dtype = torch.float32) -> OperatorInputs:
    return make_operator_inputs(QUERY_SETS[queries], CPU, dtype, LEVELS)


def tensors(result: object) -> Iterable[Tensor]:
    if isinstance(result, Tensor):
        return (result,)
    assert isinstance(result, tuple)
    return result


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("queries", ["tenth", "300"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_all_ways_of_a_case_give_the_same(operator: str, queries: str, backward: bool) -> None:
    if backward and operator in WITHOUT_GRADIENT:
        pytest.skip("has no gradient")
    inputs = small_inputs(queries)
    peers, _ = installed_peers("cpu")
    case = make_operator_case(operator, inputs, backward, peers)
    expected = list(tensors(case.candidates[OURS]()))

    assert next(iter(case.candidates)) == OURS
    assert case.baseline in case.candidates
    assert case.result_bytes == sum(t.numel() * t.element_size() for t in expected)
    for name, call in case.candidates.items():
        for number, (got, wanted) in enumerate(zip(tensors(call()), expected, strict=True)):
            scale = max(1.0, float(wanted.abs().max()))
            assert float((got - wanted).abs().max()) < 2e-4 * scale, (name, number)


def test_half_values_are_compared_too() -> None:
    case = make_operator_case("ms_deform_attn", small_inputs("tenth", torch.bfloat16), False)
    expected = case.candidates[OURS]()
    assert isinstance(expected, Tensor)

    for call in case.candidates.values():
        got = call()
        assert isinstance(got, Tensor)
        assert got.dtype == torch.bfloat16
        assert float((got - expected).abs().max()) < 0.05


def test_every_corner_inside_is_counted() -> None:
    inputs = small_inputs("tenth")
    # All samples at the centre of the map, far from its borders: four corners each.
    inputs.sampling_locations = torch.full_like(inputs.sampling_locations, 0.5)
    samples = inputs.attention_weights.numel()

    assert inputs.gathered_bytes() == 4 * samples * 32 * 4


def test_samples_outside_read_nothing() -> None:
    inputs = small_inputs("tenth")
    inputs.sampling_locations = torch.full_like(inputs.sampling_locations, 3.0)

    assert inputs.gathered_bytes() == 0


def test_queries_by_score_are_distinct_tokens_in_no_order() -> None:
    points = small_inputs("tenth").reference_points[0, :, 0]

    assert len(points.unique(dim=0)) == len(points)
    assert not torch.equal(points[:, 1].sort().values, points[:, 1])


def test_queries_row_by_row_are_in_order_within_a_level() -> None:
    rows = small_inputs("all").reference_points[0, : 12 * 15, 0, 1]

    assert torch.equal(rows.sort().values, rows)


def test_queries_of_the_decoder_are_boxes() -> None:
    assert small_inputs("300").reference_points.shape == (1, 300, 4, 4)


def test_level_tensors_hold_sizes_and_starts() -> None:
    shapes, starts = level_tensors(LEVELS, CPU)

    assert shapes.tolist() == [list(level) for level in LEVELS]
    assert starts.tolist() == [0, 180, 228, 240]


def test_a_peer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ImportError(f"no module {name}")

    monkeypatch.setattr("importlib.import_module", missing)
    found, notes = installed_peers("cpu")

    assert found == {}
    assert [note.split()[0] for note in notes] == ["transformers", "mmcv"]
