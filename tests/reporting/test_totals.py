"""Sums that forget nothing, and take out what was put in."""

from __future__ import annotations

from decimal import Decimal

from budget_guard.reporting.posting import Booked
from budget_guard.reporting.totals import Tally
from budget_guard.units.amounts import NOTHING, Amounts


def test_what_is_taken_out_again_leaves_nothing() -> None:
    tally = Tally()
    booked = Booked(
        at_s=1.5,
        id="h",
        name="large",
        amounts=Amounts(30, 20, 10, 30, 1),
        overrun=5,
        uncertain=True,
        unpriced=True,
        violation=True,
    )
    tally.add(booked, "writer")
    assert tally.total() == booked.amounts
    assert (tally.overrun, tally.uncertain, tally.unpriced_calls, tally.violations) == (5, 30, 1, 1)
    tally.add(booked.negative(), "writer", -1)
    assert tally.total() == NOTHING
    assert (tally.overrun, tally.uncertain, tally.unpriced_calls, tally.violations) == (0, 0, 0, 0)
    assert [(spend.total, spend.calls) for spend in tally.by_agent().values()] == [(Decimal(0), 0)]
