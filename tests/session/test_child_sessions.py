"""A child session has a part of its parent's money: all of it, no more, and nobody else has it meanwhile."""

from __future__ import annotations

import asyncio
import logging
from decimal import Decimal
from typing import Any

import pytest

from budget_guard import (
    Budget,
    BudgetAuthority,
    BudgetExceeded,
    BudgetRevoked,
    ForeignRun,
    MemoryLedger,
    Session,
    ToolCall,
    Usage,
)
from budget_guard.events import ChildClosed, ChildOpened
from budget_guard.testing import FakeClock
from tests.builders import PRICES, ZERO, Way, call, session


class Family:
    """Opens and closes children in one of the two ways."""

    def __init__(self, awaits: bool) -> None:
        self._awaits = awaits

    def child(self, parent: Session, budget: Budget | str, run_id: str | None = None) -> Session:
        budget = budget if isinstance(budget, Budget) else Budget(budget)
        return asyncio.run(parent.achild(budget, run_id)) if self._awaits else parent.child(budget, run_id)

    def close(self, child: Session) -> None:
        asyncio.run(child.aclose()) if self._awaits else child.close()


@pytest.fixture(params=[False, True], ids=["blocking", "awaiting"])
def family(request: pytest.FixtureRequest) -> Family:
    return Family(request.param)


def usd(run: Session) -> tuple[Decimal, Decimal, Decimal | None]:
    return run.spent_usd, run.reserved_usd, run.remaining_usd


def money(*amounts: str) -> tuple[Decimal, ...]:
    return tuple(map(Decimal, amounts))


def blocked(way: Way, run: Session) -> Any:
    return way.authorize(run, call()).error


def test_the_parents_money_is_held_while_the_child_is_open_and_the_rest_comes_back(way: Way, family: Family) -> None:
    parent = session("$1.00")
    child = family.child(parent, "$0.40")
    assert usd(parent) == money("0", "0.40", "0.60")
    way.pay(child, call())
    assert (usd(parent), usd(child)) == (money("0", "0.40", "0.60"), money("0.10", "0", "0.30"))
    family.close(child)
    assert usd(parent) == money("0.10", "0", "0.90")


def test_neither_can_spend_what_is_the_others(way: Way, family: Family) -> None:
    parent = session("$0.40")
    child = family.child(parent, "$0.20")
    for run in (parent, child):
        way.pay(run, call())
        way.pay(run, call())
        error = blocked(way, run)
        assert isinstance(error, BudgetExceeded) and error.scope == f"run:{run.id}"
    family.close(child)
    assert usd(parent) == money("0.40", "0", "0")


def test_a_child_that_asks_for_more_than_is_left_is_refused_and_holds_nothing(way: Way, family: Family) -> None:
    parent = session("$1.00")
    way.pay(parent, call())
    with pytest.raises(BudgetExceeded) as caught:
        family.child(parent, "$0.95")
    error = caught.value
    assert (error.dimension, error.scope, error.estimate) == ("max_cost_usd", f"run:{parent.id}", Decimal("0.95"))
    assert error.report is not None and error.report.session_id == parent.id
    assert usd(parent) == money("0.10", "0", "0.90")


def test_what_the_parent_keeps_back_for_its_final_answer_is_not_given_away(way: Way, family: Family) -> None:
    parent = session(Budget("$1.00", finalization_reserve="$0.20"))
    with pytest.raises(BudgetExceeded, match="kept back"):
        family.child(parent, "$0.90")
    family.child(parent, "$0.80")


def test_it_is_held_in_every_ceiling_above(way: Way, family: Family) -> None:
    authority = BudgetAuthority(ceilings={"user": Budget("$0.50")}, pricing=PRICES)
    parent = authority.session(Budget("$5"), user="u1", feature="f")
    child = family.child(parent, "$0.40")
    assert child.report().tags == {"user": "u1", "feature": "f"}
    assert authority.snapshot("user", "u1").reserved_usd == Decimal("0.40")
    with pytest.raises(BudgetExceeded, match="user:u1"):
        family.child(parent, "$0.20")
    decision = way.authorize(child, call())
    way.commit(decision.require(), Usage())
    assert decision in authority.decisions("run", child.id)
    family.close(child)
    assert authority.snapshot("user", "u1").spent_usd == Decimal("0.10")
    assert authority.snapshot("user", "u1").reserved_usd == 0


def test_counts_and_tokens_are_held_and_booked_as_well(way: Way, family: Family) -> None:
    limits = {"max_requests": 4, "max_total_tokens": 10_000, "max_tool_calls": 3}
    parent = session(Budget("$1", **limits))  # type: ignore[arg-type]
    child = family.child(parent, Budget("$0.50", max_requests=2, max_total_tokens=6_000, max_tool_calls=1))
    held = parent.ledger.balances((parent.scope,))[0].reserved
    assert (held.requests, held.total_tokens, held.tool_calls) == (2, 6_000, 1)
    way.pay(child, call("large", tokens=100, cap=50), Usage(input=60, output=8))
    way.commit_cost(way.reserve(child, ToolCall("search", 10_000_000)), "$0.02")
    family.close(child)
    spent = parent.ledger.balances((parent.scope,))[0]
    assert spent.committed == (20_140_000, 60, 8, 68, 1, 1)
    assert set(spent.reserved) == {0}


@pytest.mark.parametrize("left_out", ["max_cost_usd", "max_requests"])
def test_a_limit_from_above_that_the_child_leaves_out_is_named(family: Family, left_out: str) -> None:
    parent = session(Budget("$1", max_requests=4))
    budget = Budget("$0.50", max_requests=2).replace(**{left_out: None})
    with pytest.raises(ValueError, match=f"{left_out}=None"):
        family.child(parent, budget)
    assert usd(parent)[1] == 0


def test_a_laxer_mode_than_the_parents_is_refused(family: Family) -> None:
    with pytest.raises(ValueError, match="mode='advisory_estimate'"):
        family.child(session("$1"), Budget("$0.50", mode="advisory_estimate"))
    lax = family.child(session(Budget("$1", mode="advisory_estimate")), Budget("$5", mode="advisory_estimate"))
    assert lax.budget.max_cost_usd == 5


def test_what_is_no_budget_is_refused() -> None:
    with pytest.raises(TypeError, match="is not a Budget"):
        session("$1").child("$0.50")  # type: ignore[arg-type]


def test_the_parents_report_shows_what_its_children_took(way: Way, family: Family) -> None:
    parent = session("$1.00")
    way.pay(parent, call("penny"))
    child = family.child(parent, "$0.50", "sub")
    grandchild = family.child(child, "$0.20", "sub-sub")
    way.pay(grandchild, call(agent="digger"))
    way.pay(child, call("penny"))
    way.charge(child, "search", "$0.05")
    for run in (grandchild, child, child):
        family.close(run)
    report = parent.report()
    assert report.total_spent == report.breakdown.llm.total + report.breakdown.tools.total == Decimal("0.17")
    assert {name: (s.total, s.calls) for name, s in report.breakdown.llm.by_model.items()} == {
        "penny": (Decimal("0.02"), 2),
        "dime": (Decimal("0.10"), 1),
    }
    assert report.by_agent["digger"].total == Decimal("0.10")
    assert {name: (s.total, s.calls) for name, s in report.by_child.items()} == {
        "sub": (Decimal("0.16"), 3),
        "sub-sub": (Decimal("0.10"), 1),
    }
    told = [e for e in parent.events() if isinstance(e, (ChildOpened, ChildClosed))]
    assert [(type(e), e.child_id) for e in told] == [(ChildOpened, "sub"), (ChildClosed, "sub")]
    assert isinstance(told[0], ChildOpened) and told[0].held_usd == Decimal("0.50")
    assert isinstance(told[1], ChildClosed) and told[1].cost_usd == Decimal("0.16") and not told[1].uncertain


def test_nothing_is_spent_from_a_child_that_is_closed(way: Way, family: Family) -> None:
    parent = session("$1.00")
    child = family.child(parent, "$0.50")
    family.close(child)
    error = blocked(way, child)
    assert isinstance(error, BudgetRevoked) and "closed" in error.reason
    assert usd(parent) == money("0", "0", "1")


def test_a_childs_name_is_used_once(family: Family) -> None:
    parent = session("$1.00")
    family.close(family.child(parent, "$0.10", "sub"))
    with pytest.raises(ForeignRun, match="run:sub"):
        family.child(parent, "$0.10", "sub")
    assert usd(parent) == money("0", "0", "1")


def test_a_childs_limits_cannot_be_raised() -> None:
    parent = session("$1.00")
    with pytest.raises(ValueError, match="child session"):
        parent.child(Budget("$0.10")).raise_limits(max_cost_usd="$0.20")


@pytest.mark.parametrize("kind", ["run", "user"])
def test_revoking_the_parent_or_its_user_stops_the_child(way: Way, family: Family, kind: str) -> None:
    authority = BudgetAuthority(pricing=PRICES)
    parent = authority.session(Budget("$1"), "r1", user="u1")
    grandchild = family.child(family.child(parent, "$0.50"), "$0.20")
    authority.revoke(kind, {"run": "r1", "user": "u1"}[kind], reason="compromised")
    error = blocked(way, grandchild)
    assert isinstance(error, BudgetRevoked) and error.reason == "compromised"
    with pytest.raises(BudgetRevoked, match="compromised"):
        family.child(parent, "$0.10")


def test_the_parents_time_is_the_childs_too(way: Way, family: Family) -> None:
    clock = FakeClock()
    parent = session(Budget("$1", max_duration_s=60), clock=clock)
    child = family.child(parent, "$0.50")
    assert blocked(way, child) is None
    clock.advance(61)
    error = blocked(way, child)
    assert isinstance(error, BudgetExceeded) and error.dimension == "max_duration_s"


def test_a_child_that_died_leaves_its_money_suspended(way: Way, family: Family) -> None:
    clock = FakeClock()
    ledger = MemoryLedger(clock=clock)
    authority = BudgetAuthority(ledger, pricing=PRICES, clock=clock, run_ttl_s=300)
    parent = authority.session(Budget("$1"))
    child = family.child(parent, "$0.40")
    for _ in range(3):  # as long as it calls, its time is not up
        clock.advance(200)
        way.pay(child, call("penny"))
    ledger.sweep()
    assert ledger.suspended() == []
    clock.advance(301)
    ledger.sweep()
    suspended = ledger.suspended()
    assert [s.amounts.cost for s in suspended] == [400_000_000]
    assert usd(parent) == money("0", "0.40", "0.60")
    way.pay(child, call("penny"))  # it lives after all
    assert ledger.suspended() == []
    family.close(child)
    assert usd(parent) == money("0.04", "0", "0.96")


def test_a_child_whose_money_was_settled_by_somebody_else_makes_no_further_call(way: Way, family: Family) -> None:
    clock = FakeClock()
    ledger = MemoryLedger(clock=clock)
    parent = session("$1", ledger=ledger, clock=clock)
    child = family.child(parent, "$0.40")
    way.pay(child, call())
    clock.advance(3_601)
    ledger.sweep()
    lost = ledger.suspended()[0]
    ledger.commit(lost.hold_id, lost.scopes, lost.amounts, True)
    error = blocked(way, child)
    assert isinstance(error, BudgetRevoked) and "settled by somebody else" in error.reason
    family.close(child)
    assert usd(parent) == money("0.10", "0", "0.90")  # what it really spent takes the estimate's place


def test_calls_in_flight_at_the_end_are_booked_as_estimates_until_it_is_closed_again(
    way: Way, family: Family, caplog: pytest.LogCaptureFixture
) -> None:
    parent = session("$1.00")
    child = family.child(parent, "$0.50")
    way.pay(child, call())
    late = way.reserve(child, call("large", tokens=100, cap=50))
    with caplog.at_level(logging.WARNING, "budget_guard"):
        family.close(child)
    assert "1 calls in flight" in caplog.text
    assert usd(parent) == money("0.1006", "0", "0.8994")
    way.commit(late, Usage(input=100))
    family.close(child)
    assert usd(parent) == money("0.1001", "0", "0.8999")
    assert parent.report().by_child[child.id].total == Decimal("0.1001")


def test_a_child_that_could_not_be_opened_gives_the_money_back(way: Way, family: Family) -> None:
    class Broken(MemoryLedger):
        def forward(self, hold_id: str) -> None:
            raise RuntimeError("out of order")

    parent = session("$1.00", ledger=Broken())
    with pytest.raises(RuntimeError):
        family.child(parent, "$0.50")
    assert usd(parent) == (ZERO, ZERO, Decimal(1))


async def test_it_is_closed_on_the_way_out_of_its_block_whatever_happens() -> None:
    parent = session("$1.00")
    with pytest.raises(KeyError), parent.child(Budget("$0.50")):
        raise KeyError
    with pytest.raises(asyncio.CancelledError):
        async with await parent.achild(Budget("$0.50")):
            raise asyncio.CancelledError
    assert usd(parent) == (ZERO, ZERO, Decimal(1))


def test_children_at_the_same_time_never_have_more_than_there_is(way: Way, family: Family) -> None:
    parent = session("$1.00")
    children = [family.child(parent, "$0.30") for _ in range(3)]
    with pytest.raises(BudgetExceeded):
        family.child(parent, "$0.30")
    for child in children:
        for _ in range(5):
            decision = way.authorize(child, call())
            if decision.reservation is not None:
                way.commit(decision.reservation, Usage())
    for child in children:
        family.close(child)
    assert usd(parent) == money("0.90", "0", "0.10")
