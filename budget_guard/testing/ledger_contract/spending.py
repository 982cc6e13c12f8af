"""Money that was spent without asking, and what is corrected by hand."""

from __future__ import annotations

import pytest

from budget_guard.errors import ReservationConflict
from budget_guard.ledger.base import HELD, Ledger, Refused
from budget_guard.testing.ledger_contract.fixtures import (
    BOTH,
    RUN,
    USER,
    Ids,
    LedgerFixtures,
    balance_of,
    cost,
    figures,
    spend,
)
from budget_guard.units.amounts import NOTHING, Amounts
from budget_guard.units.scope import Scope


class SpendingRules(LedgerFixtures):
    """The verbs `charge` and `adjust`."""

    def test_a_charge_is_always_booked_and_names_the_limit_that_is_passed(self, ledger: Ledger, ids: Ids) -> None:
        assert ledger.charge(ids("c1"), BOTH, cost(100)) is None
        passed = ledger.charge(ids("c2"), BOTH, cost(1))
        assert passed is not None
        assert (passed.scope, passed.dimension, passed.limit, passed.committed) == (RUN, 0, 100, 101)
        assert [balance.committed.cost for balance in ledger.balances(BOTH)] == [101, 101]

    def test_whom_a_charge_tells_of_a_limit_may_wait_for_room(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60))
        passed = ledger.charge(ids("c"), BOTH, cost(80))
        assert passed is not None
        ledger.commit(ids("h"), BOTH, cost(10))
        assert ledger.await_room(passed.version, 60) is True

    def test_a_charge_again_is_booked_once(self, ledger: Ledger, ids: Ids) -> None:
        for _ in range(2):
            assert ledger.charge(ids("c"), BOTH, cost(30)) is None
        assert balance_of(ledger, RUN).committed == cost(30)
        with pytest.raises(ReservationConflict):
            ledger.charge(ids("c"), BOTH, cost(31))

    @pytest.mark.parametrize("other", [(cost(30), (RUN,)), (cost(31), BOTH)])
    def test_a_charge_again_with_other_parameters_is_a_conflict(
        self, ledger: Ledger, ids: Ids, other: tuple[Amounts, tuple[Scope, ...]]
    ) -> None:
        ledger.charge(ids("c"), BOTH, cost(30))
        with pytest.raises(ReservationConflict):
            ledger.charge(ids("c"), other[1], other[0])
        assert figures(ledger, RUN) == figures(ledger, USER) == (30, 0, 0)

    def test_a_charge_in_a_scope_that_was_never_opened_books_nothing(self, ledger: Ledger, ids: Ids) -> None:
        with pytest.raises(KeyError):
            ledger.charge(ids("c"), (RUN, Scope("user", "nobody")), cost(30))
        with pytest.raises(KeyError):
            ledger.commit(ids("lost"), (RUN, Scope("user", "nobody")), cost(30))
        assert figures(ledger, RUN) == (0, 0, 0)

    def test_an_adjustment_lowers_or_raises_one_scope_once(self, ledger: Ledger, ids: Ids) -> None:
        spend(ledger, ids, "h", 60)
        for _ in range(2):
            assert ledger.adjust(ids("credit"), RUN, Amounts(cost=-20), "credit note") == cost(40)
        assert ledger.adjust(ids("debit"), RUN, Amounts(cost=5, requests=1), "late bill") == Amounts(45, requests=1)
        assert balance_of(ledger, RUN).committed == Amounts(45, requests=1)
        assert figures(ledger, USER) == (60, 0, 0)

    def test_an_adjustment_gives_room(self, ledger: Ledger, ids: Ids) -> None:
        spend(ledger, ids, "h", 100)
        refused = ledger.reserve(ids("next"), BOTH, cost(20), cost(20))
        assert isinstance(refused, Refused)
        ledger.adjust(ids("credit"), RUN, Amounts(cost=-20), "credit note")
        assert ledger.await_room(refused.version, 60) is True
        assert ledger.reserve(ids("next"), BOTH, cost(20), cost(20)) == HELD

    def test_an_adjustment_again_with_other_parameters_is_a_conflict(self, ledger: Ledger, ids: Ids) -> None:
        ledger.adjust(ids("a"), RUN, cost(20), "late bill")
        with pytest.raises(ReservationConflict):
            ledger.adjust(ids("a"), RUN, cost(21), "late bill")
        with pytest.raises(ReservationConflict):
            ledger.adjust(ids("a"), USER, cost(20), "late bill")
        assert figures(ledger, RUN) == (20, 0, 0)
        assert figures(ledger, USER) == (0, 0, 0)

    def test_an_adjustment_never_leaves_less_than_nothing(self, ledger: Ledger, ids: Ids) -> None:
        spend(ledger, ids, "h", 60)
        for change in (Amounts(cost=-61), Amounts(cost=-1, requests=-1)):
            with pytest.raises(ValueError, match="-1"):
                ledger.adjust(ids("a"), RUN, change, "credit note")
        assert balance_of(ledger, RUN).committed == cost(60)
        assert ledger.adjust(ids("a"), RUN, Amounts(cost=-60), "credit note") == NOTHING
        with pytest.raises(KeyError):
            ledger.adjust(ids("b"), Scope("user", "nobody"), cost(1), "late bill")
