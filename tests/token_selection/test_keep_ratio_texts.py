"""Keeping ratios read back from their texts, and what wrong texts are told."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_detr.token_selection import (
    Cascade,
    GflopBudget,
    LatencyBudget,
    PerLayer,
    PerLevel,
    ScoreMass,
    Uniform,
    as_keep_ratio,
)

RATIOS = st.floats(1e-12, 1.0)
BOUNDS = st.tuples(RATIOS, RATIOS).map(sorted)
AMOUNTS = st.floats(1e-6, 1e9)
LEVELS = st.lists(RATIOS, min_size=1, max_size=5).map(lambda r: PerLevel(tuple(r)))
MASS = st.builds(lambda share, bounds: ScoreMass(share, *bounds), RATIOS, BOUNDS)
PLAIN = RATIOS.map(Uniform)
ONE_LAYER = st.one_of(PLAIN, LEVELS, MASS, RATIOS.map(ScoreMass))
FILES = st.one_of(st.none(), st.sampled_from(["a.json", "/tmp/some-where/b.json"]))
KINDS = st.one_of(
    ONE_LAYER,
    st.lists(ONE_LAYER, min_size=1, max_size=6).map(lambda e: PerLayer(tuple(e))),
    st.lists(PLAIN, min_size=1, max_size=6).map(lambda e: PerLayer(tuple(e))),
    st.builds(lambda amount, bounds: GflopBudget(amount, *bounds), AMOUNTS, BOUNDS),
    st.builds(lambda ms, bounds, f: LatencyBudget(ms, *bounds, f), AMOUNTS, BOUNDS, FILES),
    AMOUNTS.map(GflopBudget),
    st.builds(lambda r, f: Cascade(r, tuple(f)), RATIOS, st.lists(RATIOS, min_size=1, max_size=6)),
    AMOUNTS.map(LatencyBudget),
)


@given(KINDS)
@settings(max_examples=500, deadline=None)
def test_every_keeping_ratio_is_read_back_from_its_text(ratio):
    text = str(ratio)
    assert as_keep_ratio(text) == ratio
    assert "\n" not in text and " " not in text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.3, Uniform(0.3)),
        (1, Uniform(1.0)),
        (np.float32(0.25), Uniform(0.25)),
        ("0.3", Uniform(0.3)),
        (" 1e-2 ", Uniform(0.01)),
        ("levels:0.1,0.3,0.5,1", PerLevel((0.1, 0.3, 0.5, 1.0))),
        ("levels: 0.1, 0.3", PerLevel((0.1, 0.3))),
        ("layers:0.5,0.4", PerLayer((0.5, 0.4))),
        ("layers:0.5/levels:0.1,1/mass:0.9", PerLayer((0.5, PerLevel((0.1, 1)), ScoreMass(0.9)))),
        ("layers:mass:0.9,0.05-0.5", PerLayer((ScoreMass(0.9, 0.05, 0.5),))),
        ("mass:0.9", ScoreMass(0.9)),
        ("mass:0.9,0.05-0.5", ScoreMass(0.9, 0.05, 0.5)),
        ("mass:0.9,1e-3-0.5", ScoreMass(0.9, 0.001, 0.5)),
        ("gflops:100", GflopBudget(100.0)),
        ("gflops:92.5,0.1-1", GflopBudget(92.5, 0.1, 1.0)),
        ("latency:150", LatencyBudget(150.0)),
        ("latency:150,here.json", LatencyBudget(150.0, calibration="here.json")),
        ("latency:9,0.1-0.5,here.json", LatencyBudget(9.0, 0.1, 0.5, "here.json")),
    ],
)
def test_numbers_and_texts_are_what_they_say(value, expected):
    assert as_keep_ratio(value) == expected


@pytest.mark.parametrize("ratio", [Uniform(0.3), PerLevel((0.1,)), GflopBudget(5)])
def test_a_keeping_ratio_is_given_back_as_it_is(ratio):
    assert as_keep_ratio(ratio) is ratio


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", r"must be a number in \(0, 1\], got ''"),
        ("half", r"got 'half'.*other forms: levels:0\.1"),
        ("2", r"must be a number in \(0, 1\], got '2'"),
        (0, "config of the dense twin"),
        (True, "got True"),
        (None, "got None"),
        ([0.1, 0.2], r"got \[0\.1, 0\.2\].*levels:"),
        ("level:0.1", "unknown kind 'level', did you mean 'levels'"),
        ("nothing:1", r"unknown kind 'nothing'; expected a number"),
        ("levels:", "nothing after the colon"),
        ("levels:0.1,x", "expected a number, got 'x'"),
        ("levels:0.1,1.5", r"level 1 of keep_ratio must be a number in \(0, 1\], got 1.5"),
        ("layers:0.5,2", r"layer 1 of keep_ratio must be a number in \(0, 1\], got 2"),
        ("layers:0.5/gflops:3", "about the whole detector"),
        ("mass:90", "share of the score mass"),
        ("mass:0.9,0.5", "expected bounds such as 0.05-0.5 after the comma, got '0.5'"),
        ("mass:0.9,0.5-0.1", "write 0.1-0.5"),
        ("mass:0.9,0.1-2", "highest bound of keep_ratio mass must be"),
        ("mass:0.9,a.json", "only latency: takes a file"),
        ("gflops:0", "gflops of keep_ratio must be a positive number, got 0.0"),
        ("gflops:inf", "must be a positive number"),
        ("latency:nan", "milliseconds of keep_ratio must be a positive number"),
    ],
)
def test_wrong_values_are_told_what_is_wrong_and_what_is_expected(value, message):
    with pytest.raises(ValueError, match=message):
        as_keep_ratio(value)


def test_a_calibration_file_whose_name_could_not_be_read_back_is_refused():
    with pytest.raises(ValueError, match="json file without commas"):
        LatencyBudget(5, calibration="a,b.json")
