"""An authority in memory forgets ended runs, so that it can live as long as a server does."""

from __future__ import annotations

import gc
import sys
import threading
from decimal import Decimal

import pytest

from budget_guard import Budget, BudgetAuthority, BudgetExceeded, MemoryLedger, Usage
from budget_guard.calls.call import ToolCall
from budget_guard.errors import BudgetRevoked, ForeignRun
from budget_guard.ledger.memory import RETAINED_RUNS
from budget_guard.testing import FakeClock
from budget_guard.units.scope import AGENT_IN_RUN, Scope
from tests.builders import call, session

CENT = 10_000_000
ONE = Budget("$1.00")


def spend(authority: BudgetAuthority, run_id: str | None = None, cents: int = 1) -> str:
    """A run of one call, and its id."""
    with authority.session(ONE, run_id, user="u") as session:
        session.charge("search", Decimal(cents) / 100)  # leaves no decision: a log of these keeps the latest runs alive
        return session.id


def few(runs: int) -> BudgetAuthority:
    return BudgetAuthority(MemoryLedger(retain_runs=runs), ceilings={"user": Budget("$1000.00")})


@pytest.mark.parametrize("named", [False, True], ids=["with made-up names", "with names of their own"])
def test_25_000_runs_take_no_more_memory_than_5_000(named: bool) -> None:
    authority = BudgetAuthority(ceilings={"user": Budget("$1000.00")})

    def blocks_after(first: int, last: int) -> int:
        for number in range(first, last):
            spend(authority, f"run-{number}" if named else None)
        gc.collect()
        return sys.getallocatedblocks()

    after_5_000 = blocks_after(0, 5_000)
    assert blocks_after(5_000, 25_000) < 1.05 * after_5_000
    assert authority.snapshot("user", "u").spent_usd == 250
    assert authority.ledger.audit() == []


def test_a_run_can_be_gone_on_with_until_as_many_have_ended_since() -> None:
    assert RETAINED_RUNS == 4_000  # as the documentation says
    authority = few(20)
    spend(authority, "nightly", cents=60)
    for _ in range(20):
        spend(authority)
    with pytest.raises(BudgetExceeded):
        spend(authority, "nightly", cents=60)
    gc.collect()  # the error has kept the session
    for _ in range(25):
        spend(authority)
    spend(authority, "nightly", cents=60)
    with pytest.raises(KeyError, match="no run"):
        few(20).snapshot("run", "nightly")


def test_a_run_that_goes_on_is_remembered_however_many_end_meanwhile() -> None:
    authority = few(5)
    idle = authority.session(ONE, "idle", user="u")
    idle.charge("search", "0.60")
    second = authority.session(ONE, "idle", user="u")
    del second
    for _ in range(100):
        spend(authority)
    assert idle.authorize(ToolCall("search", 60 * CENT)).action == "block"
    assert authority.snapshot("run", "idle").spent_usd == idle.spent_usd


def test_a_run_with_a_hold_that_was_revoked_or_is_another_principals_is_not_forgotten() -> None:
    authority = few(5)
    held = authority.session(ONE, "held", user="u")
    hold = held.authorize(ToolCall("search", 5 * CENT), sent=True).reservation
    spend(authority, "revoked")
    authority.revoke("run", "revoked", reason="compromised")
    for _ in range(30):
        spend(authority)
    again = authority.session(ONE, "revoked", user="u").authorize(ToolCall("search", CENT))
    assert isinstance(again.error, BudgetRevoked)
    assert hold is not None
    hold.commit_cost()
    with pytest.raises(ForeignRun):
        authority.session(ONE, "held", user="another")
    assert authority.ledger.audit() == []


def test_children_are_forgotten_as_well() -> None:
    ledger = MemoryLedger(retain_runs=5)
    authority = BudgetAuthority(ledger, ceilings={"user": Budget("$1000.00")})
    parent = authority.session(Budget("$500.00"), user="u")
    for _ in range(50):
        with parent.child(ONE) as child:
            child.charge("search", "0.01")
    del child
    gc.collect()
    spend(authority)
    assert len([scope for scope in ledger._scopes if scope.kind == "run"]) < 12
    assert str(parent.spent_usd) == "0.5"
    assert ledger.audit() == []


def test_sessions_that_end_in_threads_lose_nothing() -> None:
    ledger = MemoryLedger(retain_runs=20, retain=100)
    authority = BudgetAuthority(ledger, ceilings={"user": Budget("$1000.00", window="day")})

    def work() -> None:
        for _ in range(200):
            spend(authority)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.balances((Scope("user", "u"),))[0].committed.cost == 1_200 * CENT
    assert ledger.audit() == []


def test_a_run_of_several_sessions_is_forgotten_once_all_of_them_have_ended() -> None:
    authority = few(5)
    both = [authority.session(ONE, "shared", user="u") for _ in range(2)]
    both[0].charge("search", "0.60")
    while both:
        both.pop()
        gc.collect()
        for _ in range(20):
            spend(authority)
        if both:
            assert authority.snapshot("run", "shared").spent_usd == Decimal("0.60")
    with pytest.raises(KeyError, match="no run"):
        authority.snapshot("run", "shared")


def test_the_cap_of_an_agent_is_kept_as_long_as_its_session_is() -> None:
    clock = FakeClock()
    ledger = MemoryLedger(clock=clock, retain_runs=2)
    budget = Budget("$1", agents={"Writer": Budget("$0.15")})
    run = session(budget, ledger=ledger, clock=clock, run_id="kept")
    run.authorize(call(agent="Writer")).require().commit(Usage())
    for number in range(6):
        other = session(budget, ledger=ledger, clock=clock, run_id=f"r{number}")
        other.authorize(call(agent="Writer")).require().commit(Usage())
        other.close()
        del other
        gc.collect()
        assert len(ledger.names(AGENT_IN_RUN)) <= 1 + 2 + 1  # and of those that have ended, no more than of runs
    refused = run.authorize(call(agent="Writer")).error
    assert (
        isinstance(refused, BudgetExceeded) and refused.limit == Decimal("0.15") and refused.actual == Decimal("0.10")
    )
