"""What is recorded for a call is replaced by what is known better, and by nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from budget_guard import Scope
from budget_guard.calls.held import HeldCall
from budget_guard.calls.plan import Rung, Terms
from budget_guard.calls.recorder import Recorder
from budget_guard.reporting.posting import Posting
from budget_guard.testing import FakeClock
from budget_guard.units.amounts import Amounts, Limits
from tests.builders import call


def posted(cost: int, uncertain: bool) -> Posting:
    return Posting(0.0, "id", "dime", Amounts(cost=cost, requests=1), 0, uncertain, False, False)


@pytest.mark.parametrize(
    ("before", "now", "changes"),
    [
        ((5, True), (3, False), True),  # the usage of what was estimated
        ((5, True), (5, False), True),
        ((5, True), (7, True), True),
        ((5, True), (5, True), False),
        ((5, False), (5, False), False),
        ((5, False), (7, False), True),
        ((5, False), (5, True), False),  # an estimate that comes after the usage is an older answer
        ((5, False), (7, True), False),
    ],
)
def test_a_record_is_replaced_by_another_that_is_not_less_certain(
    before: tuple[int, bool], now: tuple[int, bool], changes: bool
) -> None:
    recorder = Recorder(Scope("run", "r1"), FakeClock(), None)
    held = HeldCall("id", call(), (Terms(Rung("dime", None), None, False, True), Amounts(cost=9, requests=1)))
    assert recorder.record(held, posted(*before), None) is True
    assert recorder.record(held, posted(*now), None) is changes
    kept = now if changes else before
    assert held.posting == posted(*kept)
    assert recorder.total() == Amounts(cost=kept[0], requests=1)
    assert len(recorder.timeline.events()) == 1 + changes


def test_a_limit_is_warned_of_from_the_very_fraction_on_once_and_again_when_it_was_raised() -> None:
    told: list[Any] = []
    recorder, run, user = Recorder(Scope("run", "r1"), FakeClock(), None), Scope("run", "r1"), Scope("user", "u1")
    recorder.timeline.subscribe(told.append)
    limits = Limits(cost=10, input_tokens=None, requests=0)
    for scope, cost in ((run, 4), (run, 5), (run, 9), (user, 5), (user, 6)):
        recorder.warn(scope, limits, (cost, 100, 0, 0, 9, 0), 0.5)
    assert [(each.scope, each.dimension, each.fraction) for each in told] == [
        ("run:r1", "max_cost_usd", 0.5),
        ("user:u1", "max_cost_usd", 0.5),
    ]
    recorder.limits_raised()
    for scope in (run, user):
        recorder.warn(scope, limits, (7, 0, 0, 0, 0, 0), 0.5)
    assert [(each.scope, each.fraction) for each in told[2:]] == [("run:r1", 0.7)]


@pytest.mark.parametrize(("by", "after"), [(None, None), ("loop", None), ("revoked", "revoked")])
def test_a_run_that_goes_on_was_stopped_by_nothing_but_where_it_was_cut_off(by: str | None, after: str | None) -> None:
    recorder = Recorder(Scope("run", "r1"), FakeClock(), None)
    recorder.terminated_by = by
    recorder.goes_on()
    assert recorder.terminated_by == after
