"""Subscribers hear what happened: plain functions, async ones, and sinks; of a session, its children, an authority."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

from budget_guard import Budget, BudgetAuthority, Session, ToolCall, Usage
from budget_guard.events import CallAdmitted, Event, Origin, Tokens, UsageEvent
from budget_guard.events.timeline import KEPT
from budget_guard.testing import FakeClock
from tests.builders import PRICES, Way, call, session

NOW = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)


def pay(run: Session, **options: Any) -> None:
    run.authorize(call("large", **options)).require().commit(Usage(input=60, cache_read=40, output=20, reasoning=5))


def used(heard: list[Event]) -> list[UsageEvent]:
    return [event for event in heard if isinstance(event, UsageEvent)]


class Collector:
    """A sink that keeps what it is told, with whose it is."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Event]] = []

    def of_run(self, origin: Origin) -> Callable[[Event], None]:
        return lambda event: self.heard.append((origin.run_id, event))


def test_a_usage_event_says_what_was_used_by_whom_and_what_it_cost() -> None:
    heard: list[Event] = []
    budget = Budget("$1", task="summarise")
    run = session(budget, run_id="r1", tags={"user": "u1", "feature": "chat"}, clock=FakeClock(NOW))
    run.subscribe(heard.append)
    pay(run, agent="writer")

    (event,) = used(heard)
    assert event == UsageEvent(
        at_s=0.0,
        id=event.decision_id,
        at=NOW,
        run_id="r1",
        principals={"user": "u1", "feature": "chat"},
        agent="writer",
        task="summarise",
        kind="model",
        name="large",
        asked="large",
        tokens=Tokens(input=100, cached=40, output=25, reasoning=5),
        cost=350_000,
        source="price",
        uncertain=False,
        unpriced=False,
        decision_id=run.decisions()[0].id,
    )
    assert event.as_plain()["cost_usd"] == "0.00035"
    assert not event.is_correction and event.added == 350_000


def test_an_estimate_that_is_replaced_is_told_of_as_a_difference(way: Way) -> None:
    heard: list[Event] = []
    run = session("$5")
    run.subscribe(heard.append)
    held = way.reserve(run, call("large", tokens=100, cap=1_000))
    way.commit_estimate(held, "the stream broke off")
    way.commit(held, Usage(input=60, output=20))

    guess, actual = used(heard)
    assert (guess.uncertain, guess.source, guess.is_correction) == (True, "estimate", False)
    assert (actual.uncertain, actual.source, actual.is_correction) == (False, "price", True)
    assert guess.decision_id == actual.decision_id and guess.id != actual.id
    assert guess.added + actual.added == actual.cost == run.committed.cost
    assert actual.tokens_added() == {
        **{"input": 60 - guess.tokens.input, "output": 20 - guess.tokens.output},
        **{"cached": 0, "cache_written": 0, "reasoning": 0},
    }


def test_tools_and_charges_are_told_of_as_well(way: Way) -> None:
    heard: list[Event] = []
    run = session("$5")
    run.subscribe(heard.append)
    way.commit_cost(way.reserve(run, ToolCall("search", 10_000_000)), "0.01")
    way.charge(run, "gpu", "0.25")

    assert [(e.kind, e.name, e.cost) for e in used(heard)] == [("tool", "search", 10**7), ("tool", "gpu", 25 * 10**7)]


def test_nobody_listening_costs_nothing_and_nothing_is_kept() -> None:
    run = session("$5")
    pay(run)
    assert not used(run.events())


async def test_an_async_subscriber_hears_every_event_in_its_order() -> None:
    heard: list[Event] = []

    async def hear(event: Event) -> None:
        await asyncio.sleep(0)
        heard.append(event)

    class Hearer:
        async def __call__(self, event: Event) -> None:
            await hear(event)

    for subscriber in (hear, Hearer()):
        heard.clear()
        run = session("$5")
        run.subscribe(subscriber)
        for _ in range(3):
            pay(run)
        while len(heard) < 9:
            await asyncio.sleep(0)
        assert [event for event in heard if not isinstance(event, UsageEvent)] == run.events()


async def test_an_async_subscriber_is_done_with_one_event_before_it_hears_the_next() -> None:
    hearing, at_once, done = 0, 0, 0

    async def hear(event: Event) -> None:
        nonlocal hearing, at_once, done
        hearing += 1
        at_once = max(at_once, hearing)
        await asyncio.sleep(0)
        hearing -= 1
        done += 1

    run = session("$5")
    run.subscribe(hear)
    for _ in range(2):
        pay(run)
        pay(run)
        await asyncio.sleep(0)
    while done < 12:
        await asyncio.sleep(0)
    assert at_once == 1


async def test_an_async_subscriber_is_called_on_its_loop_from_threads_too() -> None:
    loops: list[object] = []

    async def hear(event: Event) -> None:
        loops.append(asyncio.get_running_loop())

    run = session("$5")
    run.subscribe(hear)
    await asyncio.to_thread(pay, run)
    while len(loops) < 3:
        await asyncio.sleep(0)
    assert set(loops) == {asyncio.get_running_loop()}


def test_an_async_subscriber_hears_events_where_no_loop_runs() -> None:
    done = threading.Event()
    heard: list[Event] = []

    async def hear(event: Event) -> None:
        heard.append(event)
        if isinstance(event, UsageEvent):
            assert threading.current_thread().daemon  # it keeps no process from its end
            done.set()

    run = session("$5")
    run.subscribe(hear)
    pay(run)
    assert done.wait(10)
    assert isinstance(heard[0], CallAdmitted)


def test_an_async_subscriber_hears_events_of_a_forked_process() -> None:
    done = multiprocessing.get_context("fork").Event()

    async def hear(event: Event) -> None:
        if isinstance(event, UsageEvent) and event.principals.get("user") == "child":
            done.set()

    run, other = session("$5"), session("$5", tags={"user": "child"})
    for each in (run, other):
        each.subscribe(hear)
    pay(run)  # the loop has its thread here

    def in_child() -> None:
        with pytest.warns(RuntimeWarning, match="a budget in memory was copied by a fork"):
            pay(other)
        done.wait(10)

    child = multiprocessing.get_context("fork").Process(target=in_child)
    child.start()
    assert done.wait(10)
    child.join()


def test_an_async_subscriber_goes_on_with_the_next_loop() -> None:
    heard: list[Event] = []

    async def hear(event: Event) -> None:
        heard.append(event)

    run = session("$5")

    async def once() -> None:
        run.subscribe(hear)
        pay(run)
        await asyncio.sleep(0)

    async def again() -> None:
        pay(run)
        for _ in range(9):
            await asyncio.sleep(0)

    asyncio.run(once())
    asyncio.run(again())
    assert len(used(heard)) == 2


async def test_an_async_subscriber_that_fails_is_told_of_what_comes_next(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Event] = []

    async def hear(event: Event) -> None:
        heard.append(event)
        raise ValueError("the log is full")

    run = session("$5")
    run.subscribe(hear)
    pay(run)
    while len(heard) < 3:
        await asyncio.sleep(0)
    assert "the log is full" in caplog.text
    assert run.committed.cost == 350_000


def test_a_slow_async_subscriber_does_not_take_up_the_memory(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("budget_guard.events.subscribing._MOST_WAITING", 5)

    async def main() -> int:
        heard: list[Event] = []

        async def hear(event: Event) -> None:
            heard.append(event)

        run = session("$5")
        run.subscribe(hear)
        for _ in range(5):
            pay(run)  # nothing is awaited in between
        for _ in range(30):
            await asyncio.sleep(0)
        return len(heard)

    assert asyncio.run(main()) == 5
    assert caplog.text.count("too slow") == 1


def test_a_sink_hears_of_child_sessions_too(way: Way) -> None:
    sink, heard = Collector(), list[Event]()
    run = session("$5", run_id="parent")
    stop = run.subscribe(sink)
    run.subscribe(heard.append)
    with run.child(Budget("$1"), "child") as child:
        way.pay(child, call("penny"), Usage(input=1))
    assert [who for who, event in sink.heard if isinstance(event, UsageEvent)] == ["child"]
    assert not used(heard), "a function is told of its own session's events"

    stop()
    with run.child(Budget("$1")) as child:
        way.pay(child, call("penny"), Usage(input=1))
    assert len([event for _, event in sink.heard if isinstance(event, UsageEvent)]) == 1


def test_an_authority_tells_of_all_sessions_that_it_opens_from_then_on() -> None:
    authority = BudgetAuthority(ceilings={"user": Budget("$9")}, pricing=PRICES)
    heard: list[Event] = []
    before = authority.session(Budget("$1"), user="u0")
    stop = authority.subscribe(heard.append)
    with pytest.raises(TypeError, match="is a text"):
        authority.subscribe("http://example.com")  # type: ignore[arg-type]
    sessions = [authority.session(Budget("$1"), user=f"u{n}", feature="f") for n in (1, 2)]
    child = sessions[0].child(Budget("$0.50", max_requests=3))
    stop()
    after = authority.session(Budget("$1"), user="u3")
    for each in (before, *sessions, child, after):
        each.authorize(call("penny")).require().commit(Usage(input=1))

    assert [event.principals for event in used(heard)] == [
        {"user": "u1", "feature": "f"},
        {"user": "u2", "feature": "f"},
        {"user": "u1", "feature": "f"},
    ]


def test_the_latest_events_are_kept_and_no_more() -> None:
    run = session("$100")
    for _ in range(KEPT + 5):
        run.charge("search", "0.01")
    timeline = run._run.recorder.timeline
    assert len(timeline.events(2 * KEPT)) == KEPT
