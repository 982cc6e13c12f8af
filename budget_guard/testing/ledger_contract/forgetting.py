"""Rules of forgetting: settled holds are remembered for a while."""

from __future__ import annotations

from typing import Any

import pytest

from budget_guard.errors import StaleReservation
from budget_guard.ledger.base import HELD, Ledger
from budget_guard.ledger.hold_id import hold_id
from budget_guard.testing.clock import FakeClock
from budget_guard.testing.ledger_contract.fixtures import BOTH, RUN, USER, Ids, LedgerFixtures, cost, figures, spend
from budget_guard.testing.ledger_contract.identity import VERBS


class ForgettingRules(LedgerFixtures):
    """Rule 6."""

    @pytest.mark.parametrize("was", ["committed", "released", "charged", "adjusted", "never heard of"])
    def test_a_forgotten_id_is_never_taken_for_a_new_one(
        self, ledger: Ledger, ids: Ids, clock: FakeClock, was: str
    ) -> None:
        old = ids("old")
        if was == "committed":
            spend(ledger, ids, "old", 5, (RUN,))
        elif was == "released":
            ledger.reserve(old, (RUN,), cost(5), cost(5))
            ledger.release(old, (RUN,))
        elif was == "charged":
            ledger.charge(old, (RUN,), cost(5))
        elif was == "adjusted":
            ledger.adjust(old, RUN, cost(5), "late bill")
        else:
            spend(ledger, ids, "another", 5, (RUN,))
        self.forget_settled(ledger, clock)
        before = ledger.balances(BOTH)
        for verb in VERBS.values():
            with pytest.raises(StaleReservation) as caught:
                verb(ledger, old)
            assert caught.value.reservation_id == old
            assert ledger.balances(BOTH) == before

    def test_what_is_forgotten_stays_counted(self, ledger: Ledger, ids: Ids, clock: FakeClock) -> None:
        for number in range(5):
            spend(ledger, ids, f"h{number}", 7)
        ledger.charge(ids("c"), BOTH, cost(7))
        for _ in range(2):
            self.forget_settled(ledger, clock)
            assert figures(ledger, RUN) == figures(ledger, USER) == (42, 0, 0)
            assert list(ledger.audit()) == []
        clock.advance(1)
        spend(ledger, ids, "new", 7)
        assert figures(ledger, RUN) == (49, 0, 0)

    @pytest.mark.parametrize("suspended", [False, True])
    def test_what_is_open_is_never_forgotten(self, ledger: Ledger, ids: Ids, clock: FakeClock, suspended: bool) -> None:
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60), 1 if suspended else 10**8)
        ledger.forward(ids("h"))
        clock.advance(1)
        assert ledger.sweep() == suspended
        self.forget_settled(ledger, clock)
        assert figures(ledger, RUN) == (0, 60, 1)
        assert ledger.reserve(ids("h"), BOTH, cost(60), cost(60)) == HELD
        assert ledger.commit(ids("h"), BOTH, cost(25)).committed == cost(25)
        assert figures(ledger, RUN) == (25, 0, 0)

    def test_an_estimate_that_is_forgotten_stands(self, ledger: Ledger, ids: Ids, clock: FakeClock) -> None:
        ledger.commit(ids("h"), BOTH, cost(60), uncertain=True)
        self.forget_settled(ledger, clock)
        with pytest.raises(StaleReservation):
            ledger.commit(ids("h"), BOTH, cost(25))
        assert figures(ledger, RUN) == (60, 0, 0)

    def test_ids_that_are_made_afterwards_are_new(self, ledger: Ledger, ids: Ids, clock: FakeClock) -> None:
        spend(ledger, ids, "old", 60)
        self.forget_settled(ledger, clock)
        clock.advance(0.002)
        new: dict[str, Any] = {name: hold_id(clock.now_ms(), name) for name in ("old", "lost", "early")}
        assert ledger.reserve(new["old"], BOTH, cost(10), cost(10)) == HELD
        ledger.commit(new["lost"], BOTH, cost(5))
        assert ledger.release(new["early"], BOTH) is False
        assert figures(ledger, RUN) == (65, 10, 1)

    def test_what_few_have_followed_is_remembered_however_long_ago_it_was(
        self, ledger: Ledger, ids: Ids, clock: FakeClock
    ) -> None:
        spend(ledger, ids, "paid", 60)
        ledger.commit(ids("guessed"), BOTH, cost(20), uncertain=True)
        ledger.charge(ids("charged"), (RUN,), cost(5))
        for _ in range(6):  # a day, in which little happens
            clock.advance(4 * 3_600)
            ledger.charge(hold_id(clock.now_ms(), "now and then"), (RUN,), cost(1))
            ledger.sweep()
        assert ledger.commit(ids("paid"), BOTH, cost(60)).charged == cost(60)
        assert ledger.release(ids("paid"), BOTH) is False
        ledger.charge(ids("charged"), (RUN,), cost(5))
        assert ledger.commit(ids("guessed"), BOTH, cost(25)).charged == cost(25)
        assert figures(ledger, RUN) == (96, 0, 0)
