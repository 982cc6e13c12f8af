"""What a lock guards is touched by nobody who does not hold it.

No threads race here: what is guarded is replaced by what looks at the lock whenever it is touched. So a lock that is
dropped anywhere is noticed each time, in one thread. `test_locks` shows what would become of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from budget_guard import (
    Budget,
    BudgetAuthority,
    LedgerUnavailable,
    LoopPolicy,
    MemoryLedger,
    Session,
    ToolCall,
    Usage,
    live,
)
from budget_guard.calls import queue
from budget_guard.calls.loops import FinishedCall, LoopDetector
from budget_guard.calls.queue import Ticket, WaitingQueue, queue_of
from budget_guard.calls.recorder import Recorder
from budget_guard.calls.run import Run
from budget_guard.calls.spend_rate import SpendRate
from budget_guard.clock import SYSTEM_CLOCK
from budget_guard.events import subscribing
from budget_guard.events.sinks.metering import HeldNow
from budget_guard.events.timeline import Timeline
from budget_guard.ledger.history import Kept, UsageQuery
from budget_guard.ledger.hold_id import hold_id
from budget_guard.ledger.leased import pool
from budget_guard.ledger.leased.lease import Lease, RunLeases
from budget_guard.ledger.leased.ledger import LeasedLedger
from budget_guard.ledger.outbox import store
from budget_guard.ledger.outbox.store import Outbox, new_entry
from budget_guard.ledger.sqlite import SqliteLedger
from budget_guard.ledger.sqlite.writer import Writer
from budget_guard.ledger.waiters import Waiters
from budget_guard.reporting.totals import Totals
from budget_guard.session.answers import KnownAnswers
from budget_guard.session.run_records import RunRecords, RunTally
from budget_guard.testing import FakeClock
from budget_guard.units.amounts import Amounts, Limits
from budget_guard.units.scope import Scope
from tests.builders import PRICES, call

RUN, USER = Scope("run", "r"), Scope("user", "u1")
ONE = Amounts(cost=1)

_CHANGES = (
    "__setitem__ __delitem__ __iadd__ add append appendleft clear discard extend insert intersection_update pop "
    "popitem popleft remove setdefault sort update move_to_end"
)
_ITERATES = ("values", "items", "keys", "__iter__")


class Guard:
    """Notes what is touched while its lock is not held."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.found: list[str] = []
        self.looked_at: set[str] = set()
        self.looks = False
        """Whether anything is looked at: not in a test that is left out."""

    def check(self, what: str, lock: Any) -> None:
        """Note that *what* is touched."""
        self.looked_at.add(what)
        held = lock._is_owned() if hasattr(lock, "_is_owned") else lock.locked()
        if not held:
            self.found.append(what)

    def changes_of(self, value: Any, what: str, lock: Callable[[], Any], iterates: bool = False) -> Any:
        """*value*, a container, whose every change looks at the lock; with *iterates*, each walk through it as well."""
        names = set(_CHANGES.split()) | (set(_ITERATES) if iterates else set())
        self.looks = True
        cls: Any = type(value)

        def checked(name: str) -> Any:
            inner = getattr(cls, name)

            def method(mine: Any, *args: Any, **kwargs: Any) -> Any:
                if "is_made" in mine.__dict__:
                    self.check(what, lock())
                return inner(mine, *args, **kwargs)

            return method

        found = {name: checked(name) for name in names if hasattr(cls, name)}
        made = type(f"Guarded{cls.__name__}", (cls,), found)
        guarded = made(value, value.maxlen) if isinstance(value, deque) else made(value)
        guarded.is_made = True
        return guarded

    def attributes(
        self,
        cls: Any,
        lock: Callable[[Any], Any],
        *names: str,
        reads: bool = True,
        iterates: bool = False,
    ) -> None:
        """Look at the lock whenever one of these attributes is set, or changed in place; or *reads*, whenever it is
        asked for. What an object is made with is not looked at."""
        for name in names:
            self._attribute(cls, lock, name, reads, iterates)

    def _attribute(self, cls: Any, lock: Callable[[Any], Any], name: str, reads: bool, iterates: bool) -> None:
        self.looks = True
        slot = cls.__dict__.get(name)
        what = f"{cls.__name__}.{name}"

        def get(mine: Any) -> Any:
            if reads:
                self.check(what, lock(mine))
            return slot.__get__(mine) if slot is not None else mine.__dict__[name]

        def put(mine: Any, value: Any) -> None:
            try:
                before = slot is not None or name in mine.__dict__
                if slot is not None:
                    slot.__get__(mine)
            except AttributeError:
                before = False
            if before:
                self.check(what, lock(mine))
            if not reads and isinstance(value, (dict, list, set, deque)):
                value = self.changes_of(value, what, lambda: lock(mine), iterates)
            if slot is not None:
                slot.__set__(mine, value)
            else:
                mine.__dict__[name] = value

        self._monkeypatch.setattr(cls, name, property(get, put), raising=False)

    def calls(self, cls: Any, name: str, lock: Callable[..., Any]) -> None:
        """Look at the lock whenever that method is called. Where there is no *lock*, nobody shares what it belongs to.

        Args:
            cls: The class, or the module of a function.
            name: The method.
            lock: The lock, by what the method is called with.
        """
        self.looks = True
        inner = getattr(cls, name)

        def method(*args: Any, **kwargs: Any) -> Any:
            held = lock(*args[:1])
            if held is not None:
                self.check(f"{cls.__name__}.{name}()", held)
            return inner(*args, **kwargs)

        self._monkeypatch.setattr(cls, name, method)


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Guard]:
    made = Guard(monkeypatch)
    yield made
    assert made.looked_at or not made.looks, "nothing was touched at all"
    assert made.found == []


def own(mine: Any) -> Any:
    return mine._lock


# The guard itself


def test_a_touch_without_the_lock_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Careless:
        def __init__(self) -> None:
            self._lock = threading.Lock()
            self.each: list[int] = []

    guard = Guard(monkeypatch)
    guard.attributes(Careless, own, "each", reads=False)
    made = Careless()
    with made._lock:
        made.each.append(1)
        made.each = [*made.each, 2]
    assert (list(made.each), guard.found) == ([1, 2], [])
    made.each.append(3)
    made.each = []
    assert guard.found == ["Careless.each"] * 2


# Calls


def test_loops(guard: Guard) -> None:
    guard.attributes(LoopDetector, own, "_trails")
    loops = LoopDetector(LoopPolicy())
    loops.ask("run", "f", b"x", 0)
    loops.saw("run", "f", b"x", "y", 0)
    loops.judge("run", [FinishedCall("f", {}, "y")] * 9)


def test_the_queue_of_those_that_wait(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    guard.attributes(WaitingQueue, own, "tickets")
    monkeypatch.setattr(
        queue, "_queues", guard.changes_of(queue._queues, "the queues of all ledgers", lambda: queue._queues_lock)
    )
    line = queue_of(MemoryLedger())
    first, second = (Ticket(FakeClock(), (USER,), (), False) for _ in range(2))
    line.join(first)
    line.join(second)
    assert line.awaited((USER,)) == {USER}
    assert (line.turn(first), line.turn(second)) == (None, 0)
    line.wait_for(first, (RUN,))
    assert line.around_others(None) == []
    line.leave(first)
    assert "the queues of all ledgers" in guard.looked_at


def test_the_rate_of_spending(guard: Guard) -> None:
    guard.attributes(SpendRate, own, "_booked", "_held")
    rate = SpendRate()
    rate.take("h", 5, 10, 100, hard=True)
    rate.settle("h", 5, 100)
    rate.add(5, 101)
    assert rate.take("i", 5, 10, 101, hard=True) is not None


class Away(MemoryLedger):
    """A ledger that cannot be reached."""

    away = False

    def balances(self, scopes: Any) -> Any:
        if self.away:
            raise LedgerUnavailable(detail="away")
        return super().balances(scopes)


def totals_of(guard: Guard, *sessions: Session) -> None:
    """Have the totals of *sessions* looked at."""
    locks = {id(each._run.recorder.totals): each._run.recorder.lock for each in sessions}
    for name in ("add", "merge", "total", "breakdown"):
        guard.calls(Totals, name, lambda totals: locks.get(id(totals)))


def test_what_a_session_records(guard: Guard) -> None:
    guard.attributes(Recorder, lambda recorder: recorder.lock, "_warned", reads=False)
    guard.attributes(Run, lambda run: run.recorder.lock, "claimed_tools")
    ledger = Away()
    session = Session(Budget("$1", soft_limit=0.1), pricing=PRICES, ledger=ledger)
    totals_of(guard, session)
    tool = session.authorize(ToolCall("serp", 10_000_000)).require()
    assert session._run.claim_tool("serp")
    tool.release("it was never sent")
    session.authorize(call()).require().commit(Usage())
    session.report()
    ledger.away = True
    session.report()
    ledger.away = False
    session.raise_limits(max_cost_usd="$2")


def test_limits_that_are_raised(guard: Guard) -> None:
    session = Session(Budget("$1"), pricing=PRICES)
    guard.calls(Run, "set_budget", lambda _: session._run.recorder.lock)
    session.raise_limits(max_cost_usd="$2")


def test_what_a_child_has_spent(guard: Guard) -> None:
    session = Session(Budget("$1"), pricing=PRICES)
    with session.child(Budget("$0.50", max_requests=5)) as child:
        totals_of(guard, session, child)
        child.authorize(call()).require().commit(Usage())
    assert session.report().by_child


class Records:
    """Takes records, and keeps none."""

    def add(self, record: Any) -> None:
        pass


def test_the_records_of_runs(guard: Guard) -> None:
    guard.attributes(RunRecords, own, "_open", "_of_hold", "_begun", reads=False, iterates=True)
    session = Session(Budget("$1"), pricing=PRICES)
    totals_of(guard, session)
    records = RunRecords(Records(), session._run)
    session.subscribe(records.of_run(None))  # type: ignore[arg-type]  # it does not look at it
    tally = records.begin()
    session.authorize(call()).require().commit(Usage())
    session.authorize(call()).require().release("refused connection")
    records.end(tally)
    assert tally.calls == 1


def test_what_becomes_of_a_run_that_is_over_is_looked_at_together_with_it(guard: Guard) -> None:
    records = RunRecords(Records(), Session(Budget("$1"), pricing=PRICES)._run)
    guard.attributes(RunTally, lambda _: records._lock, "over", "held", "cost", reads=False)
    tally = records.begin()
    records.end(tally)
    assert tally.over


def test_the_parts_of_a_session(guard: Guard) -> None:
    guard.attributes(Session, lambda session: session._run.recorder.lock, "_handles", "_parts", reads=False)
    authority = BudgetAuthority(ceilings={"user": Budget("$9"), "agent": Budget("$1")}, pricing=PRICES)
    session = authority.session(Budget("$1", agents={"Named": Budget("$0.50")}), user="u1")
    session.authorize(call(agent="Named")).require().commit(Usage())
    client: Any = pytest.importorskip("openai").OpenAI(api_key="none")
    session.guard(client, agent="research-agent-42")
    client.close()


def test_answers_that_are_known(guard: Guard) -> None:
    guard.attributes(KnownAnswers, own, "_ids", "_objects", "_whole")
    known, answer = KnownAnswers(), object()
    assert known.add("a") and not known.add("a")
    assert known.add_object([]) and known.add_object(guard)
    known.forget("a", answer)
    assert known.add("a")


# Events


def test_the_timeline(guard: Guard) -> None:
    guard.attributes(Timeline, own, "started_s", "_subscribers", "emit", reads=False)
    guard.attributes(Timeline, own, "_marks", "_marked", reads=False, iterates=True)
    session = Session(Budget("$1", soft_limit=0.001), pricing=PRICES)
    stop = session.subscribe(lambda event: None)
    session.charge("serp", "0.01")
    session.raise_limits(max_cost_usd="$2")
    assert session.report().marks
    stop()


def test_the_spend_of_the_last_minute_on_the_screen(guard: Guard) -> None:
    guard.attributes(live.SpendLine, own, "_spent", reads=False, iterates=True)
    session = Session(Budget("$1"), pricing=PRICES)
    line = live.SpendLine(session)
    session.charge("serp", "0.01")
    line._started_s -= 60  # it is told only once it can be
    line._per_minute()


def test_an_async_subscriber(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    guard.attributes(subscribing._OnLoop, own, "_waiting", "_is_busy")
    heard: list[int] = []

    async def hear(event: int) -> None:
        heard.append(event)
        if event == 2:
            raise asyncio.CancelledError

    async def main() -> None:
        teller = subscribing._OnLoop(hear)
        for event in range(3):
            teller.put(event)
        while len(heard) < 3:
            await asyncio.sleep(0)

    asyncio.run(main())
    made = asyncio.new_event_loop

    def new_event_loop() -> Any:
        guard.check("the loop of those without one", subscribing._own_lock)
        return made()

    monkeypatch.setattr(asyncio, "new_event_loop", new_event_loop)
    monkeypatch.setattr(subscribing, "_own", None)
    before = set(threading.enumerate())
    loop = subscribing._own_loop()
    assert subscribing._own_loop() is loop
    loop.call_soon_threadsafe(loop.stop)
    for thread in set(threading.enumerate()) - before:
        thread.join(20)
    loop.close()


def test_what_is_held_now(guard: Guard) -> None:
    guard.attributes(HeldNow, own, "_held", "total", reads=False)
    held = HeldNow()
    session = Session(Budget("$1"), pricing=PRICES)

    def hear(event: Any) -> None:
        held.note(event)

    session.subscribe(hear)
    hold = session.authorize(call()).require()
    assert held.total > 0
    hold.commit(Usage())
    assert held.total == 0


def test_costs_on_spans(guard: Guard) -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider

    from budget_guard.events.sinks import OTelSink

    guard.attributes(OTelSink, own, "_on_span")
    session = Session(Budget("$1"), pricing=PRICES)
    session.subscribe(OTelSink())
    with TracerProvider().get_tracer("t").start_as_current_span("s"):
        session.charge("serp", "0.01")


def test_the_worker_of_a_webhook(guard: Guard, tmp_path: Path) -> None:
    from budget_guard.events.sinks.webhook import WebhookSink, _Queue

    guard.attributes(WebhookSink, own, "_worker", reads=False)
    guard.attributes(_Queue, lambda each: each.lock, "_db", reads=False)
    sink = WebhookSink(
        "http://127.0.0.1:9/", secret="whsec_" + "A" * 44, path=tmp_path / "hooks.db", allow_private=True
    )
    sink._start()
    sink.close()
    assert guard.looked_at == {"WebhookSink._worker", "_Queue._db"}


# Ledgers


def test_the_ledger_in_memory(guard: Guard) -> None:
    guard.attributes(MemoryLedger, own, "_expiries", "_groups", "_holds", "_scopes", "_texts", "_users")
    ledger = MemoryLedger(history=Kept())
    ledger.set_limits(RUN, Limits(cost=100))
    ledger.keep_while(RUN, guard)
    ids = [hold_id(number, "h") for number in range(9)]
    for each in ids[:3]:
        ledger.reserve(each, (RUN,), ONE, ONE)
    ledger.forward(ids[0])
    ledger.extend(ids[0], 60)
    ledger.commit(ids[0], (RUN,), ONE)
    ledger.release(ids[1], (RUN,))
    ledger.charge(ids[3], (RUN,), ONE)
    ledger.adjust(ids[4], RUN, ONE, "late")
    ledger.balances((RUN,))
    assert list(ledger.names("run")) == ["r"]
    assert isinstance(ledger.usage(UsageQuery("run", "r", 0, None, ())), list)
    ledger.revoke(RUN, "stolen")
    ledger.restore(RUN)
    ledger.sweep()
    ledger.suspended()
    for text in ("one", None):
        ledger.swap("name", ledger.swap("name", "", None, 60), text, 60)
    assert ledger.audit() == []


def test_who_waits_for_room(guard: Guard) -> None:
    guard.attributes(Waiters, own, "_futures", reads=False)

    async def main() -> None:
        waiters = Waiters(SYSTEM_CLOCK)
        waiting = asyncio.create_task(waiters.wait_async(0, 60))
        await asyncio.sleep(0)
        waiters.give()
        assert await waiting
        waiting = asyncio.create_task(waiters.wait_async(waiters.times, 60))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])

    asyncio.run(main())


def test_the_thread_of_a_ledger_in_a_file(guard: Guard, tmp_path: Path) -> None:
    guard.attributes(Writer, own, "_thread", "_closed", reads=False)
    ledger = SqliteLedger(tmp_path / "ledger.db")
    ledger.set_limits(RUN, Limits(cost=100))
    ledger.close()


@pytest.mark.parametrize("in_a_file", [False, True])
def test_the_outbox(guard: Guard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_a_file: bool) -> None:
    monkeypatch.setattr(store, "fcntl", None)  # as on Windows, where no lock of the file's own keeps threads apart
    guard.attributes(store._Memory, own, "_records", reads=False, iterates=True)
    outbox = Outbox(tmp_path / "outbox.jsonl" if in_a_file else None)
    if in_a_file:
        file: Any = outbox._store
        guard.calls(json, "loads", lambda _: file._lock)
        guard.calls(os, "fsync", lambda _: file._lock)
    outbox.add(new_entry("charge", hold_id(1, "h"), (USER,), ONE))
    assert len(outbox.entries()) == 1
    outbox._store.empty()


def test_leases(guard: Guard) -> None:
    made: list[pool.LeasePool] = []
    begin = pool.LeasePool.__init__

    class Kept(pool.LeasePool):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made.append(self)
            begin(self, *args, **kwargs)

    def of_pool(_: Any = None) -> Any:
        return made[0]._lock

    guard._monkeypatch.setattr("budget_guard.ledger.leased.ledger.LeasePool", Kept)
    guard.attributes(pool.LeasePool, own, "_runs", "_next_beat", "_waiting", reads=False)
    guard.attributes(pool.LeasePool, own, "_lease_of")
    guard.attributes(RunLeases, of_pool, "users", "current", "spent", "draining", reads=False)
    guard.attributes(Lease, of_pool, "closed", "booked", reads=False)
    guard.calls(RunLeases, "see", of_pool)
    clock = FakeClock()
    shared = MemoryLedger(clock=clock)
    leased = LeasedLedger(shared, clock=clock)
    authority = BudgetAuthority(leased, {"user": Budget("$3")}, pricing=PRICES, clock=clock)
    run = authority.session(Budget("$2"), user="u1")
    hold = run.authorize(call()).require()
    run.charge("serp", "0.001")
    hold.commit(Usage())
    with made[0].waiting():
        run.authorize(call()).require().commit(Usage())
    clock.advance(600)
    run.charge("serp", "0.001")
    leased.settle()
    assert shared.audit() == []
    assert len(guard.looked_at) == 11


# LangChain


def test_calls_of_langchain(guard: Guard) -> None:
    pytest.importorskip("langchain_core")
    from budget_guard_langchain.calls import Calls

    guard.attributes(Calls, own, "_open", "_parts", "_over", reads=False, iterates=True)
    calls = Calls()
    run, parent = uuid.uuid4(), uuid.uuid4()

    class Made:
        """As much of a call as it takes to be one."""

        def __init__(self, run_id: uuid.UUID, parent_run_id: uuid.UUID | None) -> None:
            self.id, self.run_id, self.parent_run_id = "h", run_id, parent_run_id
            self.older = self.batch = self.unwatch = self.request = self.counted = None
            self.ended: list[str] = []

        def release(self, reason: str) -> None:
            self.ended.append(reason)

        def estimate(self, reason: str, seen: Any) -> None:
            self.ended.append(reason)

        def seen(self) -> None:
            return None

    first: Any = Made(run, parent)
    calls.begin(first, None)
    ended: Any = calls.end(run)
    assert ended is first
    assert calls.is_new(uuid.uuid4()) and not calls.is_new(run)
    second: Any = Made(uuid.uuid4(), parent)
    calls.begin(second, None)
    calls.end_of_run(parent)
    third: Any = Made(uuid.uuid4(), None)
    calls.begin(third, None)
    calls.release_batch(None, "refused")
    made: list[Any] = [first, second, third]
    assert [each.ended for each in made] == [
        [],
        ["its run ended, and nobody said how the call did"],
        ["refused"],
    ]


def test_runs_by_tree_of_langchain(guard: Guard) -> None:
    pytest.importorskip("langchain_core")
    from budget_guard_langchain.runs import RunsByTree

    guard.attributes(RunsByTree, own, "_tallies", reads=False)
    runs = RunsByTree(RunRecords(Records(), Session(Budget("$1"), pricing=PRICES)._run))
    top, part = uuid.uuid4(), uuid.uuid4()
    runs.begin(top, None)
    runs.begin(part, top)
    runs.end(part)
    runs.end(top)
    assert not runs.knows(top)


def test_runs_and_sessions_and_tool_calls_of_langchain(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("langchain_core")
    from langchain_core.messages import AIMessage
    from langchain_core.tools import tool

    from budget_guard_langchain import guarded_tools
    from budget_guard_langchain.ceilings import SessionsById
    from budget_guard_langchain.trails import Trails

    guard.attributes(Trails, own, "_roots", reads=False)
    guard.attributes(SessionsById, own, "_sessions")
    monkeypatch.setattr(
        guarded_tools,
        "_asked",
        guard.changes_of(guarded_tools._asked, "the tool calls of all agents", lambda: guarded_tools._lock),
    )
    trails, run = Trails(), uuid.uuid4()
    trails.begin(run, None)
    trails.end(run)
    SessionsById(lambda name: Session(Budget("$1"))).get("thread", [0] * 6)

    @tool
    def lookup(key: str) -> str:
        """Look it up."""
        return key

    asked = AIMessage("", tool_calls=[{"name": "lookup", "args": {"key": "k"}, "id": "c1"}])
    active: Any = object()
    guarded_tools.note_calls([lookup], [asked], None, active)
    assert {"the tool calls of all agents", "Trails._roots", "SessionsById._sessions"} <= guard.looked_at


def test_guarded_containers_are_as_they_were() -> None:
    made: Any = Guard(pytest.MonkeyPatch()).changes_of(OrderedDict({"a": 1}), "it", threading.RLock)
    assert made == {"a": 1}
