"""Holds whose time is up: freed if their call was never sent, suspended if it was."""

from __future__ import annotations

import math

import pytest

from budget_guard.errors import ReservationConflict
from budget_guard.ledger.base import HELD, Ledger, Settled, Suspended
from budget_guard.testing.clock import FakeClock
from budget_guard.testing.ledger_contract.fixtures import BOTH, RUN, USER, Ids, LedgerFixtures, cost, figures, own

TTL_S = 60


def hold(ledger: Ledger, hold_id: str, *, sent: bool, suspend: bool = True) -> None:
    """Hold 60 nano-dollars for `TTL_S` seconds."""
    assert ledger.reserve(hold_id, BOTH, cost(60), cost(60), TTL_S, suspend) == HELD
    if sent:
        ledger.forward(hold_id)


class ExpiryRules(LedgerFixtures):
    """Rule 5."""

    @pytest.mark.parametrize(("sent", "suspend"), [(False, True), (False, False), (True, False)])
    def test_a_hold_that_cannot_have_been_billed_is_freed_when_its_time_is_up(
        self, ledger: Ledger, ids: Ids, clock: FakeClock, sent: bool, suspend: bool
    ) -> None:
        hold(ledger, ids("h"), sent=sent, suspend=suspend)
        clock.advance(TTL_S - 0.001)
        assert ledger.sweep() == 0
        assert figures(ledger, RUN) == (0, 60, 1)
        clock.advance(0.001)
        assert ledger.sweep() == 1
        assert figures(ledger, RUN) == figures(ledger, USER) == (0, 0, 0)
        assert (ledger.sweep(), list(ledger.suspended())) == (0, [])

    @pytest.mark.parametrize("at_once", [False, True])
    def test_a_hold_whose_call_was_sent_is_suspended_and_still_counted(
        self, ledger: Ledger, ids: Ids, clock: FakeClock, at_once: bool
    ) -> None:
        if at_once:
            assert ledger.reserve(ids("h"), BOTH, cost(60), cost(60), TTL_S, sent=True) == HELD
        else:
            hold(ledger, ids("h"), sent=True)
        clock.advance(TTL_S)
        assert ledger.sweep() == 1
        assert figures(ledger, RUN) == figures(ledger, USER) == (0, 60, 1)
        assert list(ledger.suspended()) == [Suspended(ids("h"), BOTH, cost(60), clock.now())]
        clock.advance(1_000 * TTL_S)
        assert ledger.sweep() == 0
        assert figures(ledger, RUN) == (0, 60, 1)

    @pytest.mark.parametrize("verb", ["commit", "estimate", "release"])
    def test_a_suspended_hold_is_settled_like_any_other(
        self, ledger: Ledger, ids: Ids, clock: FakeClock, verb: str
    ) -> None:
        hold(ledger, ids("h"), sent=True)
        clock.advance(TTL_S)
        ledger.sweep()
        ledger.forward(ids("h"))
        if verb == "release":
            assert ledger.release(ids("h"), BOTH) is True
        else:
            ledger.commit(ids("h"), BOTH, cost(25), uncertain=verb == "estimate")
        assert figures(ledger, RUN) == (0 if verb == "release" else 25, 0, 0)
        assert list(ledger.suspended()) == []

    def test_a_late_commit_is_charged(self, ledger: Ledger, ids: Ids, clock: FakeClock) -> None:
        hold(ledger, ids("h"), sent=False)
        clock.advance(TTL_S)
        ledger.sweep()
        assert ledger.release(ids("h"), BOTH) is False
        assert own(ledger.commit(ids("h"), BOTH, cost(80))) == Settled(cost(80), cost(80), False)
        assert figures(ledger, RUN) == figures(ledger, USER) == (80, 0, 0)

    @pytest.mark.parametrize("freed", ["expired", "released"])
    def test_a_call_whose_hold_is_gone_must_not_be_sent(
        self, ledger: Ledger, ids: Ids, clock: FakeClock, freed: str
    ) -> None:
        hold(ledger, ids("h"), sent=False)
        if freed == "released":
            ledger.release(ids("h"), BOTH)
        clock.advance(TTL_S)
        ledger.sweep()
        with pytest.raises(ReservationConflict, match="h"):
            ledger.forward(ids("h"))
        assert figures(ledger, RUN) == (0, 0, 0)

    @pytest.mark.parametrize("sent", [False, True])
    def test_a_hold_lives_on_as_long_as_it_is_extended(
        self, ledger: Ledger, ids: Ids, clock: FakeClock, sent: bool
    ) -> None:
        hold(ledger, ids("h"), sent=sent)
        for _ in range(3):
            clock.advance(TTL_S - 1)
            assert ledger.extend(ids("h"), TTL_S) is True
            assert ledger.sweep() == 0
        ledger.extend(ids("h"), TTL_S / 2)  # sooner than before
        clock.advance(TTL_S / 2)
        assert ledger.sweep() == 1

    def test_a_suspended_hold_that_is_extended_is_in_flight_again(
        self, ledger: Ledger, ids: Ids, clock: FakeClock
    ) -> None:
        hold(ledger, ids("h"), sent=True)
        clock.advance(TTL_S)
        ledger.sweep()
        assert ledger.extend(ids("h"), TTL_S) is True
        assert list(ledger.suspended()) == []
        clock.advance(TTL_S)
        assert ledger.sweep() == 1
        assert [each.since for each in ledger.suspended()] == [clock.now()]
        assert figures(ledger, RUN) == (0, 60, 1)

    def test_a_hold_that_is_extended_twice_at_once_expires_once(
        self, ledger: Ledger, ids: Ids, clock: FakeClock
    ) -> None:
        hold(ledger, ids("h"), sent=True)
        for _ in range(2):
            assert ledger.extend(ids("h"), TTL_S) is True
        clock.advance(TTL_S)
        assert (ledger.sweep(), ledger.sweep()) == (1, 0)
        assert figures(ledger, RUN) == (0, 60, 1)

    @pytest.mark.parametrize("end", ["commit", "release", "expire"])
    def test_what_is_settled_cannot_be_extended_and_does_not_expire(
        self, ledger: Ledger, ids: Ids, clock: FakeClock, end: str
    ) -> None:
        hold(ledger, ids("h"), sent=False)
        if end == "commit":
            ledger.commit(ids("h"), BOTH, cost(25))
        elif end == "release":
            ledger.release(ids("h"), BOTH)
        else:
            clock.advance(TTL_S)
            assert ledger.sweep() == 1
        assert ledger.extend(ids("h"), TTL_S) is False
        clock.advance(TTL_S)
        assert ledger.sweep() == 0
        assert figures(ledger, RUN) == (25 if end == "commit" else 0, 0, 0)

    def test_a_hold_without_a_time_of_its_own_may_be_given_one(
        self, ledger: Ledger, ids: Ids, clock: FakeClock
    ) -> None:
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60), suspend=False)
        ledger.forward(ids("h"))
        assert ledger.extend(ids("h"), 1) is True
        clock.advance(1)
        assert ledger.sweep() == 1
        assert figures(ledger, RUN) == (0, 0, 0)  # not suspended: it was made so

    def test_a_hold_whose_time_is_up_is_not_in_the_way_of_the_next(
        self, ledger: Ledger, ids: Ids, clock: FakeClock
    ) -> None:
        hold(ledger, ids("h"), sent=False)
        clock.advance(TTL_S)
        assert ledger.reserve(ids("next"), BOTH, cost(100), cost(100)) == HELD
        assert figures(ledger, RUN) == (0, 100, 1)

    def test_a_sweep_expires_no_more_than_it_is_told_to(self, ledger: Ledger, ids: Ids, clock: FakeClock) -> None:
        for number in range(5):
            ledger.reserve(ids(f"h{number}"), BOTH, cost(10), cost(10), TTL_S)
            ledger.forward(ids(f"h{number}"))
            clock.advance(1)
        clock.advance(TTL_S)
        assert [ledger.sweep(2) for _ in range(4)] == [2, 2, 1, 0]
        assert [each.hold_id for each in ledger.suspended(3)] == [ids("h0"), ids("h1"), ids("h2")]
        assert len(ledger.suspended()) == 5

    @pytest.mark.parametrize("ttl_s", [0, -1, math.nan, math.inf])
    def test_a_time_to_live_that_makes_no_sense_is_refused(self, ledger: Ledger, ids: Ids, ttl_s: float) -> None:
        with pytest.raises(ValueError, match="ttl_s"):
            ledger.reserve(ids("h"), BOTH, cost(60), cost(60), ttl_s)
        assert figures(ledger, RUN) == (0, 0, 0)
        hold(ledger, ids("h"), sent=False)
        with pytest.raises(ValueError, match="ttl_s"):
            ledger.extend(ids("h"), ttl_s)
