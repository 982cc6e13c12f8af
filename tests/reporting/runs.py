"""Runs to make reports of."""

from __future__ import annotations

from typing import Any

from budget_guard import Budget, DowngradePolicy, Session, Usage
from budget_guard.testing import FakeClock
from tests.builders import call, session

EVIL = "<script>alert(1)</script>\x1b[31m|`*[x](http://e)\u202e" + "x" * 300
FORMULA = '=HYPERLINK("http://e")'


def run(calls: int, budget: Budget | None = None, *, agent: str | None = "writer", **options: Any) -> Session:
    """A session that has made so many calls, one each second, every fourth one of a tool, one of ten uncertain."""
    clock = FakeClock()
    opened = session(budget or Budget("$1000", task="write"), clock=clock, **options)
    for number in range(calls):
        clock.advance(1)
        if number % 4 == 3:
            opened.charge("search", "0.02", agent=agent)
            continue
        reservation = opened.authorize(
            call("large" if number % 3 else "small", tokens=200, cap=90, agent=agent)
        ).require()
        usage = Usage(input=60, cache_read=40, output=50, reasoning=20)
        reservation.commit(None if number % 10 == 9 else usage)
    return opened


def stopped() -> Session:
    """A session that was warned, switched to a cheaper model, had an answer cut off, and was stopped."""
    clock = FakeClock()
    budget = Budget("$0.02", downgrade=DowngradePolicy(to="small", at=0.5), task="write")
    opened = session(budget, clock=clock, run_id="r1", tags={"user": "u1"})
    for _ in range(200):
        clock.advance(1)
        reservation = opened.authorize(call("large", tokens=100, agent="writer")).reservation
        if reservation is None:
            break
        clock.advance(1)
        reservation.cut_short()
        reservation.commit(Usage(input=50, output=200))
    return opened
