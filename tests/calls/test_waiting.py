"""Waiting for room: who waits for whom, in which order, and that nobody waits for himself."""

from __future__ import annotations

import asyncio
import contextvars
import os
import random
import selectors
import signal
import threading
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from budget_guard import Budget, BudgetAuthority, BudgetExceeded, MemoryLedger, Session, ToolCall, Usage
from budget_guard.calls import enclosing as inside
from budget_guard.calls import queue
from budget_guard.calls.authorizer import _Place
from budget_guard.calls.queue import Ticket, WaitingQueue, queue_of
from budget_guard.clock import SYSTEM_CLOCK
from budget_guard.ledger.base import Balance
from budget_guard.ledger.waiters import Waiters
from budget_guard.testing import FakeClock
from budget_guard.units.scope import Scope
from tests.builders import PRICES, ZERO, Way, apart, call, session


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on which time passes at once where all tasks wait for it."""

    def __init__(self) -> None:
        super().__init__(_Selector(self))
        self.passed = 0.0

    def time(self) -> float:
        return self.passed


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if not ready:
            assert timeout is not None, "all tasks wait for one another"
            self._loop.passed += timeout
        return ready


class LoopClock:
    """The time of a `VirtualLoop`."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def monotonic(self) -> float:
        return self._loop.time()

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=self._loop.time())

    def now_ms(self) -> int:
        return int(self.now().timestamp() * 1_000)

    def wait(self, condition: threading.Condition, ready: Callable[[], bool], timeout: float) -> bool:
        raise AssertionError("nothing blocks the loop")

    async def wait_async(self, future: asyncio.Future[None], timeout: float) -> bool:
        done, _ = await asyncio.wait({future}, timeout=timeout)
        return bool(done)


def run_virtually(program: Callable[[LoopClock], Coroutine[Any, Any, None]]) -> float:
    """Run *program* to its end; return how many seconds passed."""
    loop = VirtualLoop()
    try:
        apart(loop.run_until_complete, program(LoopClock(loop)))
        return loop.time()
    finally:
        loop.close()


async def pay(run: Session, tokens: int, seconds: float, **options: Any) -> int | None:
    """One whole call; return its output cap, or what was held without one, None where it was refused."""
    decision = await run.aauthorize(call("large", tokens=0, **options))
    if decision.reservation is None:
        return None
    await asyncio.sleep(seconds)
    most = decision.estimate.output_tokens
    await decision.reservation.acommit(Usage(output=min(tokens, most)))
    return most


# --- the order


def test_who_waits_first_is_served_first_and_nobody_passes() -> None:
    served: list[int] = []

    async def program(clock: LoopClock) -> None:
        run = session("$0.05", clock=clock)
        first = asyncio.create_task(pay(run, 10, 5, cap=5_000))
        await asyncio.sleep(1)

        async def one(number: int, cap: int) -> None:
            await pay(run, 10, 1, cap=cap)
            served.append(number)

        waiting = [asyncio.create_task(one(number, 4_000 - number)) for number in range(5)]
        await asyncio.sleep(1)
        small = asyncio.create_task(one(5, 900))  # which would fit beside any of them
        await asyncio.gather(first, small, *waiting)

    run_virtually(program)
    assert served == list(range(6))


def test_threads_are_served_in_the_same_order() -> None:
    run = session("$0.05", clock=SYSTEM_CLOCK)
    held = apart(run.authorize, call("large", tokens=0, cap=5_000)).require()
    served: list[int] = []

    def one(number: int) -> None:
        reservation = run.authorize(call("large", tokens=0, cap=4_000)).require()
        served.append(number)
        reservation.commit(Usage(output=1))

    threads: list[threading.Thread] = []
    for number in range(5):
        thread = threading.Thread(target=one, args=(number,))
        threads.append(thread)
        thread.start()
        while len(queue_of(run.ledger).tickets) <= number:
            pass
    held.commit(Usage(output=1))
    for thread in threads:
        thread.join()
    assert served == list(range(5))
    assert queue_of(run.ledger).tickets == []


def test_who_waits_for_another_scope_stands_in_nobodys_way() -> None:
    async def program(clock: LoopClock) -> None:
        ledger = MemoryLedger(clock=clock)
        tight, other = (session("$0.05", ledger=ledger, clock=clock) for _ in range(2))
        first = asyncio.create_task(pay(tight, 10, 5, cap=5_000))
        second = asyncio.create_task(pay(tight, 10, 5, cap=5_000))
        await asyncio.sleep(1)
        assert len(queue_of(ledger).tickets) == 1
        assert await pay(other, 10, 1, cap=5_000) == 5_000
        assert clock.monotonic() == 2
        await asyncio.gather(first, second)

    run_virtually(program)


def test_sessions_of_one_ledger_share_its_line() -> None:
    async def program(clock: LoopClock) -> None:
        ledger = MemoryLedger(clock=clock)
        authority = BudgetAuthority(ledger=ledger, ceilings={"user": Budget("$0.05")}, pricing=PRICES, clock=clock)
        runs = [authority.session(Budget("$1"), user="u1") for _ in range(3)]
        first = asyncio.create_task(pay(runs[0], 10, 5, cap=5_000))
        await asyncio.sleep(1)
        big = asyncio.create_task(pay(runs[1], 10, 5, cap=4_500))
        await asyncio.sleep(1)
        assert await pay(runs[2], 10, 1, cap=400) == 400
        assert clock.monotonic() == 6  # together with the older one, as soon as there was room
        await asyncio.gather(first, big)

    run_virtually(program)


async def test_a_cancelled_wait_leaves_the_line() -> None:
    run = session("$0.05", clock=SYSTEM_CLOCK)
    held = (await asyncio.create_task(run.aauthorize(call("large", tokens=0, cap=5_000)))).require()
    waiting = [asyncio.create_task(run.aauthorize(call("large", tokens=0, cap=4_000))) for _ in range(3)]
    await asyncio.sleep(0)
    for each in waiting[:2]:
        each.cancel()
    await asyncio.gather(*waiting[:2], return_exceptions=True)
    await held.arelease("429")
    assert (await waiting[2]).action == "allow"
    assert queue_of(run.ledger).tickets == []


def test_a_forked_process_begins_with_an_empty_line() -> None:
    line = WaitingQueue()
    line.join(Ticket(FakeClock(), (), (), False))
    line.forked()
    assert line.tickets == []


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_process_that_is_forked_while_others_stand_in_line_waits_for_none_of_them() -> None:
    ledger = MemoryLedger()
    line = queue_of(ledger)

    def forked(generations: int) -> int:
        """Fork in the middle of everything, so often; return how the child ended."""
        line.join(Ticket(FakeClock(), (), (), False))
        with queue._queues_lock, line._lock:  # as another thread, which no fork takes along, may hold them
            child = os.fork()
            if child == 0:
                code = 1
                signal.alarm(20)  # what waits for a lock that nobody gives back is ended
                try:
                    same, alone = queue_of(ledger) is line, not line.awaited(()) and not line.tickets
                    code = 0 if same and alone and (not generations or forked(generations - 1) == 0) else 1
                finally:
                    os._exit(code)
        return os.waitpid(child, 0)[1]

    assert forked(2) == 0
    assert len(line.tickets) == 1


def test_a_storm_of_calls_without_a_cap_gets_whole_answers() -> None:
    whole: list[int] = []

    async def program(clock: LoopClock) -> None:
        run = session("$0.50", clock=clock)

        async def one() -> None:
            most = await pay(run, 4_000, 2)
            if most is not None:
                whole.append(most)

        await asyncio.gather(*(one() for _ in range(40)))
        assert run.spent_usd <= Decimal("0.50")

    assert run_virtually(program) < 30
    assert len(whole) == 12 and min(whole) >= 4_000


class Racing(MemoryLedger):
    """A ledger in which something happens right after somebody has looked at it."""

    then: Callable[[], object] | None = None

    def balances(self, scopes: Sequence[Scope]) -> Sequence[Balance]:
        seen = super().balances(scopes)
        then, self.then = self.then, None
        if then is not None:
            then()
        return seen


@pytest.mark.parametrize("used", [3_000, 2_500])
def test_a_call_does_not_wait_for_what_was_spent_right_after_it_looked(used: int) -> None:
    async def program(clock: LoopClock) -> None:
        ledger = Racing(clock=clock)
        run = session("$0.05", clock=clock, ledger=ledger)
        other = apart(lambda: run.authorize(call("large", tokens=0, cap=3_000)).require())
        ledger.then = lambda: other.commit(Usage(output=used))
        decision = run.authorize(call("large", tokens=0))  # to block the loop is an error
        if used == 2_500:
            assert decision.output_cap == 2_500  # it is alone now
        else:  # what is left is less than such answers take
            assert decision.action == "block" and "try again" not in str(decision.error)

    assert run_virtually(program) == 0


# --- oneself


def test_a_call_does_not_wait_for_its_own_open_stream() -> None:
    async def program(clock: LoopClock) -> None:
        run = session("$0.05", clock=clock)
        stream = (await run.aauthorize(call("large", tokens=0, cap=3_000))).require()
        decision = await run.aauthorize(call("large", tokens=0, cap=3_000))
        assert decision.action == "block" and "try again" not in str(decision.error)
        assert (await run.aauthorize(call("large", tokens=0))).output_cap == 2_000  # beside it, it is alone
        await stream.acommit(Usage(output=1))

    assert run_virtually(program) == 0


def test_tasks_inside_a_tool_wait_for_each_other_but_not_for_the_tool() -> None:
    async def program(clock: LoopClock) -> None:
        run = session("$0.05", clock=clock)
        tool = (await run.aauthorize(ToolCall("research", 10_000_000))).require()
        caps = await asyncio.gather(*(pay(run, 900, 3) for _ in range(4)))
        assert all(cap is not None and cap >= 900 for cap in caps)
        await tool.acommit_cost("0.01")

    assert 0 < run_virtually(program) < 30


def test_a_call_waits_for_no_tool_of_its_run_whose_context_a_framework_may_have_lost(way: Way) -> None:
    clock = FakeClock()
    run = session(Budget("$0.05", max_tool_calls=1), clock=clock)
    tool = way.reserve(run, ToolCall("research", 30_000_000))
    assert way.authorize(run, ToolCall("search")).action == "block"
    assert way.authorize(run, call("large", tokens=0, cap=3_000)).action == "block"
    assert clock.monotonic() == 0
    way.commit_cost(tool, 0)
    assert run._run.open_tools == {}
    assert way.authorize(run, call("large", tokens=0, cap=3_000)).action == "allow"


def test_a_call_does_not_wait_for_a_child_session_that_is_open_around_it(way: Way) -> None:
    clock = FakeClock()
    run = session("$0.05", clock=clock)
    with run.child(Budget("$0.03")) as child:
        assert run.authorize(call("large", tokens=0, cap=3_000)).action == "block"
        assert clock.monotonic() == 0
        assert apart(way.authorize, run, call("large", tokens=0, cap=3_000)).action == "block"
        assert clock.monotonic() == 30  # by another task, which may wait until it is closed
        assert child.authorize(call("large", tokens=0)).output_cap == 3_000


def test_two_tools_whose_calls_would_wait_for_each_other_do_not(way: Way) -> None:
    async def program(clock: LoopClock) -> None:
        run = session("$0.05", clock=clock)

        async def tool(seconds: float) -> None:
            held = (await run.aauthorize(ToolCall("research", 20_000_000))).require()
            await asyncio.sleep(seconds)
            await pay(run, 10, 1, cap=2_000)  # which does not fit while both tools run
            await held.acommit_cost(0)

        await asyncio.gather(tool(1), tool(2))
        assert run.spent_usd > ZERO

    assert run_virtually(program) < 10


def test_threads_that_copy_the_context_are_inside_as_well() -> None:
    clock = FakeClock()
    run = session("$0.05", clock=clock)
    held = run.authorize(call("large", tokens=0, cap=3_000)).require()
    context = contextvars.copy_context()
    done: list[str] = []
    thread = threading.Thread(
        target=lambda: done.append(context.run(run.authorize, call("large", tokens=0, cap=3_000)).action)
    )
    thread.start()
    thread.join()
    assert (done, clock.monotonic()) == (["block"], 0)
    held.release("429")


def test_what_a_task_is_inside_of_is_kept_in_bounded_memory() -> None:
    run = session("$5")

    def many() -> int:
        before = run.authorize(call("brief")).require()
        for _ in range(1_000):  # each begins before the last one is over
            after = run.authorize(call("brief")).require()
            before.commit(Usage(output=1))
            before = after
        link = inside._inside.get()
        return 0 if link is None else link[2]

    assert apart(many) < 200


# --- trees

MOST_SECONDS = 1e6
"""Nobody gives up before: so who waits for himself is found."""


class Tree:
    """A random program of runs, children, streams, tools and calls in parallel."""

    def __init__(self, seed: int, clock: LoopClock) -> None:
        self._random = random.Random(seed)
        self._ledger = MemoryLedger(clock=clock)
        options: dict[str, Any] = {"max_wait_s": MOST_SECONDS}
        self._authority = BudgetAuthority(
            ledger=self._ledger, ceilings={"user": Budget("$0.20")}, pricing=PRICES, clock=clock
        )
        self._sessions = [
            self._authority.session(
                Budget(f"${self._random.choice(['0.05', '0.10', '0.30'])}", **options),
                user=self._random.choice(["u1", "u2"]),
            )
            for _ in range(self._random.randint(1, 3))
        ]
        self._nodes = 0

    async def run(self) -> None:
        """Run it, and look whether all is well afterwards."""
        await asyncio.gather(*(self._node(self._any(), 0) for _ in range(self._random.randint(2, 6))))
        assert self._ledger.audit() == []
        for run in self._sessions:
            balances = self._ledger.balances(run._run.scopes)
            for balance in balances:
                assert balance.open_holds == 0
                assert balance.limits.cost is None or balance.committed.cost <= balance.limits.cost

    def _any(self) -> Session:
        return self._random.choice(self._sessions)

    async def _node(self, run: Session, depth: int) -> None:
        self._nodes += 1
        if self._random.random() < 0.15:
            run = self._any()
        kinds = [self._call] if depth > 3 or self._nodes > 60 else [self._call, self._stream, self._tool, self._child]
        await asyncio.sleep(self._random.random() * 3)
        await self._random.choice(kinds)(run, depth)

    async def _inner(self, run: Session, depth: int) -> None:
        nodes = [self._node(run, depth + 1) for _ in range(self._random.randint(1, 3))]
        if self._random.random() < 0.5:
            await asyncio.gather(*nodes)
        else:
            for node in nodes:
                await node

    async def _call(self, run: Session, depth: int) -> None:
        cap = self._random.choice([None, None, 500, 3_000])
        await pay(run, self._random.choice([100, 2_000, 6_000]), self._random.randint(1, 20), cap=cap)

    async def _stream(self, run: Session, depth: int) -> None:
        decision = await run.aauthorize(call("large", tokens=0, cap=self._random.choice([None, 1_000])))
        if decision.reservation is not None:
            await self._inner(run, depth)
            await decision.reservation.acommit(Usage(output=100))

    async def _tool(self, run: Session, depth: int) -> None:
        decision = await run.aauthorize(ToolCall("search", self._random.choice([0, 5_000_000, 30_000_000])))
        if decision.reservation is not None:
            await self._inner(run, depth)
            await decision.reservation.acommit_cost(0)

    async def _child(self, run: Session, depth: int) -> None:
        budget = Budget(self._random.choice(["$0.01", "$0.05"]), max_wait_s=MOST_SECONDS)
        try:
            child = await run.achild(budget)
        except BudgetExceeded:
            return
        async with child:
            await self._inner(child, depth)


@pytest.mark.parametrize("part", range(4))
def test_in_a_thousand_random_trees_nobody_waits_for_himself(part: int) -> None:
    for seed in range(part * 250, part * 250 + 250):

        async def program(clock: LoopClock, seed: int = seed) -> None:
            await Tree(seed, clock).run()

        assert run_virtually(program) < MOST_SECONDS / 2, f"seed {seed}: somebody waited for ever"


def test_a_call_is_behind_those_that_stand_in_the_queue_and_not_behind_itself_or_those_that_pass() -> None:
    queue, here, there = WaitingQueue(), Scope("run", "here"), Scope("run", "there")
    own = Ticket(FakeClock(), (here,), (), False)
    queue.join(own)
    queue.join(Ticket(FakeClock(), (here,), (), True))
    assert queue.awaited((here, there)) == {here}
    assert queue.awaited((here, there), but=own) == frozenset()


def test_of_two_calls_that_look_at_once_the_second_one_sees_what_the_first_one_is_inside_of() -> None:
    run = session("$0.05")
    holds = [apart(run.authorize, call("large", tokens=0, cap=2_000)).require() for _ in range(2)]
    places = [_Place(run._run, [hold]) for hold in holds]
    balances = run.ledger.balances(run._run.scopes)
    left = [place.later(balances).cost for place in places]
    assert left == [30_000_000, 10_000_000]
    for place in places:
        place.leave()
    assert not run._run.queue.tickets


class SettledMeanwhile(MemoryLedger):
    """Settles the other call between a look at what is left and the reserve that follows it, as another process may."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.settle: Callable[[], object] | None = None
        self.looks = 0

    def balances(self, scopes: Sequence[Scope]) -> Sequence[Balance]:
        self.looks += 1
        return super().balances(scopes)

    def reserve(self, *arguments: Any) -> Any:
        if self.settle is not None and self.looks:
            settle, self.settle = self.settle, None
            settle()
        return super().reserve(*arguments)


def test_nobody_waits_for_a_hold_that_was_spent_between_the_look_and_the_refusal(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock(datetime.now(timezone.utc))
    ledger = SettledMeanwhile(clock)
    budget = Budget("$0.15", downgrade={"large": "small"})  # what is left is looked at before the call is reserved
    run = Session(budget, pricing=PRICES, clock=clock, ledger=ledger)
    other = contextvars.Context().run(run.authorize, call()).require()
    waits: list[float] = []
    monkeypatch.setattr(Waiters, "wait", lambda _, times, timeout: waits.append(timeout))
    monkeypatch.setattr(Waiters, "wait_async", lambda _, times, timeout: _noted(waits, timeout))
    ledger.looks = 0
    ledger.settle = lambda: other.commit(Usage(requests=1))
    refused = way.authorize(run, call(cap=16))
    assert ledger.settle is None and waits == []
    assert isinstance(refused.error, BudgetExceeded) and not refused.error.waiting_helps


async def _noted(waits: list[float], timeout: float) -> bool:
    waits.append(timeout)
    return False
