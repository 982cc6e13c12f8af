"""Rows in one whole number."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from budget_guard.ledger.history import as_row, plus
from budget_guard.ledger.memory_history import packed_row, unpacked_row

ROWS = st.tuples(*[st.integers(-(10**30), 10**30)] * 10).map(as_row)


@given(first=ROWS, second=ROWS)
def test_numbers_add_up_as_their_rows_do(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    assert unpacked_row(packed_row(as_row(first)) + packed_row(as_row(second))) == plus(first, second)
    assert unpacked_row(packed_row(as_row(first)) - packed_row(as_row(second))) == plus(first, second, -1)
