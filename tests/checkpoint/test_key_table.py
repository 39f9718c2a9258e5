"""Tables of names work both ways, with numbers that may be shifted."""

import pytest

from sparse_detr.checkpoint.key_table import KeyTable

TABLE = KeyTable(
    (
        ("neck.extra.{i}.", "levels.{i+3}."),
        ("neck.{i}.", "levels.{i}."),
        ("blocks.{a}.parts.{b}.linear", "stack.{a}.{b}.ffn."),
        ("embed", "position.embed"),
    )
)


@pytest.mark.parametrize(
    ("released", "here"),
    [
        ("neck.extra.0.weight", "levels.3.weight"),
        ("neck.2.weight", "levels.2.weight"),
        ("blocks.10.parts.3.linear1.bias", "stack.10.3.ffn.1.bias"),
        ("embed", "position.embed"),
    ],
)
def test_names_go_both_ways(released, here):
    assert TABLE.here(released) == here
    assert TABLE.released(here) == released


def test_names_that_no_row_fits_have_none():
    assert TABLE.here("necks.0.weight") is None
    assert TABLE.released("neck.0.weight") is None


def test_two_tables_make_one_whose_first_rows_count_first():
    assert (KeyTable((("neck.", "own."),)) + TABLE).here("neck.0.weight") == "own.0.weight"
