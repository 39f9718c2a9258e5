"""Sine features of angles."""

import math

import torch

from sparse_detr.layers.sine_encoding import sine_features


def test_sines_stand_at_even_and_cosines_at_odd_places_sharing_a_frequency():
    angle = 1.3
    expected = [math.sin(angle), math.cos(angle), math.sin(angle / 100), math.cos(angle / 100)]
    got = sine_features(torch.tensor([angle], dtype=torch.float64), 4)
    torch.testing.assert_close(got[0], torch.tensor(expected).double())


def test_the_temperature_sets_the_longest_wavelength():
    got = sine_features(torch.tensor(1.0, dtype=torch.float64), 4, temperature=16.0)
    assert math.isclose(got[2], math.sin(0.25))


def test_every_pair_has_unit_length():
    features = sine_features(torch.randn(3, 5).double() * 100, 8)
    assert features.shape == (3, 5, 8)
    torch.testing.assert_close(
        features.unflatten(-1, (4, 2)).square().sum(-1), torch.ones(3, 5, 4).double()
    )


def test_the_type_of_the_angles_is_kept():
    assert sine_features(torch.zeros(2), 4).dtype == torch.float32
    assert sine_features(torch.zeros(2).double(), 4).dtype == torch.float64
