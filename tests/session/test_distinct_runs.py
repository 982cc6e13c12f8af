"""A limit of distinct run ids for each principal and window: each id counts once, in one step, over every ledger."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from budget_guard import (
    Budget,
    BudgetAuthority,
    BudgetExceeded,
    ForeignRun,
    Ledger,
    LedgerUnavailable,
    MemoryLedger,
    Scope,
    open_ledger,
)
from budget_guard.ledger import HELD
from budget_guard.ledger.flow import Flow, Verb
from budget_guard.ledger.hold_id import hold_id
from budget_guard.ledger.verbs import LedgerWrapper
from budget_guard.session.session import Session
from budget_guard.testing import FakeClock
from budget_guard.units.amounts import Amounts, Limits
from tests.session.ledgers import LEDGERS, opened

RUN = Budget("$1.00")
Open = Callable[..., Session]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime(2026, 3, 4, 12, tzinfo=timezone.utc))


def authority(ledger: Any = None, clock: Any = None, most: int = 2, **ceiling: Any) -> BudgetAuthority:
    ceiling.setdefault("window", "day")
    options = {} if clock is None else {"clock": clock}
    return BudgetAuthority(ledger, ceilings={"user": Budget(max_runs=most, **ceiling)}, **options)


@pytest.fixture(params=["blocking", "async"])
def open_run(request: pytest.FixtureRequest) -> Open:
    def opening(of: BudgetAuthority, run_id: str | None = None, budget: Budget = RUN, **principals: Any) -> Session:
        named: Any = principals or {"user": "u1"}
        if request.param == "async":
            return asyncio.run(of.asession(budget, run_id, **named))
        return of.session(budget, run_id, **named)

    return opening


def refusal(opening: Callable[[], Session]) -> BudgetExceeded:
    with pytest.raises(BudgetExceeded) as caught:
        opening()
    return caught.value


# --- which count


def test_so_many_run_ids_may_be_begun_and_each_counts_once(clock: FakeClock, open_run: Open) -> None:
    of = authority(clock=clock)
    for run_id in ("a", "b", "a", "b", "a"):
        open_run(of, run_id).close()
    error = refusal(lambda: open_run(of, "c"))
    assert (error.dimension, error.limit, error.actual, error.scope) == ("max_runs", 2, 2, "user:u1")
    assert error.resets_at == datetime(2026, 3, 5, tzinfo=timezone.utc) and error.retry_after_s == 12 * 3_600
    for words in ("max_runs=2", "user:u1", "by its run id", "2026-03-05 00:00 UTC"):
        assert words in str(error)
    open_run(of, "b")
    open_run(of, "c", user="u2")  # another's


def test_a_run_without_an_id_is_a_run_of_its_own(clock: FakeClock, open_run: Open) -> None:
    of = authority(clock=clock)
    open_run(of), open_run(of)
    assert refusal(lambda: open_run(of)).dimension == "max_runs"


def test_what_is_refused_leaves_nothing_behind(clock: FakeClock, open_run: Open) -> None:
    of = authority(clock=clock)
    open_run(of, "a"), open_run(of, "b")
    before = {kind: len(of.ledger.names(kind)) for kind in ("run", "ran", "runs")}
    for n in range(5):
        refusal(lambda n=n: open_run(of, f"more-{n}"))  # type: ignore[misc]  # no type for its default
    assert {kind: len(of.ledger.names(kind)) for kind in ("run", "ran", "runs")} == before


def test_another_principals_run_is_refused_and_not_counted(clock: FakeClock, open_run: Open) -> None:
    of = authority(clock=clock)
    open_run(of, "theirs", user="u2")
    with pytest.raises(ForeignRun):
        open_run(of, "theirs")
    open_run(of, "a"), open_run(of, "b")
    assert of.snapshot("user", "u1").runs == 2


def test_each_window_counts_anew_and_the_same_id_in_it_too(clock: FakeClock, open_run: Open) -> None:
    of = authority(clock=clock)
    open_run(of, "a"), open_run(of, "b")
    clock.advance(timedelta(days=1).total_seconds())
    assert of.snapshot("user", "u1").runs == 0
    open_run(of, "b"), open_run(of, "c")
    assert refusal(lambda: open_run(of, "a")).limit == 2


def test_several_windows_and_principals_count_all_or_none(clock: FakeClock, open_run: Open) -> None:
    of = BudgetAuthority(
        clock=clock,
        ceilings={
            "user": [Budget(max_runs=2, window="day"), Budget("$50", max_runs=3, window="month")],
            "key": Budget(max_runs=3),
        },
    )
    open_run(of, "a", user="u1", key="k1"), open_run(of, "b", user="u1", key="k1")
    assert refusal(lambda: open_run(of, "c", user="u1", key="k1")).limit == 2
    clock.advance(timedelta(days=1).total_seconds())
    open_run(of, "a", user="u1", key="k1")  # once more in a day, and in no other
    open_run(of, "d", user="u1", key="k1")
    clock.advance(timedelta(days=1).total_seconds())
    error = refusal(lambda: open_run(of, "e", user="u1", key="k2"))
    assert (error.scope, error.limit) == ("user:u1", 3)
    error = refusal(lambda: open_run(of, "f", user="u2", key="k1"))
    assert (error.scope, error.limit, error.resets_at, error.retry_after_s) == ("key:k1", 3, None, None)
    assert "by its run id. An operator" in str(error)  # it never begins anew
    user, key = of.snapshot("user", "u1"), of.snapshot("key", "k1")
    assert [window.runs for window in user.windows] == [3, 0] and key.runs == 3
    assert of.snapshot("user", "u2").runs is None or of.snapshot("user", "u2").runs == 0


def test_money_and_live_runs_are_limited_beside_it(clock: FakeClock, open_run: Open) -> None:
    of = BudgetAuthority(
        clock=clock, ceilings={"user": Budget("$0.50", max_runs=5, window="day")}, max_live_runs={"user": 2}
    )
    first, second = open_run(of, "a"), open_run(of, "b")
    assert refusal(lambda: open_run(of, "c")).dimension == "max_live_runs"
    first.charge("search", "0.5")
    with pytest.raises(BudgetExceeded):
        second.charge("search", "0.1")


def test_one_principal_may_have_a_limit_of_its_own_and_a_plan_may_have_one(clock: FakeClock, open_run: Open) -> None:
    ceilings = {"user": Budget(max_runs=1, window="day")}
    plans = {"pro": {"user": Budget(max_runs=3, window="day")}}
    of = BudgetAuthority(clock=clock, ceilings=ceilings, plans=plans)
    of.set_ceiling("user", "u1", Budget("$5", max_runs=2, window="day"))
    other = BudgetAuthority(of.ledger, clock=clock, ceilings=ceilings, plans=plans)  # as in another process
    open_run(other, "a"), open_run(other, "b")
    assert refusal(lambda: open_run(other, "c")).limit == 2
    assert str(other.snapshot("user", "u1").limits["max_cost_usd"]) == "5"
    other.set_ceiling("user", "u1", None)
    assert refusal(lambda: open_run(of, "c")).limit == 1
    of.assign("user", "u1", "pro")
    open_run(of, "c")
    assert refusal(lambda: open_run(of, "d")).limit == 3


def test_who_refuses_nothing_counts_and_tells(
    clock: FakeClock, open_run: Open, caplog: pytest.LogCaptureFixture
) -> None:
    advisory = authority(clock=clock, most=1, mode="advisory_estimate")
    watching = authority(clock=clock, most=1)
    for of, budget in ((advisory, RUN), (watching, Budget("$1", mode="advisory_estimate"))):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "budget_guard"):
            for run_id in ("a", "b", "a", "c"):
                open_run(of, run_id, budget)
        assert of.snapshot("user", "u1").runs == 3
        assert sum("max_runs=1" in record.getMessage() for record in caplog.records) == 2


def test_a_limit_of_runs_is_no_runs_own() -> None:
    with pytest.raises(ValueError, match="max_runs=5 limits the runs of a principal"):
        Session(Budget("$1", max_runs=5))
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="max_runs"):
            Budget(max_runs=wrong)  # type: ignore[arg-type]  # on purpose


def test_runs_that_are_forgotten_take_their_marks_with_them() -> None:
    ledger = MemoryLedger(retain=50, retain_runs=20)
    of = authority(ledger, most=10_000)
    for n in range(200):
        of.session(RUN, f"r{n}", user="u1").close()
        gc.collect(0)
    gc.collect()
    assert of.snapshot("user", "u1").runs == 200
    assert len(ledger.names("ran")) < 50 and ledger.audit() == []


# --- at once, over every ledger


@pytest.fixture(params=LEDGERS)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    yield from opened(request.param, tmp_path)


def test_of_many_at_once_exactly_so_many_are_begun_and_the_same_id_counts_once(ledger: Ledger) -> None:
    processes = [authority(ledger, most=5) for _ in range(2)]

    def begin(n: int) -> bool:
        try:
            processes[n % 2].session(RUN, f"r{n % 15}", user="u1")
        except BudgetExceeded:
            return False
        return True

    async def begin_all() -> list[bool | BaseException]:
        opening = (processes[n % 2].asession(RUN, f"r{n % 15}", user="u1") for n in range(30))
        found = await asyncio.gather(*opening, return_exceptions=True)
        assert all(isinstance(each, (Session, BudgetExceeded)) for each in found), found
        return [isinstance(each, Session) for each in found]

    with ThreadPoolExecutor(8) as threads:
        begun = list(threads.map(begin, range(60)))
    assert {n % 15 for n in range(60) if begun[n]} == {n % 15 for n, yes in enumerate(asyncio.run(begin_all())) if yes}
    assert len({n % 15 for n in range(60) if begun[n]}) == 5
    assert processes[0].snapshot("user", "u1").runs == 5
    counted = ledger.balances((Scope("runs", "user:u1"),))[0]
    assert (counted.committed.requests, counted.reserved.requests) == (5, 0)


def test_the_count_outlives_the_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'budget.db'}"
    for run_id in ("a", "b"):
        ledger = open_ledger(url)
        authority(ledger).session(RUN, run_id, user="u1").close()
        ledger.close()
    ledger = open_ledger(url)
    assert refusal(lambda: authority(ledger).session(RUN, "c", user="u1")).limit == 2
    ledger.close()


class Interrupted(LedgerWrapper):
    """A ledger in which another process begins a run right before the first hold."""

    def __init__(self, inner: MemoryLedger, other: BudgetAuthority, run_id: str) -> None:
        super().__init__(inner)
        self._begin: Callable[[], Session] | None = lambda: other.session(RUN, run_id, user="u1")

    def flow(self, verb: Verb, arguments: tuple[Any, ...]) -> Flow[Any]:
        if verb == "reserve" and self._begin is not None:
            begin, self._begin = self._begin, None
            begin()
        return super().flow(verb, arguments)


def test_where_another_process_takes_the_last_place_in_between_none_too_many_is_begun(clock: FakeClock) -> None:
    memory = MemoryLedger(clock=clock)
    other = authority(memory, clock, most=1)
    interrupted = authority(Interrupted(memory, other, "first"), clock, most=1)
    assert refusal(lambda: interrupted.session(RUN, "second", user="u1")).limit == 1
    assert other.snapshot("user", "u1").runs == 1
    interrupted.session(RUN, "first", user="u1")


def test_where_another_process_begins_the_same_run_in_between_it_counts_once(clock: FakeClock) -> None:
    memory = MemoryLedger(clock=clock)
    other = authority(memory, clock)
    authority(Interrupted(memory, other, "a"), clock).session(RUN, "a", user="u1")
    assert other.snapshot("user", "u1").runs == 1 and memory.audit() == []


def test_a_run_that_another_process_is_counting_is_counted_already(clock: FakeClock) -> None:
    memory = MemoryLedger(clock=clock)
    of = authority(memory, clock, most=1)
    one, scopes = Amounts(requests=1), (Scope("ran", "user:u1/a"), Scope("runs", "user:u1"))
    for scope in scopes:
        memory.set_limits(scope, Limits(requests=1), "day")
    assert memory.reserve(hold_id(clock.now_ms(), "run-x"), scopes, one, one, 60.0) == HELD
    of.session(RUN, "a", user="u1")
    assert refusal(lambda: of.session(RUN, "b", user="u1")).actual == 1


def test_who_goes_by_another_ceiling_does_not_make_it_wait_for_ever(clock: FakeClock) -> None:
    class Contrary(LedgerWrapper):
        def flow(self, verb: Verb, arguments: tuple[Any, ...]) -> Flow[Any]:
            if verb == "reserve":
                self.inner.set_limits(Scope("runs", "user:u1"), Limits(requests=1), "day")
            return super().flow(verb, arguments)

    of = authority(Contrary(MemoryLedger(clock=clock)), clock, most=1, mode="advisory_estimate")
    of.session(RUN, "a", user="u1")
    with pytest.raises(LedgerUnavailable, match="try once more"):
        of.session(RUN, "b", user="u1")
