"""Rules of settling: a hold is committed or released, and what was spent is charged in any case."""

from __future__ import annotations

import pytest

from budget_guard.errors import ReservationConflict
from budget_guard.ledger.base import Ledger, Refused, ScopeSpend, Settled
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
    own,
    spend,
)
from budget_guard.units.amounts import NOTHING, Amounts, Limits


class SettlingRules(LedgerFixtures):
    """Rules 3 and 4."""

    def test_a_commit_books_what_was_spent_and_frees_the_rest(self, ledger: Ledger, ids: Ids) -> None:
        held, spent = Amounts(60, 50, 40, 90, 1, 0), Amounts(25, 20, 10, 30, 1, 0)
        ledger.reserve(ids("h"), BOTH, held, held)
        assert own(ledger.commit(ids("h"), BOTH, spent)) == Settled(spent, spent, False)
        for balance in ledger.balances(BOTH):
            assert (balance.committed, balance.reserved, balance.open_holds) == (spent, NOTHING, 0)

    def test_a_commit_tells_what_is_spent_in_the_scopes_above_and_their_limits(self, ledger: Ledger, ids: Ids) -> None:
        scopes = (*BOTH, OTHER)
        ledger.set_limits(OTHER, Limits(cost=None, requests=7))
        spend(ledger, ids, "before", 15, (USER,))
        ledger.reserve(ids("h"), scopes, cost(60), None)
        settled = ledger.commit(ids("h"), scopes, cost(25))
        balances = ledger.balances(scopes)
        assert settled.above == tuple(ScopeSpend(each.committed, each.limits) for each in balances[1:])
        assert [each.committed.cost for each in balances] == [25, 40, 25]

    def test_a_commit_tells_the_dollars_left_in_the_tightest_scope_or_nothing(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("in flight"), (RUN,), cost(40), None)
        ledger.reserve(ids("h"), BOTH, cost(30), None)
        assert ledger.commit(ids("h"), BOTH, cost(25)).cost_left in (None, 100 - 40 - 25)
        ledger.set_limits(USER, Limits(cost=20))
        assert ledger.commit(ids("h"), BOTH, cost(25)).cost_left in (None, 20 - 25)
        ledger.set_limits(USER, Limits(requests=9))
        ledger.set_limits(RUN, Limits())
        assert ledger.commit(ids("h"), BOTH, cost(25)).cost_left is None

    def test_a_commit_above_the_hold_is_charged_in_full(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60))
        assert own(ledger.commit(ids("h"), BOTH, cost(160))) == Settled(cost(160), cost(160), False)
        assert balance_of(ledger, RUN).committed == cost(160)
        assert isinstance(ledger.reserve(ids("next"), BOTH, NOTHING, NOTHING), Refused)

    def test_a_release_gives_the_whole_hold_back_once(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60))
        ledger.reserve(ids("other"), BOTH, cost(30), cost(30))
        assert ledger.release(ids("h"), BOTH) is True
        assert ledger.release(ids("h"), BOTH) is False
        for balance in ledger.balances(BOTH):
            assert (balance.committed, balance.reserved, balance.open_holds) == (NOTHING, cost(30), 1)

    def test_a_release_after_the_commit_does_nothing(self, ledger: Ledger, ids: Ids) -> None:
        spend(ledger, ids, "h", 60)
        assert ledger.release(ids("h"), BOTH) is False
        assert balance_of(ledger, RUN).committed == cost(60)
        assert balance_of(ledger, RUN).reserved == NOTHING

    def test_a_commit_after_the_release_is_charged_all_the_same(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60))
        ledger.release(ids("h"), BOTH)
        ledger.commit(ids("h"), BOTH, cost(25))
        for balance in ledger.balances(BOTH):
            assert (balance.committed, balance.reserved, balance.open_holds) == (cost(25), NOTHING, 0)

    def test_a_forwarded_hold_settles_like_any_other(self, ledger: Ledger, ids: Ids) -> None:
        for name in ("paid", "free"):
            ledger.reserve(ids(name), BOTH, cost(40), cost(40))
            ledger.forward(ids(name))
            ledger.forward(ids(name))
        assert balance_of(ledger, RUN).reserved == cost(80)
        ledger.commit(ids("paid"), BOTH, cost(25))
        assert ledger.release(ids("free"), BOTH) is True
        ledger.forward(ids("paid"))
        assert ledger.release(ids("paid"), BOTH) is False
        assert figures(ledger, RUN) == (25, 0, 0)

    def test_an_estimate_is_replaced_by_the_actual_amounts_once(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60))
        assert own(ledger.commit(ids("h"), BOTH, cost(60), uncertain=True)) == Settled(cost(60), cost(60), True)
        assert own(ledger.commit(ids("h"), BOTH, cost(25))) == Settled(cost(25), cost(25), False)
        for balance in ledger.balances(BOTH):
            assert (balance.committed, balance.reserved) == (cost(25), NOTHING)
        with pytest.raises(ReservationConflict):
            ledger.commit(ids("h"), BOTH, cost(26))

    def test_an_estimate_again_is_booked_once(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60))
        ledger.commit(ids("h"), BOTH, cost(60), uncertain=True)
        assert own(ledger.commit(ids("h"), BOTH, cost(60), uncertain=True)) == Settled(cost(60), cost(60), True)
        assert balance_of(ledger, RUN).committed == cost(60)

    def test_an_estimate_never_replaces_what_was_booked_for_certain(self, ledger: Ledger, ids: Ids) -> None:
        spend(ledger, ids, "h", 25)
        assert own(ledger.commit(ids("h"), BOTH, cost(60), uncertain=True)) == Settled(cost(25), cost(25), False)
        assert balance_of(ledger, RUN).committed == cost(25)

    def test_an_actual_amount_equal_to_the_estimate_makes_it_certain(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60))
        ledger.commit(ids("h"), BOTH, cost(60), uncertain=True)
        assert own(ledger.commit(ids("h"), BOTH, cost(60))) == Settled(cost(60), cost(60), False)
        with pytest.raises(ReservationConflict):
            ledger.commit(ids("h"), BOTH, cost(61))
        assert balance_of(ledger, RUN).committed == cost(60)

    def test_a_lost_hold_is_charged_all_the_same(self, ledger: Ledger, ids: Ids) -> None:
        assert own(ledger.commit(ids("lost"), BOTH, cost(25))) == Settled(cost(25), cost(25), False)
        assert [balance.committed for balance in ledger.balances(BOTH)] == [cost(25), cost(25)]

    def test_a_lost_hold_may_be_an_estimate_that_is_replaced(self, ledger: Ledger, ids: Ids) -> None:
        assert own(ledger.commit(ids("lost"), BOTH, cost(60), uncertain=True)) == Settled(cost(60), cost(60), True)
        assert own(ledger.commit(ids("lost"), BOTH, cost(25))) == Settled(cost(25), cost(25), False)
        assert figures(ledger, RUN) == (25, 0, 0)

    def test_an_estimate_after_the_release_is_charged_and_replaced(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60))
        ledger.release(ids("h"), BOTH)
        ledger.commit(ids("h"), BOTH, cost(60), uncertain=True)
        ledger.commit(ids("h"), BOTH, cost(25))
        assert figures(ledger, RUN) == (25, 0, 0)

    def test_a_commit_of_nothing_frees_the_hold(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60))
        assert own(ledger.commit(ids("h"), BOTH, NOTHING)) == Settled(NOTHING, NOTHING, False)
        assert figures(ledger, RUN) == (0, 0, 0)
