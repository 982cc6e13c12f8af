"""Tools cost money too: held where the price is known, booked whatever it was."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest

from budget_guard import Budget, BudgetExceeded, ToolCall
from budget_guard.events import OverrunCharged
from tests.builders import ZERO, Way, call, note_holds, session

CENT = 10_000_000


def test_a_tool_of_known_cost_is_held_and_settled_like_a_model(way: Way) -> None:
    run = session("$0.05")
    decision = way.authorize(run, ToolCall("search", 3 * CENT, agent="researcher"))
    assert (decision.action, decision.kind, decision.name) == ("allow", "tool", "search")
    assert decision.estimate.cost == 3 * CENT
    assert run.reserved_usd == Decimal("0.03")
    assert way.authorize(run, ToolCall("search", 3 * CENT)).action == "block"
    assert way.commit_cost(decision.require(), "$0.02") == 2 * CENT
    report = run.report()
    assert (report.total_spent, report.reserved) == (Decimal("0.02"), ZERO)
    assert report.breakdown.tools.by_tool["search"].calls == report.breakdown.tools.calls == 1
    assert report.by_agent["researcher"].total == report.breakdown.tools.total == Decimal("0.02")
    assert report.breakdown.llm.calls == 0


@pytest.mark.parametrize("reserve", [None, "$0.01"])
@pytest.mark.parametrize("cost", [-1, 0.5, math.nan, 2**53, "0.01"])
def test_a_cost_that_cannot_be_is_refused_and_nothing_is_held(way: Way, cost: Any, reserve: str | None) -> None:
    run = session(Budget("$0.05", finalization_reserve=reserve))
    with pytest.raises(ValueError, match="whole numbers"):
        way.authorize(run, ToolCall("search", cost))
    assert (run.reserved_usd, run.decisions()) == (ZERO, [])


def test_a_tool_that_never_ran_costs_nothing(way: Way) -> None:
    run = session("$0.05")
    way.release(way.reserve(run, ToolCall("search", 3 * CENT)))
    assert (run.spent_usd, run.reserved_usd, run.report().breakdown.tools.calls) == (ZERO, ZERO, 0)


def test_a_tool_that_cost_more_than_was_held_is_charged_in_full(way: Way) -> None:
    run = session("$0.05")
    reservation = way.reserve(run, ToolCall("search", 3 * CENT))
    for _ in range(2):
        way.commit_cost(reservation, "$0.07")
    report = run.report()
    assert (report.total_spent, report.overrun, report.remaining) == (
        Decimal("0.07"),
        Decimal("0.04"),
        Decimal("-0.02"),
    )
    assert [e.overrun_usd for e in run.events() if isinstance(e, OverrunCharged)] == [Decimal("0.04")]


def test_a_tool_of_unknown_outcome_is_booked_at_what_was_held(way: Way) -> None:
    run = session("$0.05")
    reservation = way.reserve(run, ToolCall("search", 3 * CENT))
    assert way.commit_estimate(reservation, "timed out") == 3 * CENT
    report = run.report()
    assert (report.total_spent, report.uncertain, report.breakdown.tools.total) == (Decimal("0.03"),) * 3
    way.commit_cost(reservation, "$0.02")
    report = run.report()
    assert (report.total_spent, report.uncertain) == (Decimal("0.02"), ZERO)
    assert (report.breakdown.tools.total, report.breakdown.tools.calls) == (Decimal("0.02"), 1)


@pytest.mark.parametrize("bad", ["free", -1, float("nan"), True])
def test_a_cost_that_is_no_amount_of_money_books_nothing(way: Way, bad: Any) -> None:
    run = session("$0.05")
    reservation = way.reserve(run, ToolCall("search", 3 * CENT))
    with pytest.raises(ValueError, match="cost="):
        way.commit_cost(reservation, bad)
    with pytest.raises(ValueError, match="cost="):
        way.charge(run, "search", bad)
    assert (run.spent_usd, run.reserved_usd) == (ZERO, Decimal("0.03"))


def test_tool_calls_have_a_limit_of_their_own(way: Way) -> None:
    run = session(Budget(max_tool_calls=2))
    for _ in range(2):
        way.commit_cost(way.reserve(run, ToolCall("search")), 0)
    error = way.authorize(run, ToolCall("search")).error
    assert isinstance(error, BudgetExceeded)
    assert (error.dimension, error.limit, error.actual, error.estimate) == ("max_tool_calls", 2, 2, 1)
    assert way.authorize(run, call()).action == "allow"
    assert run.report().breakdown.tools.calls == 2


def test_model_calls_are_no_tool_calls_and_tools_no_requests(way: Way) -> None:
    run = session(Budget(max_requests=1, max_tool_calls=1))
    way.commit_cost(way.reserve(run, ToolCall("search")), 0)
    way.pay(run, call())
    assert way.authorize(run, call()).action == way.authorize(run, ToolCall("search")).action == "block"


# --- money that was spent without asking


def test_a_charge_is_always_booked_and_raises_past_the_limit(way: Way) -> None:
    run = session("$0.10", run_id="r1")
    way.charge(run, "search", "$0.10", agent="a")
    with pytest.raises(BudgetExceeded) as caught:
        way.charge(run, "search", "$0.05", agent="a")
    error = caught.value
    assert (error.dimension, error.limit, error.actual) == ("max_cost_usd", Decimal("0.10"), Decimal("0.15"))
    assert error.estimate is None and "may take" not in str(error)
    assert error.report is not None and error.report.total_spent == Decimal("0.15")
    report = run.report()
    assert (report.total_spent, report.remaining) == (Decimal("0.15"), Decimal("-0.05"))
    assert (report.breakdown.tools.total, report.breakdown.tools.calls) == (Decimal("0.15"), 2)
    assert report.by_agent["a"].calls == 2
    assert run.terminated_by == "max_cost_usd"
    assert way.authorize(run, call("penny")).action == "block"


def test_a_charge_counts_as_a_tool_call(way: Way) -> None:
    run = session(Budget(max_tool_calls=1))
    way.charge(run, "search", 0)
    with pytest.raises(BudgetExceeded, match="max_tool_calls"):
        way.charge(run, "search", 0)


def test_what_is_tracked_is_handed_through() -> None:
    run = session("$0.10")
    rows = ["a", "b"]
    assert run.track(rows, cost=0.01, tool="serp_api") is rows
    assert run.report().breakdown.tools.by_tool["serp_api"].total == Decimal("0.01")
    with pytest.raises(BudgetExceeded):
        run.track(rows, cost=0.10, tool="serp_api")
    assert run.spent_usd == Decimal("0.11")


def test_a_thousand_tracked_dimes_are_a_hundred_dollars() -> None:
    run = session("$100")
    for _ in range(1_000):
        run.charge("search", 0.1)
    assert (run.spent_usd, run.remaining_usd) == (Decimal(100), ZERO)


def test_the_ledger_is_asked_once_about_each_tool_call(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    held = note_holds(monkeypatch, lambda: 0)
    run = session(Budget(max_tool_calls=1, max_wait_s=0))
    actions = [way.authorize(run, ToolCall("search")).action for _ in range(3)]
    assert (actions, len(held)) == (["allow", "block", "block"], 3)
