"""Sums that forget nothing, and take out what was put in."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

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


LOOKS: dict[str, Callable[[Totals], object]] = {
    "total": Totals.total,
    "breakdown": Totals.breakdown,
    "by agent": Totals.by_agent,
    "by child": Totals.by_child,
    "started": lambda totals: dict(totals.started()),
    "over time": Totals.over_time,
    "from the provider": lambda totals: totals.from_provider,
    "overrun": lambda totals: totals.overrun,
    "uncertain": lambda totals: totals.uncertain,
    "unpriced calls": lambda totals: totals.unpriced_calls,
    "violations": lambda totals: totals.violations,
}


def spent(looked_at: bool) -> Totals:
    """What a session and its child have taken, each added up before that if it is looked at."""
    of_both = Totals(), Totals()
    for totals in of_both:
        for number in range(2):
            posting = Posting(1.5, f"h{number}", "large", Amounts(30, 20, 10, 30, 1), 5, True, True, True, "provider")
            totals.add(posting, "writer", started_by=("editor",))
            if looked_at:
                totals.total()
    parent, child = of_both
    parent.merge("c1", child, 2.5)
    parent.add(Posting(3.5, "h2", "search", Amounts(7, 0, 0, 0, 0, 1), 0, False, False, False), None)
    return parent


@pytest.mark.parametrize("name", LOOKS)
def test_whatever_is_looked_at_first_has_every_call_in_it(name: str) -> None:
    look, before = LOOKS[name], spent(looked_at=True)
    before.total()
    assert look(spent(looked_at=False)) == look(before) != look(Totals())
