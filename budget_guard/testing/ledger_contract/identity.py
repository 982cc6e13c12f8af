"""Rules of ids: the same parameters get the same answer, others change nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from budget_guard.errors import ReservationConflict, UnknownReservation
from budget_guard.ledger.base import HELD, Ledger, Settled
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
from budget_guard.units.amounts import NOTHING, Amounts
from budget_guard.units.scope import Scope

VERBS: dict[str, Callable[[Ledger, str], Any]] = {
    "reserve": lambda ledger, each: ledger.reserve(each, (RUN,), cost(5), cost(5)),
    "forward": lambda ledger, each: ledger.forward(each),
    "extend": lambda ledger, each: ledger.extend(each, 60),
    "commit": lambda ledger, each: ledger.commit(each, (RUN,), cost(5)),
    "release": lambda ledger, each: ledger.release(each, (RUN,)),
    "charge": lambda ledger, each: ledger.charge(each, (RUN,), cost(5)),
    "adjust": lambda ledger, each: ledger.adjust(each, RUN, cost(5), "credit note"),
}
"""Every verb that takes an id, with the same parameters."""


class IdentityRules(LedgerFixtures):
    """Rule 2."""

    def test_the_same_reserve_again_gets_the_same_answer_and_holds_once(self, ledger: Ledger, ids: Ids) -> None:
        for _ in range(3):
            assert ledger.reserve(ids("h"), BOTH, cost(60), cost(60)) == HELD
        assert balance_of(ledger, RUN).reserved == cost(60)
        assert balance_of(ledger, RUN).open_holds == 1

    @pytest.mark.parametrize(
        ("scopes", "amounts"),
        [(BOTH, cost(61)), (BOTH, Amounts(cost=60, requests=1)), ((RUN,), cost(60)), ((RUN, OTHER), cost(60))],
    )
    def test_the_same_id_with_other_parameters_is_a_conflict_that_changes_nothing(
        self, ledger: Ledger, ids: Ids, scopes: tuple[Scope, ...], amounts: Amounts
    ) -> None:
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60))
        before = ledger.balances((RUN, USER, OTHER))
        with pytest.raises(ReservationConflict) as caught:
            ledger.reserve(ids("h"), scopes, amounts, None)
        assert caught.value.reservation_id == ids("h")
        assert ledger.balances((RUN, USER, OTHER)) == before

    def test_the_scopes_of_a_hold_are_its_own(self, ledger: Ledger, ids: Ids) -> None:
        scopes = [RUN, USER]
        ledger.reserve(ids("h"), scopes, cost(10), cost(10))
        scopes.clear()
        ledger.release(ids("h"), BOTH)
        assert [balance.reserved for balance in ledger.balances(BOTH)] == [NOTHING, NOTHING]

    def test_a_commit_again_is_booked_once_and_says_so(self, ledger: Ledger, ids: Ids) -> None:
        spend(ledger, ids, "h", 60)
        spend(ledger, ids, "h2", 10)
        assert own(ledger.commit(ids("h"), BOTH, cost(60))) == Settled(cost(70), cost(60), False)
        assert balance_of(ledger, RUN).committed == cost(70)

    def test_a_commit_of_other_amounts_is_a_conflict_that_changes_nothing(self, ledger: Ledger, ids: Ids) -> None:
        spend(ledger, ids, "h", 60)
        with pytest.raises(ReservationConflict):
            ledger.commit(ids("h"), BOTH, cost(61))
        assert balance_of(ledger, RUN).committed == cost(60)

    @pytest.mark.parametrize("verb", ["forward", "extend"])
    def test_an_unknown_id_is_an_error_that_names_it_and_changes_nothing(
        self, ledger: Ledger, ids: Ids, verb: str
    ) -> None:
        arguments = (60,) if verb == "extend" else ()
        with pytest.raises(UnknownReservation, match="ghost"):
            getattr(ledger, verb)(ids("ghost"), *arguments)
        assert figures(ledger, RUN) == (0, 0, 0)

    def test_a_release_that_overtakes_its_reserve_keeps_it_from_holding(self, ledger: Ledger, ids: Ids) -> None:
        assert ledger.release(ids("h"), BOTH) is False
        with pytest.raises(ReservationConflict):
            ledger.reserve(ids("h"), BOTH, cost(25), cost(25))
        assert figures(ledger, RUN) == (0, 0, 0)

    @pytest.mark.parametrize("verb", ["commit", "release"])
    def test_a_hold_is_settled_in_its_own_scopes_or_not_at_all(self, ledger: Ledger, ids: Ids, verb: str) -> None:
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60))
        for others in ((RUN,), (USER, RUN), (RUN, OTHER)):
            with pytest.raises(ReservationConflict):
                if verb == "commit":
                    ledger.commit(ids("h"), others, cost(25))
                else:
                    ledger.release(ids("h"), others)
        assert figures(ledger, RUN) == figures(ledger, USER) == (0, 60, 1)
        assert figures(ledger, OTHER) == (0, 0, 0)

    @pytest.mark.parametrize("amounts", [cost(25), NOTHING], ids=["something", "nothing"])
    @pytest.mark.parametrize("first", ["commit", "release"])
    def test_a_reserve_that_comes_last_holds_nothing(
        self, ledger: Ledger, ids: Ids, first: str, amounts: Amounts
    ) -> None:
        if first == "commit":
            ledger.commit(ids("h"), BOTH, amounts)
        else:
            ledger.release(ids("h"), BOTH)
        before = ledger.balances(BOTH)
        with pytest.raises(ReservationConflict):
            ledger.reserve(ids("h"), BOTH, amounts, amounts)
        assert ledger.balances(BOTH) == before

    def test_a_release_that_overtook_its_reserve_leaves_a_later_commit_its_charge(
        self, ledger: Ledger, ids: Ids
    ) -> None:
        ledger.release(ids("h"), BOTH)
        ledger.commit(ids("h"), BOTH, cost(25))
        assert figures(ledger, RUN) == (25, 0, 0)

    @pytest.mark.parametrize("first", ["reserve", "charge", "adjust"])
    @pytest.mark.parametrize("then", VERBS)
    def test_the_id_of_a_hold_a_charge_or_an_adjustment_is_that_alone(
        self, ledger: Ledger, ids: Ids, first: str, then: str
    ) -> None:
        VERBS[first](ledger, ids("h"))
        before = ledger.balances(BOTH)
        kinds = {"charge": "charge", "adjust": "adjust"}
        if kinds.get(first, "hold") == kinds.get(then, "hold"):
            VERBS[then](ledger, ids("h"))
        else:
            with pytest.raises(ReservationConflict) as caught:
                VERBS[then](ledger, ids("h"))
            assert caught.value.reservation_id == ids("h")
            assert ledger.balances(BOTH) == before

    @pytest.mark.parametrize("verb", VERBS)
    def test_every_verb_may_be_repeated(self, ledger: Ledger, ids: Ids, verb: str) -> None:
        if verb in ("forward", "extend"):
            VERBS["reserve"](ledger, ids("h"))
        VERBS[verb](ledger, ids("h"))
        before = ledger.balances(BOTH)
        for _ in range(3):
            VERBS[verb](ledger, ids("h"))
        assert ledger.balances(BOTH) == before

    def test_a_refused_hold_is_no_hold(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("h"), BOTH, cost(101), cost(101))
        with pytest.raises(UnknownReservation):
            ledger.forward(ids("h"))
