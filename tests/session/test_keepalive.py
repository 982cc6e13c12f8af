"""A hold that calls prolong: when the ledger is asked, and when it is not."""

from __future__ import annotations

from typing import Any

import pytest

from budget_guard.errors import BudgetExceeded, BudgetRevoked, LedgerUnavailable, StaleReservation, UnknownReservation
from budget_guard.ledger.base import HELD, Refused, Revoked
from budget_guard.ledger.flow import Flow
from budget_guard.session.keepalive import ConcurrencySlot, RenewedHold
from budget_guard.testing import FakeClock
from budget_guard.units.amounts import Amounts, Limits
from budget_guard.units.scope import Scope

SCOPES = (Scope("live", "user:u1"),)
ONE = Amounts(requests=1)
TTL_S = 90.0


class Asked:
    """A ledger that notes what it is asked, and answers what it is told to."""

    def __init__(self) -> None:
        self.verbs: list[tuple[str, Any]] = []
        self.answers: list[Any] = []

    def perform(self, flow: Flow[Any]) -> Any:
        """Perform *flow*: each verb gets the next of the answers, or True."""
        answer: Any = None
        try:
            verb, arguments = flow.send(None)
            while True:
                self.verbs.append((verb, arguments))
                answer = self.answers.pop(0) if self.answers else True
                verb, arguments = flow.throw(answer) if isinstance(answer, BaseException) else flow.send(answer)
        except StopIteration as stop:
            return stop.value

    def since(self) -> list[str]:
        """The verbs since this was asked last."""
        verbs, self.verbs = self.verbs, []
        return [verb for verb, _ in verbs]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ledger() -> Asked:
    return Asked()


def taken(clock: FakeClock, ledger: Asked) -> RenewedHold:
    hold = RenewedHold(clock, TTL_S)
    ledger.answers = [HELD]
    assert ledger.perform(hold.take("child", SCOPES, ONE, None)) is HELD
    assert ledger.verbs == [("reserve", (hold.id, SCOPES, ONE, None, TTL_S))] and "-child-" in hold.id
    assert ledger.since() == ["reserve"]
    return hold


def test_a_hold_is_prolonged_once_in_each_third_of_its_time(clock: FakeClock, ledger: Asked) -> None:
    hold = taken(clock, ledger)
    for third in range(1, 4):
        for _ in range(2):
            assert not hold.due() and ledger.perform(hold.prolong()) is True and ledger.since() == []
            clock.advance(14.5)
        assert not hold.due() and ledger.perform(hold.prolong()) is True and ledger.since() == []
        clock.advance(1)
        assert hold.due()
        assert ledger.perform(hold.prolong()) is True, third
        assert ledger.verbs == [("extend", (hold.id, TTL_S))] and ledger.since() == ["extend"]


def test_a_hold_that_is_not_there_is_due_and_asked_for_no_more(clock: FakeClock, ledger: Asked) -> None:
    hold = RenewedHold(clock, TTL_S)
    assert hold.due() and not hold.held and ledger.perform(hold.prolong()) is False and ledger.since() == []
    for refused in (
        Refused(SCOPES[0], 4, 1, 1, 0, True, 1, Limits(requests=0)),
        Revoked(SCOPES[0], "stolen", clock.now()),
    ):
        ledger.answers = [refused]
        assert ledger.perform(hold.take("live", SCOPES, ONE, ONE)) is refused
        assert not hold.held and hold.id == "" and ledger.since() == ["reserve"]


@pytest.mark.parametrize(
    "gone",
    [False, UnknownReservation(reservation_id="x", detail="none"), StaleReservation(reservation_id="x", detail="old")],
)
def test_a_hold_that_the_ledger_has_no_more_is_gone(clock: FakeClock, ledger: Asked, gone: Any) -> None:
    hold = taken(clock, ledger)
    clock.advance(31)
    ledger.answers = [gone]
    assert ledger.perform(hold.prolong()) is False
    assert not hold.held and hold.due() and ledger.since() == ["extend"]
    assert ledger.perform(hold.prolong()) is False and ledger.since() == []


@pytest.mark.parametrize("error", [LedgerUnavailable(detail="down"), KeyboardInterrupt()])
def test_a_hold_that_could_not_be_prolonged_is_due_at_once(
    clock: FakeClock, ledger: Asked, error: BaseException
) -> None:
    hold = taken(clock, ledger)
    clock.advance(31)
    ledger.answers = [error]
    with pytest.raises(type(error)):
        ledger.perform(hold.prolong())
    assert hold.held and hold.due() and ledger.since() == ["extend"]
    assert ledger.perform(hold.prolong()) is True and ledger.since() == ["extend"]
    assert not hold.due()


def test_a_place_is_taken_kept_given_up_once_and_taken_anew(clock: FakeClock, ledger: Asked) -> None:
    place = ConcurrencySlot(clock, TTL_S, SCOPES)
    ledger.perform(place.drop())
    assert ledger.since() == [] and place.due()
    for _ in range(2):
        ledger.answers = [HELD]
        ledger.perform(place.keep())
        ((verb, (id, *rest)),) = ledger.verbs
        assert (verb, rest) == ("reserve", [SCOPES, ONE, ONE, TTL_S]) and "-live-" in id
        ledger.since()
        ledger.perform(place.keep())
        assert ledger.since() == [] and not place.due()
        clock.advance(31)
        assert place.due()
        ledger.perform(place.keep())
        assert ledger.since() == ["extend"]
        ledger.perform(place.drop())
        assert ledger.verbs == [("release", (id, SCOPES))] and ledger.since() == ["release"]
        ledger.perform(place.drop())
        assert ledger.since() == [] and place.due()


def test_a_place_that_could_not_be_given_up_is_free_once_its_time_is_up(clock: FakeClock, ledger: Asked) -> None:
    place = ConcurrencySlot(clock, TTL_S, SCOPES)
    ledger.answers = [HELD, LedgerUnavailable(detail="down")]
    ledger.perform(place.keep())
    ledger.perform(place.drop())
    assert ledger.since() == ["reserve", "release"] and place.due()


def test_a_place_that_is_refused_says_what_was_asked_for(clock: FakeClock, ledger: Asked) -> None:
    place = ConcurrencySlot(clock, TTL_S, SCOPES)
    ledger.answers = [Refused(SCOPES[0], 4, 3, 1, 2, True, 1, Limits(requests=0))]
    with pytest.raises(BudgetExceeded, match="as many sessions are open") as refused:
        ledger.perform(place.keep())
    error = refused.value
    assert (error.dimension, error.limit, error.actual, error.scope) == ("max_live_runs", 3, 3, "user:u1")
    ledger.answers = [Revoked(SCOPES[0], "stolen", clock.now())]
    with pytest.raises(BudgetRevoked, match="stolen"):
        ledger.perform(place.keep())
    assert place.due()
