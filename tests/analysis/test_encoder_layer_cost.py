"""The hand formula of an encoder layer: equal to the trace, and growing with the kept tokens."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import small_detector
from sparse_detr.analysis import EncoderLayerSize, count_flops, encoder_layer_flops
from sparse_detr.layers import backend

RELEASED = EncoderLayerSize(
    hidden_dim=256, num_heads=8, num_levels=4, num_points=4, feedforward_dim=1024
)
native = pytest.mark.skipif(
    backend.backend_for("cpu") != "native", reason="the operators are not compiled"
)


@pytest.mark.parametrize("samples_first", [False, pytest.param(True, marks=native)])
@pytest.mark.parametrize(("system", "ratio"), [("sparse_detr", 0.4), ("deformable_detr", None)])
def test_the_formula_equals_the_traced_count(
    system: str, ratio: float | None, samples_first: bool
) -> None:
    detector = small_detector(system)
    count = count_flops(detector, (96, 160), ratio, project_after_sampling=samples_first)
    kept = count.kept[0] if count.kept else count.num_tokens
    assert (kept < count.num_tokens) == (ratio is not None)
    for index, layer in enumerate(detector.encoder.layers):
        size = EncoderLayerSize.of(layer)
        expected = encoder_layer_flops(kept, count.num_tokens, size, samples_first)
        assert count.by_module[f"encoder.layers.{index}"] == expected


def test_a_layer_of_the_released_models_counts_what_was_worked_out_by_hand() -> None:
    # 1,783 of 17,821 tokens; 128 samples each.
    around = 1783 * (3 * 128 * 256 + 256 * 256)
    feed_forward = 1783 * (2 * 256 * 1024 + 10 * 256)
    assert encoder_layer_flops(1783, 17821, RELEASED, samples_first=False) == (
        around + 17821 * 256 * 256 + 1783 * 128 * (4 * 32 + 12) + feed_forward
    )
    assert encoder_layer_flops(1783, 17821, RELEASED, samples_first=True) == (
        around + 1783 * 128 * (4 * 256 + 12) + 1783 * 256 * 257 + feed_forward
    )


@given(
    tokens=st.integers(2, 30000),
    shares=st.lists(st.floats(0, 1), min_size=2, max_size=5),
    samples_first=st.booleans(),
)
def test_keeping_more_tokens_never_costs_less(
    tokens: int, shares: list[float], samples_first: bool
) -> None:
    kept = sorted(int(share * tokens) for share in shares)
    counts = [encoder_layer_flops(k, tokens, RELEASED, samples_first) for k in kept]
    for (less, small), (more, large) in itertools.pairwise(zip(kept, counts, strict=True)):
        assert (small < large) if less < more else (small == large)


def test_projecting_first_has_a_floor_that_sparsity_does_not_lower() -> None:
    assert encoder_layer_flops(0, 17821, RELEASED, samples_first=False) == 17821 * 256 * 256
    assert encoder_layer_flops(0, 17821, RELEASED, samples_first=True) == 0


@pytest.mark.parametrize("kept", [-1, 101])
def test_more_tokens_than_there_are_are_refused(kept: int) -> None:
    with pytest.raises(ValueError, match="between 0 and tokens"):
        encoder_layer_flops(kept, 100, RELEASED, samples_first=False)
