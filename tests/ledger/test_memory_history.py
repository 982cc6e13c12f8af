"""Rows in one whole number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budget_guard import MemoryLedger, Scope
from budget_guard.ledger.history import OTHERS, Labels, UsageLine, UsageQuery, as_row, plus
from budget_guard.ledger.hold_id import hold_id
from budget_guard.ledger.memory_history import packed_row, unpacked_row
from budget_guard.testing import FakeClock
from budget_guard.units.amounts import Amounts, Limits

ROWS = st.tuples(*[st.integers(-(10**30), 10**30)] * 10).map(as_row)


@given(first=ROWS, second=ROWS)
def test_numbers_add_up_as_their_rows_do(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    assert unpacked_row(packed_row(as_row(first)) + packed_row(as_row(second))) == plus(first, second)
    assert unpacked_row(packed_row(as_row(first)) - packed_row(as_row(second))) == plus(first, second, -1)


def test_beyond_so_many_rows_of_a_scope_all_is_booked_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("budget_guard.ledger.memory_history.MOST_ROWS", 3)
    clock, run = FakeClock(), Scope("run", "r")
    ledger = MemoryLedger(clock=clock)
    ledger.set_limits(run, Limits())
    for hour in range(2):
        for number in range(4):
            lines = (UsageLine(Labels(model=f"m{number}"), Amounts(cost=1)),)
            ledger.charge(hold_id(clock.now_ms(), f"{hour}-{number}"), (run,), Amounts(cost=1), lines)
        clock.advance(3_600)
    found = ledger.usage(UsageQuery("run", "r", 0, None, ("model",)))
    assert {each.names[0]: each.quantities[0] for each in found} == {"m0": 1, "m1": 1, "m2": 1, OTHERS.model: 5}


def test_labels_of_an_earlier_hour_are_told_apart_where_the_latest_has_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("budget_guard.ledger.memory_history.MOST_LABELS", 3)
    clock, run = FakeClock(), Scope("run", "r")
    ledger = MemoryLedger(clock=clock)
    ledger.set_limits(run, Limits())
    early = [hold_id(clock.now_ms(), f"early-{n}") for n in range(2)]
    for each in early:
        ledger.reserve(each, (run,), Amounts(cost=1), None)
    first = clock.now_ms() // 3_600_000

    def booked(name: str) -> tuple[UsageLine, ...]:
        return (UsageLine(Labels(model=name), Amounts(cost=1)),)

    ledger.commit(early[0], (run,), Amounts(cost=1), True, booked("guessed"))
    clock.advance(3_600)
    for number in range(5):
        ledger.charge(hold_id(clock.now_ms(), f"c{number}"), (run,), Amounts(cost=1), booked(f"m{number}"))
    ledger.commit(early[0], (run,), Amounts(cost=1), False, booked("known"))
    found = {
        (hour, model): sums[0]
        for (hour, model), sums in (
            (each.names, each.quantities) for each in ledger.usage(UsageQuery("run", "r", 0, None, ("hour", "model")))
        )
    }
    assert {model for hour, model in found if hour == first} == {"known"}
    assert {model for hour, model in found if hour == first + 1} == {"m0", "m1", "m2", OTHERS.model}
    assert found[first + 1, OTHERS.model] == 2
