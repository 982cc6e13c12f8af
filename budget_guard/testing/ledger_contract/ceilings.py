"""Rules of ceilings: setting them, opening a scope, and cutting it off."""

from __future__ import annotations

import pytest

from budget_guard.errors import ForeignRun
from budget_guard.ledger.base import HELD, Ledger, Refused, Revoked
from budget_guard.testing.clock import FakeClock
from budget_guard.testing.ledger_contract.fixtures import (
    BOTH,
    OTHER,
    RUN,
    USER,
    Ids,
    LedgerFixtures,
    balance_of,
    cost,
    figures,
    spend,
)
from budget_guard.units.amounts import NOTHING, Limits
from budget_guard.units.scope import Scope


class CeilingRules(LedgerFixtures):
    """The verbs `set_limits`, `revoke` and `restore`."""

    def test_raised_limits_hold_at_once(self, ledger: Ledger, ids: Ids) -> None:
        spend(ledger, ids, "h", 100)
        ledger.set_limits(RUN, Limits(cost=150))
        balance = balance_of(ledger, RUN)
        assert (balance.limits, balance.committed) == (Limits(cost=150), cost(100))
        assert ledger.reserve(ids("h2"), BOTH, cost(50), cost(50)) == HELD

    def test_a_revoked_scope_is_refused_and_no_other(self, ledger: Ledger, ids: Ids, clock: FakeClock) -> None:
        clock.advance(5)
        ledger.revoke(USER, "compromised")
        expected = Revoked(USER, "compromised", clock.now())
        clock.advance(5)
        ledger.revoke(USER, "again")
        assert ledger.reserve(ids("h"), BOTH, cost(1), cost(1)) == expected
        assert ledger.reserve(ids("h"), BOTH, cost(1), None) == expected
        assert balance_of(ledger, USER).revoked == expected
        assert balance_of(ledger, RUN).reserved == NOTHING
        assert ledger.reserve(ids("h2"), (RUN, OTHER), cost(1), cost(1)) == HELD

    def test_what_is_in_flight_settles_after_a_revocation(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60))
        ledger.revoke(USER, "compromised")
        assert ledger.reserve(ids("h"), BOTH, cost(60), cost(60)) == HELD
        ledger.commit(ids("h"), BOTH, cost(25))
        assert ledger.charge(ids("c"), BOTH, cost(5)) is None
        assert figures(ledger, USER) == (30, 0, 0)

    def test_a_scope_may_be_revoked_before_it_is_opened(self, ledger: Ledger, ids: Ids) -> None:
        early = Scope("key", "k")
        ledger.revoke(early, "leaked")
        balance = balance_of(ledger, early)
        assert (balance.limits, balance.revoked and balance.revoked.reason) == (Limits(), "leaked")
        ledger.set_limits(early, Limits(cost=10))
        assert isinstance(ledger.reserve(ids("h"), (early,), cost(1), cost(1)), Revoked)

    def test_a_lowered_limit_refuses_what_is_above_it_and_keeps_what_is_held(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("open"), BOTH, cost(60), cost(60))
        ledger.set_limits(RUN, Limits(cost=50))
        refused = ledger.reserve(ids("h"), BOTH, NOTHING, NOTHING)
        assert isinstance(refused, Refused)
        assert refused.left.cost == -10
        assert figures(ledger, RUN) == (0, 60, 1)

    def test_limits_may_be_added_and_taken_away(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("open"), BOTH, cost(60), cost(60))
        ledger.set_limits(RUN, Limits(requests=3))
        assert ledger.reserve(ids("h"), BOTH, cost(900), cost(900)) == HELD
        ledger.set_limits(RUN, Limits(cost=961))
        assert isinstance(ledger.reserve(ids("h2"), BOTH, cost(2), cost(2)), Refused)
        assert ledger.reserve(ids("h3"), BOTH, cost(1), cost(1)) == HELD

    def test_a_run_belongs_to_whoever_opened_it(self, ledger: Ledger, ids: Ids) -> None:
        run = Scope("run", "owned")
        ledger.set_limits(run, Limits(cost=10), owner="alice")
        for stranger in ("bob", ""):
            with pytest.raises(ForeignRun, match="run:owned"):
                ledger.set_limits(run, Limits(cost=1_000), "day", owner=stranger)
        balance = balance_of(ledger, run)
        assert (balance.limits, balance.window) == (Limits(cost=10), "none")
        ledger.set_limits(run, Limits(cost=20), owner="alice")
        assert ledger.reserve(ids("h"), (run,), cost(20), cost(20)) == HELD

    def test_a_scope_that_was_revoked_before_it_is_opened_belongs_to_nobody_yet(self, ledger: Ledger) -> None:
        ledger.revoke(Scope("run", "r2"), "leaked")
        ledger.set_limits(Scope("run", "r2"), Limits(cost=10), owner="alice")
        with pytest.raises(ForeignRun):
            ledger.set_limits(Scope("run", "r2"), Limits(cost=10), owner="bob")

    def test_a_note_is_kept_with_the_limits_and_replaced_with_them(self, ledger: Ledger, ids: Ids) -> None:
        spend(ledger, ids, "h", 60)
        assert balance_of(ledger, USER).note == ""
        ledger.set_limits(USER, Limits(cost=2_000), note="pro \u20ac")
        spend(ledger, ids, "h2", 1)
        balance = balance_of(ledger, USER)
        assert (balance.note, balance.limits, balance.committed) == ("pro \u20ac", Limits(cost=2_000), cost(61))
        ledger.set_limits(USER, Limits(cost=3_000))
        assert balance_of(ledger, USER).note == ""

    def test_what_is_revoked_can_be_restored(self, ledger: Ledger, ids: Ids, clock: FakeClock) -> None:
        ledger.revoke(USER, "compromised")
        assert ledger.restore(USER) is True
        assert ledger.restore(USER) is False
        assert balance_of(ledger, USER).revoked is None
        assert ledger.reserve(ids("h"), BOTH, cost(1), cost(1)) == HELD
        ledger.revoke(USER, "again")
        assert ledger.reserve(ids("h2"), BOTH, cost(1), cost(1)) == Revoked(USER, "again", clock.now())

    def test_what_was_never_revoked_cannot_be_restored(self, ledger: Ledger) -> None:
        assert ledger.restore(USER) is False
        assert ledger.restore(Scope("user", "nobody")) is False

    def test_a_revoked_scope_keeps_its_limits_and_counters(self, ledger: Ledger, ids: Ids) -> None:
        spend(ledger, ids, "h", 60)
        ledger.revoke(USER, "compromised")
        ledger.set_limits(USER, Limits(cost=2_000))
        balance = balance_of(ledger, USER)
        assert (balance.limits, balance.committed) == (Limits(cost=2_000), cost(60))
        assert isinstance(ledger.reserve(ids("h2"), BOTH, cost(1), cost(1)), Revoked)
        assert figures(ledger, OTHER) == (0, 0, 0)
