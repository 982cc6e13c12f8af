"""Ceilings that begin anew: by the minute, hour, day, week or month."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from budget_guard.ledger.base import HELD, Ledger, Refused
from budget_guard.testing.clock import FakeClock
from budget_guard.testing.ledger_contract.fixtures import RUN, Ids, LedgerFixtures, balance_of, cost, figures, spend
from budget_guard.units.amounts import Amounts, Limits
from budget_guard.units.scope import Scope, Window

TEAM = Scope("team", "windowed")
BOTH = (RUN, TEAM)
WINDOWS: list[tuple[Window, str, str, str]] = [
    ("minute", "2025-01-01T12:34:56.789", "2025-01-01T12:34", "2025-01-01T12:35"),
    ("hour", "2025-01-01T23:59:59.999", "2025-01-01T23:00", "2025-01-02T00:00"),
    ("day", "2025-12-31T12:00", "2025-12-31", "2026-01-01"),
    ("week", "2025-01-01T00:00", "2024-12-30", "2025-01-06"),  # from Monday to Monday
    ("week", "2025-01-05T23:59:59", "2024-12-30", "2025-01-06"),
    ("month", "2025-01-31T00:00", "2025-01-01", "2025-02-01"),
    ("month", "2026-02-01T00:00", "2026-02-01", "2026-03-01"),
    ("month", "2028-02-29T12:00", "2028-02-01", "2028-03-01"),  # a leap year
    ("month", "2025-04-30T23:59:59", "2025-04-01", "2025-05-01"),
    ("month", "2025-12-31T23:59:59.999", "2025-12-01", "2026-01-01"),
]
"""A window, a moment, and when the window that it is in begins and ends (UTC)."""
A_DAY = 86_400


def moment(text: str) -> datetime:
    """*text* as a time of day in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


def move_to(clock: FakeClock, at: datetime) -> None:
    """Let time pass until *at*."""
    clock.advance((at - clock.now()) / timedelta(seconds=1))


class WindowRules(LedgerFixtures):
    """Rule 7."""

    @pytest.mark.parametrize(("window", "at", "begins", "ends"), WINDOWS)
    def test_a_window_begins_and_ends_with_the_calendar(
        self, ledger: Ledger, ids: Ids, clock: FakeClock, window: Window, at: str, begins: str, ends: str
    ) -> None:
        move_to(clock, moment(at))
        ledger.set_limits(TEAM, Limits(cost=100), window)
        assert (balance_of(ledger, TEAM).window, balance_of(ledger, TEAM).since) == (window, moment(begins))
        spend(ledger, ids, "before", 100, (TEAM,))
        move_to(clock, moment(ends) - timedelta(milliseconds=1))
        assert isinstance(ledger.reserve(ids("at the end"), (TEAM,), cost(1), cost(1)), Refused)
        assert balance_of(ledger, TEAM).since == moment(begins)
        move_to(clock, moment(ends))
        assert figures(ledger, TEAM) == (0, 0, 0)
        assert balance_of(ledger, TEAM).since == moment(ends)
        assert ledger.reserve(ids("after"), (TEAM,), cost(100), cost(100)) == HELD

    def test_a_scope_without_a_window_goes_on_counting(self, ledger: Ledger, ids: Ids, clock: FakeClock) -> None:
        ledger.set_limits(TEAM, Limits(cost=100), "day")
        spend(ledger, ids, "h", 60, BOTH)
        clock.advance(400 * A_DAY)
        assert figures(ledger, TEAM) == (0, 0, 0)
        assert figures(ledger, RUN) == (60, 0, 0)
        assert balance_of(ledger, RUN).since is None

    @pytest.mark.parametrize("verb", ["commit", "release", "expire", "estimate"])
    def test_a_hold_is_settled_in_the_window_in_which_it_was_made(
        self, ledger: Ledger, ids: Ids, clock: FakeClock, verb: str
    ) -> None:
        ledger.set_limits(TEAM, Limits(cost=100), "day")
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60), 2 * A_DAY)
        clock.advance(A_DAY)
        assert figures(ledger, TEAM) == (0, 0, 0)
        spent = 0
        if verb == "commit":
            spent = ledger.commit(ids("h"), BOTH, cost(80)).committed[0]
        elif verb == "estimate":
            ledger.commit(ids("h"), BOTH, cost(60), uncertain=True)
            spent = ledger.commit(ids("h"), BOTH, cost(25)).committed[0]
        elif verb == "release":
            assert ledger.release(ids("h"), BOTH) is True
        else:
            clock.advance(A_DAY)
            assert ledger.sweep() == 1
        assert figures(ledger, TEAM) == (0, 0, 0)
        assert figures(ledger, RUN) == (spent, 0, 0)
        assert ledger.reserve(ids("today"), (TEAM,), cost(100), cost(100)) == HELD

    def test_an_estimate_of_yesterday_is_replaced_there(self, ledger: Ledger, ids: Ids, clock: FakeClock) -> None:
        ledger.set_limits(TEAM, Limits(cost=100), "day")
        ledger.commit(ids("h"), BOTH, cost(60), uncertain=True)
        clock.advance(A_DAY)
        spend(ledger, ids, "today", 30, (TEAM,))
        ledger.commit(ids("h"), BOTH, cost(25))
        assert figures(ledger, TEAM) == (30, 0, 0)
        assert figures(ledger, RUN) == (25, 0, 0)

    def test_a_suspended_hold_of_yesterday_still_waits_to_be_reconciled(
        self, ledger: Ledger, ids: Ids, clock: FakeClock
    ) -> None:
        ledger.set_limits(TEAM, Limits(cost=100), "day")
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60), 60)
        ledger.forward(ids("h"))
        clock.advance(A_DAY)
        ledger.sweep()
        assert [each.hold_id for each in ledger.suspended()] == [ids("h")]
        assert figures(ledger, TEAM) == (0, 0, 0)
        assert figures(ledger, RUN) == (0, 60, 1)
        ledger.commit(ids("h"), BOTH, cost(25))
        assert figures(ledger, TEAM) == (0, 0, 0)
        assert figures(ledger, RUN) == (25, 0, 0)

    def test_an_adjustment_is_made_in_the_present_window(self, ledger: Ledger, ids: Ids, clock: FakeClock) -> None:
        ledger.set_limits(TEAM, Limits(cost=100), "day")
        spend(ledger, ids, "h", 60, (TEAM,))
        clock.advance(A_DAY)
        with pytest.raises(ValueError, match="-1"):
            ledger.adjust(ids("a"), TEAM, Amounts(cost=-1), "credit note")
        spend(ledger, ids, "today", 30, (TEAM,))
        assert ledger.adjust(ids("a"), TEAM, Amounts(cost=-1), "credit note") == cost(29)
        assert figures(ledger, TEAM) == (29, 0, 0)

    def test_what_is_spent_without_a_hold_is_booked_in_the_present_window(
        self, ledger: Ledger, ids: Ids, clock: FakeClock
    ) -> None:
        ledger.set_limits(TEAM, Limits(cost=100), "day")
        clock.advance(A_DAY)
        ledger.charge(ids("charge"), (TEAM,), cost(5))
        ledger.commit(ids("lost"), (TEAM,), cost(7))
        assert figures(ledger, TEAM) == (12, 0, 0)

    def test_a_window_that_began_stays_when_the_clock_is_set_back(
        self, ledger: Ledger, ids: Ids, clock: FakeClock
    ) -> None:
        ledger.set_limits(TEAM, Limits(cost=100), "day")
        spend(ledger, ids, "yesterday", 60, (TEAM,))
        clock.advance(A_DAY + 60)
        spend(ledger, ids, "today", 10, (TEAM,))
        today = balance_of(ledger, TEAM).since
        for seconds in (-120, 120):  # to yesterday and back again
            clock.turn(seconds)
            assert figures(ledger, TEAM) == (10, 0, 0)
            assert balance_of(ledger, TEAM).since == today
        clock.advance(A_DAY)
        assert figures(ledger, TEAM) == (0, 0, 0)

    def test_another_window_counts_on_until_it_ends(self, ledger: Ledger, ids: Ids, clock: FakeClock) -> None:
        ledger.set_limits(TEAM, Limits(cost=100), "hour")
        spend(ledger, ids, "spent", 20, (TEAM,))
        ledger.reserve(ids("open"), (TEAM,), cost(60), cost(60))
        ledger.set_limits(TEAM, Limits(cost=100), "day")
        assert figures(ledger, TEAM) == (20, 60, 1)
        clock.advance(3_600)
        assert figures(ledger, TEAM) == (20, 60, 1)
        ledger.commit(ids("open"), (TEAM,), cost(50))
        assert figures(ledger, TEAM) == (70, 0, 0)
        clock.advance(23 * 3_600)
        assert figures(ledger, TEAM) == (0, 0, 0)

    def test_a_window_that_has_ended_is_over_when_another_one_is_set(
        self, ledger: Ledger, ids: Ids, clock: FakeClock
    ) -> None:
        ledger.set_limits(TEAM, Limits(cost=100), "day")
        spend(ledger, ids, "h", 60, (TEAM,))
        clock.advance(A_DAY)
        ledger.set_limits(TEAM, Limits(cost=100), "hour")
        assert figures(ledger, TEAM) == (0, 0, 0)

    def test_a_scope_may_be_given_its_first_window_while_holds_are_open(
        self, ledger: Ledger, ids: Ids, clock: FakeClock
    ) -> None:
        for name in ("in time", "late"):
            ledger.reserve(ids(name), (RUN,), cost(30), cost(30))
        ledger.set_limits(RUN, Limits(cost=100), "day")
        ledger.commit(ids("in time"), (RUN,), cost(25))
        assert figures(ledger, RUN) == (25, 30, 1)
        clock.advance(A_DAY)
        ledger.commit(ids("late"), (RUN,), cost(25))
        assert figures(ledger, RUN) == (0, 0, 0)

    def test_limits_set_again_leave_the_window_as_it_is(self, ledger: Ledger, ids: Ids, clock: FakeClock) -> None:
        ledger.set_limits(TEAM, Limits(cost=100), "day")
        spend(ledger, ids, "h", 60, (TEAM,))
        clock.advance(60)
        ledger.set_limits(TEAM, Limits(cost=200), "day")
        assert figures(ledger, TEAM) == (60, 0, 0)
        clock.advance(A_DAY)
        ledger.set_limits(TEAM, Limits(cost=200), "day")
        assert figures(ledger, TEAM) == (0, 0, 0)
