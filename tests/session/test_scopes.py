"""Several ceilings at once: a run's own, its user's, its team's. The lowest one holds."""

from __future__ import annotations

from decimal import Decimal

from budget_guard import Budget, BudgetExceeded, BudgetRevoked, MemoryLedger, Scope, Session
from budget_guard.events import SoftLimitReached
from budget_guard.units.amounts import Limits
from tests.builders import Way, call, session

USER, TEAM = Scope("user", "u1"), Scope("team", "t1")


def blocked_by(way: Way, run: Session) -> tuple[str, str] | None:
    error = way.authorize(run, call()).error
    return (error.dimension, error.scope) if isinstance(error, BudgetExceeded) else None


def shared(user: Limits, team: Limits | None = None) -> MemoryLedger:
    ledger = MemoryLedger()
    ledger.set_limits(USER, user)
    ledger.set_limits(TEAM, team or Limits())
    return ledger


def test_every_scope_has_its_own_ceiling_and_the_lowest_one_holds(way: Way) -> None:
    ledger = shared(Limits(cost=250_000_000), Limits(requests=3))
    runs = [session("$1.00", ledger=ledger, scopes=scopes) for scopes in [(USER, TEAM), (USER,), (TEAM,)]]
    way.pay(runs[0], call())
    way.pay(runs[1], call())
    assert blocked_by(way, runs[0]) == blocked_by(way, runs[1]) == ("max_cost_usd", "user:u1")
    way.pay(runs[2], call())
    way.pay(runs[2], call())
    assert blocked_by(way, runs[2]) == ("max_requests", "team:t1")
    assert [run.spent_usd for run in runs] == [Decimal("0.10"), Decimal("0.10"), Decimal("0.20")]
    assert [balance.committed.requests for balance in ledger.balances((USER, TEAM))] == [2, 3]
    assert runs[0].decisions()[0].scopes == (f"run:{runs[0].id}", "user:u1", "team:t1")


def test_a_dollar_limit_of_another_scope_needs_prices_too(way: Way) -> None:
    run = session(Budget(max_requests=5), ledger=shared(Limits(cost=10**9)), scopes=(USER,))
    assert way.authorize(run, call("nobody-knows", cap=5)).action == "block"


def test_the_soft_limit_of_another_scope_is_warned_of_at_the_next_call(way: Way) -> None:
    run = session(Budget("$9"), ledger=shared(Limits(cost=10**9)), scopes=(USER,))
    way.charge(run, "tool", "$0.90")
    for _ in range(2):
        way.authorize(run, call("penny"))
    assert [(e.scope, e.dimension) for e in run.events() if isinstance(e, SoftLimitReached)] == [
        ("user:u1", "max_cost_usd")
    ]


def test_the_soft_limit_of_another_scope_is_warned_of_when_a_call_is_settled(way: Way) -> None:
    run = session(Budget("$9"), ledger=shared(Limits(cost=10**9)), scopes=(USER,))
    others = session(Budget("$9"), ledger=run.ledger, scopes=(USER,))
    way.charge(others, "tool", "$0.80")
    for _ in range(2):
        way.pay(run, call("dime"))
    assert [(e.scope, e.dimension, e.fraction) for e in run.events() if isinstance(e, SoftLimitReached)] == [
        ("user:u1", "max_cost_usd", 0.9)
    ]


def test_a_revoked_user_is_refused_in_every_run_and_no_other_user(way: Way) -> None:
    ledger = shared(Limits())
    mine, others = session(ledger=ledger, scopes=(USER,)), session(ledger=ledger)
    ledger.revoke(USER, "compromised")
    error = way.authorize(mine, call()).error
    assert isinstance(error, BudgetRevoked) and error.scope == "user:u1"
    assert way.authorize(others, call()).action == "allow"


def test_a_run_that_is_resumed_goes_on_where_it_stopped(way: Way) -> None:
    ledger = MemoryLedger()
    first = session("$0.25", ledger=ledger, run_id="r1")
    way.pay(first, call())
    second = session("$0.25", ledger=ledger, run_id="r1")
    way.pay(second, call())
    assert second.spent_usd == Decimal("0.20")
    assert blocked_by(way, second) == ("max_cost_usd", "run:r1")


def test_an_answer_cut_off_names_the_ceiling_that_cut_it(way: Way) -> None:
    run = session(Budget(max_requests=5), ledger=shared(Limits(cost=40_100_000)), scopes=(USER,))
    error = way.reserve(run, call("large")).cut_short()
    assert isinstance(error, BudgetExceeded)
    assert (error.dimension, error.scope, error.limit) == ("max_cost_usd", "user:u1", Decimal("0.0401"))
