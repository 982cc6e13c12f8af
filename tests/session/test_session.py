"""One run's ceiling: exact under load, and steerable while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest

from budget_guard import Budget, BudgetExceeded, BudgetRevoked, MemoryLedger, ModelCall, Session, ToolCall, Usage
from budget_guard.adapter.handle import SessionHandle
from budget_guard.clock import SYSTEM_CLOCK
from budget_guard.events import LimitsRaised, SessionRevoked, SoftLimitReached
from budget_guard.testing import FakeClock
from budget_guard.testing.ledger_contract import race
from budget_guard.units.amounts import Amounts
from tests.builders import ZERO, Way, call, note_holds, session


def blocked_by(way: Way, run: Session) -> tuple[str, str] | None:
    error = way.authorize(run, call()).error
    return (error.dimension, error.scope) if isinstance(error, BudgetExceeded) else None


# --- many calls at once


@pytest.mark.parametrize(("budget", "fit"), [(Budget("$1.00"), 10), (Budget(max_requests=7), 7)])
def test_of_a_hundred_threads_exactly_as_many_calls_pass_as_fit(budget: Budget, fit: int) -> None:
    run = session(budget)

    def one_call() -> bool:
        decision = run.authorize(call())
        if decision.reservation is None:
            return False
        decision.reservation.forward()
        decision.reservation.commit(Usage())
        return True

    assert sum(race([one_call] * 100)) == fit
    report = run.report()
    assert (report.total_spent, report.reserved) == (Decimal("0.10") * fit, ZERO)
    assert report.breakdown.llm.calls == fit


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("asked", [call(), call(can_cap=True, downgrade=None, cap=5), ToolCall("search", 5)])
async def test_a_call_that_is_sent_as_soon_as_it_is_held_need_not_be_forwarded(asked: Any, sent: bool) -> None:
    run = session("$1.00")
    for decision in (run.authorize(asked, sent=sent), await run.aauthorize(asked, sent=sent)):
        ledger = run.ledger
        assert isinstance(ledger, MemoryLedger)
        assert ledger._holds[decision.id].state == ("forwarded" if sent else "reserved")


async def test_of_a_hundred_tasks_exactly_as_many_calls_pass_as_fit() -> None:
    run = session("$1.00")

    async def one_call() -> bool:
        decision = await run.aauthorize(call())
        await asyncio.sleep(0)
        if decision.reservation is None:
            return False
        await decision.reservation.aforward()
        await asyncio.sleep(0)
        await decision.reservation.acommit(Usage())
        return True

    assert sum(await asyncio.gather(*(one_call() for _ in range(100)))) == 10
    assert (run.spent_usd, run.reserved_usd) == (Decimal(1), ZERO)


def test_threads_that_hammer_one_session_never_see_it_above_its_limit_and_lose_nothing() -> None:
    run = session("$1.00")
    seen: list[Decimal] = []

    def work() -> int:
        settled = 0
        for _ in range(20):
            decision = run.authorize(call())
            seen.append(run.spent_usd + run.reserved_usd)
            if decision.reservation is not None:
                decision.reservation.commit(Usage(requests=1)) if settled % 2 else decision.reservation.release("429")
                settled += 1
        return settled

    race([work] * 20)
    report = run.report()
    assert max(seen) <= 1
    assert report.total_spent == report.breakdown.llm.total == Decimal("0.10") * report.breakdown.llm.calls
    assert (report.total_spent, report.reserved) == (Decimal(1), ZERO)


# --- waiting for room that others hold


async def test_refused_calls_wait_for_refunds_and_all_pass() -> None:
    run = session(Budget("$0.20", max_wait_s=60, soft_limit=None), clock=SYSTEM_CLOCK)

    async def one_call() -> str:
        decision = await run.aauthorize(call())
        await asyncio.sleep(0)
        await decision.require().arelease("429")
        return decision.action

    assert await asyncio.gather(*(one_call() for _ in range(20))) == ["allow"] * 20
    assert run.reserved_usd == 0


def test_threads_wait_for_refunds_too() -> None:
    run = session(Budget("$0.20", max_wait_s=60), clock=SYSTEM_CLOCK)

    def one_call() -> str:
        decision = run.authorize(call())
        decision.require().release("429")
        return decision.action

    assert race([one_call] * 20) == ["allow"] * 20


def test_a_wait_ends_in_time_with_a_refusal(way: Way) -> None:
    clock = FakeClock()
    run = session(Budget("$0.15", max_wait_s=7.5), clock=clock)
    held = way.reserve(run, call())
    assert blocked_by(way, run) == ("max_cost_usd", f"run:{run.id}")
    assert clock.monotonic() == 7.5
    way.release(held)
    assert way.authorize(run, call()).action == "allow"


def test_a_caller_that_must_not_block_is_refused_at_once() -> None:
    clock = FakeClock()
    run = session(Budget("$0.15", max_wait_s=7.5), clock=clock)
    run.authorize(call()).require()
    assert run.authorize(call(), may_wait=False).action == "block"
    assert clock.monotonic() == 0


@pytest.mark.parametrize("wait", [0, 7.5])
def test_a_call_that_no_refund_can_help_does_not_wait(way: Way, wait: float) -> None:
    clock = FakeClock()
    run = session(Budget("$0.15", max_wait_s=wait), clock=clock)
    way.pay(run, call())
    assert blocked_by(way, run) is not None
    assert clock.monotonic() == 0


async def test_a_cancelled_wait_holds_nothing() -> None:
    run = session(Budget("$0.15", max_wait_s=60), clock=SYSTEM_CLOCK)
    held = (await asyncio.create_task(run.aauthorize(call()))).require()
    waiting = asyncio.create_task(run.aauthorize(call()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await held.arelease("429")
    assert run.reserved_usd == 0


async def test_a_revocation_ends_the_wait() -> None:
    run = session(Budget("$0.15", max_wait_s=60), clock=SYSTEM_CLOCK)
    await asyncio.create_task(run.aauthorize(call()))
    waiting = asyncio.create_task(run.aauthorize(call()))
    await asyncio.sleep(0)
    run.revoke("stop")
    assert isinstance((await waiting).error, BudgetRevoked)


async def test_raised_limits_end_the_wait() -> None:
    run = session(Budget("$0.15", max_wait_s=60), clock=SYSTEM_CLOCK)
    await asyncio.create_task(run.aauthorize(call()))
    waiting = asyncio.create_task(run.aauthorize(call()))
    await asyncio.sleep(0)
    run.raise_limits(max_cost_usd="$0.20")
    assert (await waiting).action == "allow"


# --- time


def test_calls_that_start_too_late_are_refused(way: Way) -> None:
    clock = FakeClock()
    run = session(Budget("$1", max_duration_s=60), clock=clock)
    clock.advance(1_000)  # time runs from the first call
    held = way.reserve(run, call())
    clock.advance(60)
    assert way.authorize(run, call()).action == "allow"
    assert held.interruption(0) is None
    clock.advance(0.5)
    error = way.authorize(run, call()).error
    assert isinstance(error, BudgetExceeded)
    assert (error.dimension, error.limit, error.actual) == ("max_duration_s", 60.0, 60.5)
    assert isinstance(held.interruption(0), BudgetExceeded)
    way.commit(held, Usage())
    run.raise_limits(max_duration_s=100)
    assert way.authorize(run, call()).action == "allow"


def test_time_spent_waiting_counts(way: Way) -> None:
    run = session(Budget("$0.15", max_duration_s=5, max_wait_s=60), clock=FakeClock())
    way.reserve(run, call())
    assert blocked_by(way, run) == ("max_duration_s", f"run:{run.id}")


# --- soft limits


def test_a_soft_limit_is_warned_of_once_for_each_limit_and_again_after_a_raise(way: Way) -> None:
    run = session(Budget("$1.00", max_requests=20, soft_limit=0.5))

    def warned() -> list[tuple[str, float]]:
        return [(e.dimension, e.fraction) for e in run.events() if isinstance(e, SoftLimitReached)]

    for _ in range(4):
        way.pay(run, call())
    assert (warned(), run.near_limit) == ([], False)
    for _ in range(6):
        way.pay(run, call())
    assert (warned(), run.near_limit) == ([("max_cost_usd", 0.5), ("max_requests", 0.5)], True)
    run.raise_limits(max_cost_usd="$2.00")
    assert run.near_limit
    way.pay(run, call())
    assert warned()[2:] == [("max_cost_usd", 0.55), ("max_requests", 0.55)]


@pytest.mark.parametrize(("soft_limit", "near"), [(None, 1.0), (1.0, 1.0), (0.9, 0.9)])
def test_near_means_at_the_soft_limit_or_at_the_limit(way: Way, soft_limit: float | None, near: float) -> None:
    run = session(Budget("$1.00", soft_limit=soft_limit))
    for number in range(10):
        assert run.near_limit == (number / 10 >= near)
        way.pay(run, call())
    assert run.near_limit
    assert any(isinstance(e, SoftLimitReached) for e in run.events()) == (soft_limit is not None)


def test_a_limit_of_nothing_is_neither_near_nor_warned_of(way: Way) -> None:
    run = session(Budget("$1", max_tool_calls=0))
    way.pay(run, call())
    assert not run.near_limit
    assert not any(isinstance(e, SoftLimitReached) for e in run.events())
    assert way.authorize(run, ToolCall("search")).action == "block"


def test_the_spent_fraction_is_that_of_the_limit_which_is_nearest(way: Way) -> None:
    run = session(Budget("$1.00", max_output_tokens=1_000, max_requests=2))
    way.pay(run, call("large", cap=10), Usage(output=500))
    assert run.spent_fraction == 0.5


# --- spent elsewhere


def test_what_was_spent_elsewhere_counts_once_and_only_as_far_as_it_is_missing(way: Way) -> None:
    run = session("$1.00")
    run.carry_over(Amounts(cost=900_000_000, requests=9))
    run.carry_over(Amounts(cost=900_000_000, requests=9))
    assert (run.spent_usd, run.committed.requests) == (Decimal("0.90"), 9)
    way.pay(run, call())
    run.carry_over(Amounts(cost=500_000_000, requests=20))
    assert run.committed[:1] + run.committed[4:5] == (1_000_000_000, 20)
    assert blocked_by(way, run) == ("max_cost_usd", f"run:{run.id}")


# --- raising limits, revoking


def test_raised_limits_let_the_run_go_on(way: Way) -> None:
    run = session("$0.10")
    way.pay(run, call())
    assert blocked_by(way, run) is not None
    run.raise_limits(max_cost_usd="$0.20")
    assert (run.terminated_by, run.times_raised, run.budget.max_cost_usd) == (None, 1, Decimal("0.20"))
    assert run.remaining_usd == Decimal("0.10")
    way.pay(run, call())
    assert [e.limits for e in run.events() if isinstance(e, LimitsRaised)] == [("max_cost_usd",)]


@pytest.mark.parametrize("bad", [{"max_cost_usd": "$0.05"}, {"max_cost_usd": "lots"}, {"soft_limit": 1.0}])
def test_a_raise_that_makes_no_sense_changes_nothing(bad: dict[str, Any]) -> None:
    run = session("$0.10")
    with pytest.raises(ValueError, match=next(iter(bad))):
        run.raise_limits(**bad)
    assert (run.budget, run.times_raised) == (Budget("$0.10"), 0)
    assert run.remaining_usd == Decimal("0.10")


def test_a_revoked_run_makes_no_further_call_and_settles_those_in_flight(way: Way) -> None:
    clock = FakeClock(datetime(2026, 3, 1, 12, tzinfo=timezone.utc))
    run = session("$1.00", clock=clock)
    held = way.reserve(run, call())
    run.revoke("compromised")
    clock.advance(5)
    run.revoke("again")
    for error in (way.authorize(run, call()).error, held.interruption(0)):
        assert isinstance(error, BudgetRevoked)
        assert (error.reason, error.at.second) == ("compromised", 0)
    way.commit(held, Usage())
    way.charge(run, "search", "$0.01")
    assert run.spent_usd == Decimal("0.11")
    run.raise_limits(max_cost_usd="$2.00")
    assert run.terminated_by == run.report().terminated_by == "revoked"
    assert next(e.reason for e in run.events() if isinstance(e, SessionRevoked)) == "compromised"


# --- handles


class Guard(SessionHandle):
    """What an adapter's guard is to its user: a view of a session."""

    def __init__(self, session: Session) -> None:
        self.session = session


def test_a_handle_shows_and_steers_its_session(way: Way) -> None:
    guard = Guard(session("$0.25"))
    held = way.reserve(guard.session, call())
    guard.charge("search", "$0.05", agent="finder")
    assert (guard.spent_usd, guard.reserved_usd, guard.remaining_usd) == (
        Decimal("0.05"),
        Decimal("0.10"),
        Decimal("0.10"),
    )
    assert guard.report().by_agent["finder"].calls == 1
    heard: list[object] = []
    stop = guard.subscribe(heard.append)
    guard.raise_limits(max_cost_usd="$0.50")
    assert (guard.budget.max_cost_usd, guard.times_raised, len(heard)) == (Decimal("0.50"), 1, 1)
    stop()
    guard.revoke("stop")
    assert isinstance(held.interruption(0), BudgetRevoked) and len(heard) == 1


def test_a_budget_opens_a_session_with_tags_and_a_name() -> None:
    run = Budget("$1").session(run_id="r1", user="u1", key="k1")
    assert (run.id, run.report().tags) == ("r1", {"user": "u1", "key": "k1"})
    assert Budget("$1").session().id != Budget("$1").session().id


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("awaits", [False, True], ids=["blocking", "async"])
@pytest.mark.parametrize(
    ("budget", "asked"),
    [
        (Budget("$1.00"), call("large")),
        (Budget("$0.05", max_wait_s=0), call("large")),  # the longest answer does not fit
        (Budget("$1.00", mode="soft_gate"), call("large")),  # nothing is offered to the ledger first
        (Budget("$0.05", mode="advisory_estimate"), call("dime")),  # it is let through all the same
        (Budget("$1.00"), ToolCall("lookup", 1_000)),
    ],
    ids=["at once", "in what is left", "by the slow path", "past the limit", "tool"],
)
@pytest.mark.parametrize("of", ["session", "child"])  # the parent of a child is looked after first
def test_what_is_sent_at_once_is_held_as_sent_however_it_comes_to_be_held(
    of: str,
    budget: Budget,
    asked: ModelCall | ToolCall,
    awaits: bool,
    sent: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = session(budget if of == "session" else replace(budget, max_cost_usd=Decimal(2)))
    if of == "child":
        run = run.child(budget)
    held = note_holds(monkeypatch, lambda: 0)
    decision = asyncio.run(run.aauthorize(asked, sent=sent)) if awaits else run.authorize(asked, sent=sent)
    assert decision.reservation is not None
    assert held and set(held) == {(0, True, sent)}


def test_a_sink_is_told_of_children_too_until_it_is_taken_back() -> None:
    heard: dict[str, list[str]] = {}

    class Noting:
        def of_run(self, origin: Any) -> Callable[[Any], None]:
            return lambda event: heard.setdefault(origin.run_id, []).append(type(event).__name__)

    run, sink = session(run_id="r1"), Noting()
    stop = run.subscribe(sink)
    with run.child(Budget("$0.50", max_requests=1), "one") as child:
        child.authorize(call()).require().release("it was never sent")
    assert {"r1", child.id} == set(heard)
    before = {name: list(events) for name, events in heard.items()}
    for _ in range(2):
        stop()
    run.authorize(call()).require().release("it was never sent")
    with run.child(Budget("$0.20", max_requests=1), "two") as child:
        child.authorize(call()).require().release("it was never sent")
    assert heard == before


def test_a_price_is_known_by_the_model_and_who_serves_it() -> None:
    run = Session(Budget("$1"))
    asked = (("gpt-4o", None), ("gpt-4o", "openai"), ("gpt-4o", "anthropic"), ("unheard-of", None))
    assert [run.knows_price_of(model, provider) for model, provider in asked] == [True, True, False, False]
