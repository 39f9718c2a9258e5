"""The recipe of seeded weights: reproducible, exact in float32, scaled by the key."""

import numpy as np
import pytest

from sparse_detr.testing.seed_recipe import seeded_tensor


def test_values_depend_on_key_and_seed_only():
    values = seeded_tensor("a.weight", (8, 4), 3)
    assert np.array_equal(values, seeded_tensor("a.weight", [8, 4], 3))
    assert not np.array_equal(values, seeded_tensor("b.weight", (8, 4), 3))
    assert not np.array_equal(values, seeded_tensor("a.weight", (8, 4), 4))


def test_values_are_exact_in_float32():
    values = seeded_tensor("a.weight", (64,), 0)
    assert values.dtype == np.float64
    assert np.array_equal(values, values.astype(np.float32).astype(np.float64))


@pytest.mark.parametrize(
    ("key", "shape", "mean", "std"),
    [
        ("bn1.running_mean", (20_000,), 0.0, 0.1),
        ("conv1.weight", (200, 8, 3, 3), 0.0, np.sqrt(2 / 72)),
        ("attn.relative_position_bias_table", (5_000, 4), 0.0, 0.5),
        ("transformer.level_embed", (4, 5_000), 0.0, 0.5),
        ("self_attn.sampling_offsets.bias", (20_000,), 0.0, 2.0),
        ("self_attn.sampling_offsets.weight", (200, 100), 0.0, 0.1),
        ("norm1.weight", (20_000,), 1.0, 0.1),
        ("layer1.0.bn3.weight", (20_000,), 0.25, 0.025),
        ("class_embed.0.bias", (20_000,), -4.0, 0.3),
        ("class_embed.0.weight", (200, 100), 0.0, 0.1),
        ("linear1.bias", (20_000,), 0.0, 0.1),
    ],
)
def test_scale_follows_the_first_rule_that_fits(key, shape, mean, std):
    values = seeded_tensor(key, shape, 1)
    assert values.shape == shape
    assert values.mean() == pytest.approx(mean, abs=0.04 * std)
    assert values.std() == pytest.approx(std, rel=0.03)


def test_running_variance_is_one_or_more():
    values = seeded_tensor("bn1.running_var", (10_000,), 1)
    assert values.min() >= 1.0
    assert values.mean() == pytest.approx(1 + 0.2 * np.sqrt(2 / np.pi), abs=0.01)
