"""Sums that forget nothing, and take out what was put in."""

from __future__ import annotations

from decimal import Decimal

from budget_guard.reporting.posting import Posting
from budget_guard.reporting.totals import Totals
from budget_guard.units.amounts import NOTHING, Amounts


def test_what_is_taken_out_again_leaves_nothing() -> None:
    totals = Totals()
    posting = Posting(
        at_s=1.5,
        id="h",
        name="large",
        amounts=Amounts(30, 20, 10, 30, 1),
        overrun=5,
        uncertain=True,
        unpriced=True,
        violation=True,
    )
    totals.add(posting, "writer")
    assert totals.total() == posting.amounts
    assert (totals.overrun, totals.uncertain, totals.unpriced_calls, totals.violations) == (5, 30, 1, 1)
    totals.add(posting.negative(), "writer", -1)
    assert totals.total() == NOTHING
    assert (totals.overrun, totals.uncertain, totals.unpriced_calls, totals.violations) == (0, 0, 0, 0)
    assert [(spend.total, spend.calls) for spend in totals.by_agent().values()] == [(Decimal(0), 0)]
