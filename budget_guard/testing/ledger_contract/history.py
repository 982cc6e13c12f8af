"""Rules of the usage history: what is committed is in it, by hour and by what it was for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from budget_guard.errors import ReservationConflict
from budget_guard.ledger.base import Ledger
from budget_guard.ledger.history import (
    DAY,
    MOST_LABELS,
    NO_LABELS,
    OTHERS,
    QUANTITIES,
    By,
    Labels,
    UsageLine,
    UsageQuery,
)
from budget_guard.ledger.hold_id import hold_id
from budget_guard.testing.clock import FakeClock
from budget_guard.testing.ledger_contract.fixtures import (
    BOTH,
    OTHER,
    RUN,
    USER,
    Ids,
    LedgerFixtures,
    LiveClock,
    balance_of,
    cost,
    race,
    spend,
)
from budget_guard.units.amounts import MOST, NOTHING, Amounts, Limits
from budget_guard.units.scope import Scope

LABELS: tuple[By, ...] = ("feature", "agent", "task", "model", "tool")
MODEL = Labels("search", "Researcher", "summarise", "gpt-4o")
OTHER_MODEL = Labels("search", "Researcher", "summarise", "gpt-4o-mini")
TOOL = Labels("search", "Researcher", "summarise", tool="serp")
CALL = Amounts(cost=25, input_tokens=20, output_tokens=10, total_tokens=30, requests=1)
HOUR_S = 3_600


def line(labels: Labels, amounts: Amounts, **kinds: int) -> tuple[UsageLine, ...]:
    """The one line of a booking."""
    return (UsageLine(labels, amounts, **kinds),)


def hour_of(clock: FakeClock) -> int:
    """The present hour."""
    return clock.now_ms() // 3_600_000


def rows(
    ledger: Ledger,
    scope: Scope,
    by: Sequence[By] = LABELS,
    since: int = 0,
    until: int | None = None,
) -> dict[tuple[Any, ...], dict[str, int]]:
    """The history of a scope: what is not nothing, by name."""
    answer = ledger.usage(UsageQuery(scope.kind, scope.id, since, until, tuple(by)))
    found = {each.names: each.quantities for each in answer}
    assert len(found) == len(answer)
    return {
        names: {name: n for name, n in zip(QUANTITIES, quantities, strict=True) if n}
        for names, quantities in found.items()
    }


def costs(
    ledger: Ledger, scope: Scope, *by: By, since: int = 0, until: int | None = None
) -> dict[tuple[Any, ...], int]:
    """The history of a scope in nano-dollars."""
    return {names: row.get("cost", 0) for names, row in rows(ledger, scope, by, since, until).items()}


class HistoryRules(LedgerFixtures):
    """Rule 8, and the rules of `budget_guard.ledger.history`."""

    def test_what_is_booked_is_in_the_history_of_every_scope_by_its_labels(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("h"), BOTH, CALL, CALL)
        ledger.commit(ids("h"), BOTH, CALL, False, line(MODEL, CALL, cached=5, cache_written=2, reasoning=3))
        ledger.charge(ids("c"), BOTH, Amounts(cost=7, tool_calls=1), line(TOOL, Amounts(cost=7, tool_calls=1)))
        model = {
            **dict(zip(Amounts._fields[:5], CALL, strict=False)),
            "cached": 5,
            "cache_written": 2,
            "reasoning": 3,
        }
        for scope in BOTH:
            assert rows(ledger, scope) == {tuple(MODEL): model, tuple(TOOL): {"cost": 7, "tool_calls": 1}}
            assert costs(ledger, scope, "feature", "agent") == {("search", "Researcher"): 32}
            assert costs(ledger, scope) == {(): 32}
        assert rows(ledger, OTHER) == {}

    def test_what_nobody_says_has_no_labels(self, ledger: Ledger, ids: Ids) -> None:
        spend(ledger, ids, "nothing said", 9)
        ledger.commit(ids("a part said"), BOTH, cost(25), False, line(MODEL, cost(20)))
        ledger.charge(ids("c"), BOTH, cost(3))
        ledger.adjust(ids("a"), USER, cost(-2), "credit note")
        assert costs(ledger, USER, *LABELS) == {tuple(MODEL): 20, tuple(NO_LABELS): 15}
        assert costs(ledger, RUN, *LABELS) == {tuple(MODEL): 20, tuple(NO_LABELS): 17}

    def test_a_booking_of_several_lines_is_in_several_rows(self, ledger: Ledger, ids: Ids) -> None:
        lines = (*line(MODEL, cost(20), uncertain=4), *line(OTHER_MODEL, cost(7)), *line(MODEL, cost(1)))
        ledger.commit(ids("h"), BOTH, cost(30), False, lines)
        assert rows(ledger, USER) == {
            tuple(MODEL): {"cost": 21, "uncertain": 4},
            tuple(OTHER_MODEL): {"cost": 7},
            tuple(NO_LABELS): {"cost": 2},
        }

    def test_what_replaces_an_estimate_replaces_it_in_the_history(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60))
        for _ in range(2):
            ledger.commit(ids("h"), BOTH, cost(60), True, line(MODEL, cost(60)))
            assert rows(ledger, USER) == {tuple(MODEL): {"cost": 60, "uncertain": 60}}
        for _ in range(2):
            ledger.commit(ids("h"), BOTH, cost(25), False, line(OTHER_MODEL, cost(25), cached=4))
            assert rows(ledger, USER) == {tuple(OTHER_MODEL): {"cost": 25, "cached": 4}}
        ledger.commit(ids("h"), BOTH, cost(60), True, line(MODEL, cost(60)))
        assert costs(ledger, RUN, "model") == {("gpt-4o-mini",): 25}

    def test_an_estimate_of_several_lines_is_replaced_as_a_whole(self, ledger: Ledger, ids: Ids) -> None:
        ledger.commit(ids("h"), BOTH, cost(60), True, (*line(MODEL, cost(20)), *line(TOOL, cost(30))))
        assert rows(ledger, USER, ("model",)) == {
            ("gpt-4o",): {"cost": 20, "uncertain": 20},
            ("",): {"cost": 40, "uncertain": 40},
        }
        ledger.commit(ids("h"), BOTH, cost(55), False, line(MODEL, cost(55)))
        assert rows(ledger, USER, ("model",)) == {("gpt-4o",): {"cost": 55}}

    def test_an_estimate_that_is_certain_now_is_uncertain_no_more(self, ledger: Ledger, ids: Ids) -> None:
        ledger.commit(ids("h"), BOTH, cost(60), True, line(MODEL, cost(60)))
        ledger.commit(ids("h"), BOTH, cost(60), False, line(MODEL, cost(60)))
        assert rows(ledger, USER) == {tuple(MODEL): {"cost": 60}}

    def test_what_changes_nothing_changes_no_history(self, ledger: Ledger, ids: Ids) -> None:
        ledger.commit(ids("h"), BOTH, cost(25), False, line(MODEL, cost(25)))
        ledger.charge(ids("c"), BOTH, cost(7), line(TOOL, cost(7)))
        before = rows(ledger, USER)
        ledger.commit(ids("h"), BOTH, cost(25), False, line(MODEL, cost(25)))
        ledger.charge(ids("c"), BOTH, cost(7), line(TOOL, cost(7)))
        with pytest.raises(ReservationConflict):
            ledger.commit(ids("h"), BOTH, cost(26), False, line(MODEL, cost(26)))
        ledger.reserve(ids("open"), BOTH, cost(10), cost(10))
        ledger.reserve(ids("freed"), BOTH, cost(10), cost(10))
        ledger.release(ids("freed"), BOTH)
        assert rows(ledger, USER) == before

    def test_a_suspended_hold_is_in_the_history_once_it_is_reconciled(
        self, ledger: Ledger, ids: Ids, clock: FakeClock
    ) -> None:
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60), 10)
        ledger.forward(ids("h"))
        hour = hour_of(clock)
        clock.advance(HOUR_S)
        ledger.sweep()
        assert rows(ledger, USER) == {}
        ledger.commit(ids("h"), BOTH, cost(60), True)
        assert rows(ledger, USER, ("hour",)) == {(hour,): {"cost": 60, "uncertain": 60}}
        ledger.commit(ids("h"), BOTH, cost(25), False, line(MODEL, cost(25)))
        assert rows(ledger, USER, ("hour", "model")) == {(hour, "gpt-4o"): {"cost": 25}}

    def test_a_booking_belongs_to_the_hour_in_which_its_id_was_made(
        self, ledger: Ledger, ids: Ids, clock: FakeClock
    ) -> None:
        first = hour_of(clock)
        ledger.reserve(ids("first"), BOTH, cost(9), cost(9))
        clock.advance(25 * HOUR_S)
        spend(ledger, ids, "second", 4)
        ledger.commit(ids("first"), BOTH, cost(9))
        day = first // DAY * DAY
        assert costs(ledger, USER, "hour") == {(first,): 9, (first + 25,): 4}
        assert costs(ledger, USER, "day") == {(day,): 9, (day + DAY,): 4}
        assert costs(ledger, USER, since=first + 1) == {(): 4}
        assert costs(ledger, USER, since=first, until=first + 25) == {(): 9}
        assert costs(ledger, USER, since=first + 26) == {}

    def test_a_query_sums_up_all_scopes_of_a_kind(self, ledger: Ledger, ids: Ids) -> None:
        ledger.commit(ids("1"), BOTH, cost(9), False, line(MODEL, cost(9)))
        ledger.commit(ids("2"), (OTHER,), cost(4), False, line(MODEL, cost(4)))
        ledger.commit(ids("3"), (OTHER,), cost(3), False, line(TOOL, cost(3)))

        def users(*by: By) -> dict[tuple[Any, ...], int]:
            return {each.names: each.quantities[0] for each in ledger.usage(UsageQuery("user", None, 0, None, by))}

        assert users() == {(): 16}
        assert users("id") == {("u1",): 9, ("u2",): 7}
        assert users("model", "id") == {("gpt-4o", "u1"): 9, ("gpt-4o", "u2"): 4, ("", "u2"): 3}
        assert users("tool") == {("",): 13, ("serp",): 3}
        assert ledger.usage(UsageQuery("team", None, 0, None, ("id",))) == []
        assert ledger.usage(UsageQuery("user", "nobody", 0, None, ())) == []

    def test_a_query_by_what_is_not_known_is_refused(self, ledger: Ledger) -> None:
        by: Any = ("colour",)
        with pytest.raises(ValueError, match=r"'colour' is not known.*'model'"):
            ledger.usage(UsageQuery("user", None, 0, None, by))

    def test_the_names_of_a_kind_are_listed(self, ledger: Ledger) -> None:
        for name in ("u10", "v1", "u%_", "U1", "u*"):
            ledger.set_limits(Scope("user", name), Limits())
        assert ledger.names("user") == ["U1", "u%_", "u*", "u1", "u10", "u2", "v1"]
        assert ledger.names("user", "u1") == ["u1", "u10"]
        assert ledger.names("user", "u%") == ["u%_"]
        assert ledger.names("user", "u*") == ["u*"]
        assert (ledger.names("run"), ledger.names("team")) == (["r1"], [])

    def test_the_history_of_a_window_is_what_is_committed_in_it(
        self, ledger: Ledger, ids: Ids, clock: FakeClock
    ) -> None:
        ledger.set_limits(USER, Limits(cost=1_000), "day")
        spend(ledger, ids, "old", 30)
        ledger.reserve(ids("late"), BOTH, cost(9), cost(9))
        ledger.commit(ids("guessed"), BOTH, cost(20), True)
        clock.advance(DAY * HOUR_S)
        spend(ledger, ids, "new", 4)
        ledger.commit(ids("late"), BOTH, cost(8))
        ledger.commit(ids("guessed"), BOTH, cost(11))
        today = hour_of(clock) // DAY * DAY
        assert balance_of(ledger, USER).committed == cost(4)
        assert costs(ledger, USER, since=today) == {(): 4}
        assert costs(ledger, USER, since=today - DAY, until=today) == {(): 49}
        assert costs(ledger, RUN) == {(): 53}
        assert list(ledger.audit()) == []

    def test_a_booking_is_in_an_hour_of_the_window_that_counts_it(
        self, ledger: Ledger, ids: Ids, clock: FakeClock
    ) -> None:
        ledger.set_limits(USER, Limits(cost=1_000), "day")
        before = hold_id(clock.now_ms() + DAY * 3_600_000 - 60_000, "made a minute before midnight")
        clock.advance(DAY * HOUR_S + 60)
        today = hour_of(clock)
        ledger.commit(before, BOTH, cost(8))
        assert balance_of(ledger, USER).committed == cost(8)
        assert costs(ledger, USER, "hour") == {(today,): 8}
        assert costs(ledger, RUN, "hour") == {(today - 1,): 8}

    @pytest.mark.parametrize("windows", [("none", "day"), ("month", "day"), ("day", "none"), ("minute", "day")])
    def test_a_new_kind_of_window_keeps_the_books_in_balance(
        self, ledger: Ledger, ids: Ids, clock: FakeClock, windows: tuple[Any, Any]
    ) -> None:
        ledger.set_limits(USER, Limits(cost=1_000), windows[0])
        clock.advance(40 * HOUR_S + 90)
        spend(ledger, ids, "1", 30)
        clock.advance(30 * HOUR_S)
        spend(ledger, ids, "2", 20)
        ledger.set_limits(USER, Limits(cost=1_000), windows[1])
        spend(ledger, ids, "3", 10)
        assert list(ledger.audit()) == []
        clock.advance(20 * HOUR_S)
        spend(ledger, ids, "4", 5)
        assert list(ledger.audit()) == []
        assert costs(ledger, USER) == {(): 65}

    def test_old_hours_become_days_and_old_days_one_row(self, ledger: Ledger, ids: Ids, clock: FakeClock) -> None:
        day = hour_of(clock) // DAY * DAY
        clock.advance(3 * HOUR_S)
        ledger.commit(ids("1"), BOTH, cost(1), False, line(MODEL, cost(1)))
        clock.advance(HOUR_S)
        ledger.commit(ids("2"), BOTH, cost(2), True, line(MODEL, cost(2)))
        ledger.commit(ids("3"), BOTH, cost(4), False, line(TOOL, cost(4)))
        assert costs(ledger, USER, "hour", "model") == {
            (day + 3, "gpt-4o"): 1,
            (day + 4, "gpt-4o"): 2,
            (day + 4, ""): 4,
        }
        clock.advance(9 * DAY * HOUR_S)
        spend(ledger, ids, "4", 8)
        later = hour_of(clock)
        assert costs(ledger, USER, "hour", "model") == {(day, "gpt-4o"): 3, (day, ""): 4, (later, ""): 8}
        ledger.commit(ids("2"), BOTH, cost(16), False, line(OTHER_MODEL, cost(16)))
        assert costs(ledger, USER, "day", "model") == {
            **{(day, "gpt-4o"): 1, (day, "gpt-4o-mini"): 16, (day, ""): 4},
            (later // DAY * DAY, ""): 8,
        }
        clock.advance(1_000 * DAY * HOUR_S)
        spend(ledger, ids, "5", 32)
        assert costs(ledger, USER, "hour", *LABELS) == {(0, *NO_LABELS): 29, (hour_of(clock), *NO_LABELS): 32}
        assert list(ledger.audit()) == []

    def test_labels_that_are_made_up_are_summed_up_beyond_so_many(self, ledger: Ledger, ids: Ids) -> None:
        many = MOST_LABELS + 50
        for number in range(many):
            ledger.charge(ids(f"c{number}"), (USER,), cost(1), line(Labels(agent=f"agent-{number}"), cost(1)))
        ledger.charge(ids("again"), (USER,), cost(1), line(Labels(agent="agent-0"), cost(1)))
        found = costs(ledger, USER, *LABELS)
        assert len(found) <= MOST_LABELS + 1
        assert (found[tuple(OTHERS)], found[tuple(Labels(agent="agent-0"))]) == (50, 2)
        assert sum(found.values()) == many + 1

    @pytest.mark.parametrize(
        "text", ["\ud800", "a\x00b", "'\"\\", "a\nb\tc", "[]{}", "x" * 5_000, "\N{PILE OF POO}" * 3_000, "%s", "\x7f"]
    )
    def test_a_label_may_be_any_text(self, ledger: Ledger, ids: Ids, text: str) -> None:
        labels = Labels(text, model=text)
        ledger.commit(ids("h"), BOTH, cost(5), True, line(labels, cost(5)))
        ledger.commit(ids("h"), BOTH, cost(4), False, line(labels, cost(4)))
        (found,) = rows(ledger, USER, ("feature", "model"))
        assert found[0] == found[1] and 0 < len(found[0]) <= 200
        assert costs(ledger, USER) == {(): 4}

    @pytest.mark.parametrize("quantity", [1.5, "3", MOST + 1])
    def test_a_line_that_makes_no_sense_is_refused_before_anything_is_booked(
        self, ledger: Ledger, ids: Ids, quantity: Any
    ) -> None:
        lines = line(MODEL, cost(5), cached=quantity)
        with pytest.raises(ValueError, match="whole numbers"):
            ledger.commit(ids("h"), BOTH, cost(5), False, lines)
        with pytest.raises(ValueError, match="whole numbers"):
            ledger.charge(ids("c"), BOTH, cost(5), lines)
        assert balance_of(ledger, USER).committed == NOTHING
        assert rows(ledger, USER) == {}

    def test_large_amounts_are_exact(self, ledger: Ledger, ids: Ids) -> None:
        for number in range(9):
            ledger.charge(ids(f"c{number}"), (USER,), cost(MOST - number), line(MODEL, cost(MOST - number)))
        ledger.commit(ids("h"), (USER,), cost(MOST - 1), True, line(MODEL, cost(MOST - 1)))
        ledger.commit(ids("h"), (USER,), cost(3), False, line(MODEL, cost(3)))
        assert rows(ledger, USER) == {tuple(MODEL): {"cost": 9 * MOST - 36 + 3}}

    def test_what_is_forgotten_stays_in_the_history(self, ledger: Ledger, ids: Ids, clock: FakeClock) -> None:
        ledger.commit(ids("h"), BOTH, cost(25), False, line(MODEL, cost(25)))
        ledger.commit(ids("guessed"), BOTH, cost(6), True, line(MODEL, cost(6)))
        self.forget_settled(ledger, clock)
        assert rows(ledger, USER) == {tuple(MODEL): {"cost": 31, "uncertain": 6}}

    def test_scopes_that_are_counted_besides_have_no_history(self, ledger: Ledger, ids: Ids) -> None:
        besides = [Scope("agent_in_run", "r1/a"), Scope("user@month", "u1")]
        for scope in besides:
            ledger.set_limits(scope, Limits())
        ledger.commit(ids("h"), (*BOTH, *besides), cost(5), False, line(MODEL, cost(5)))
        for scope in besides:
            assert balance_of(ledger, scope).committed == cost(5)
            assert rows(ledger, scope) == {}
        assert costs(ledger, USER) == {(): 5}

    def test_bookings_at_the_same_time_are_all_in_the_history(self, live_ledger: Ledger, live_clock: LiveClock) -> None:
        rounds = min(self.rounds, 30)

        def book(worker: int) -> None:
            its = (MODEL, OTHER_MODEL, TOOL)[worker % 3]
            for number in range(rounds):
                made = hold_id(live_clock.now_ms(), f"{worker}-{number}")
                live_ledger.commit(made, (USER,), cost(3), True, line(its, cost(3)))
                live_ledger.commit(made, (USER,), cost(2), False, line(its, cost(2)))

        race([partial(book, worker) for worker in range(self.workers)])
        assert costs(live_ledger, USER) == {(): 2 * rounds * self.workers}
        assert len(costs(live_ledger, USER, "model", "tool")) == min(3, self.workers)
