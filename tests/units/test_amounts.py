"""Sums and differences of amounts are those of each dimension."""

from __future__ import annotations

import pytest

from budget_guard.units.amounts import DIMENSIONS, MOST, NOTHING, Amounts, Checked, Limits, in_unit, unchecked


@pytest.mark.parametrize("i", range(len(DIMENSIONS)))
def test_each_dimension_is_added_and_taken_away_by_itself(i: int) -> None:
    two, three = ([0] * len(DIMENSIONS) for _ in range(2))
    two[i], three[i] = 2, 3
    expected = [0] * len(DIMENSIONS)
    expected[i] = 5
    assert list(Amounts(*two).plus(Amounts(*three))) == expected
    expected[i] = -1
    assert list(Amounts(*two).minus(Amounts(*three))) == expected


def test_sums_are_amounts_and_nothing_is_zero_in_every_dimension() -> None:
    assert type(unchecked(Checked, (1, 2, 3, 4, 5, 6)).plus(NOTHING)) is Amounts
    assert list(NOTHING) == [0] * len(DIMENSIONS) == [0 if limit is None else 1 for limit in Limits()]
    assert (in_unit(0, 10**9), in_unit(1, 7)) == (1, 7)


def test_the_largest_amount_and_all_below_it_are_exact_in_the_doubles_of_a_script() -> None:
    assert float(MOST - 1) < float(MOST) < float(MOST + 1) == float(MOST + 2)
