"""A reserve and a commit in four scopes, on every ledger, against the least that its store could do.

Prints ratios within one run, and CPU time where other work on the machine would blur the wall's. Run it on an idle
machine: ``python benchmarks/ledgers.py``, or with the names of the sections that are wanted.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import random
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _redis import redis_server

from budget_guard import Budget, BudgetAuthority, ModelCall, Usage, weigh
from budget_guard.clock import Clock
from budget_guard.ledger import Held, Ledger, MemoryLedger
from budget_guard.ledger.flow import Flow, Verb
from budget_guard.ledger.hold_id import hold_id
from budget_guard.ledger.leased.ledger import LeasedLedger
from budget_guard.ledger.sqlite import SqliteLedger
from budget_guard.ledger.verbs import LedgerWrapper
from budget_guard.testing import FakeClock
from budget_guard.units.amounts import Amounts, Limits
from budget_guard.units.scope import Scope

SCOPES = tuple(Scope(kind, "1") for kind in ("run", "user", "key", "team"))
HELD = Amounts(cost=500, input_tokens=700, output_tokens=200, total_tokens=900, requests=1)
SPENT = Amounts(cost=300, input_tokens=650, output_tokens=90, total_tokens=740, requests=1)
BATCH = 200
_numbers = itertools.count()


def new_id() -> str:
    """An id as a run makes it."""
    return hold_id(time.time_ns() // 1_000_000, f"0123456789ab-{next(_numbers)}")


def opened(ledger: Ledger) -> Ledger:
    """*ledger* with a ceiling in every scope that nothing reaches."""
    for scope in SCOPES:
        ledger.set_limits(scope, Limits(cost=10**18))
    return ledger


def batch_us(once: Callable[[], object]) -> float:
    """The CPU microseconds of one call, over a batch."""
    start = time.thread_time_ns()
    for _ in range(BATCH):
        once()
    return (time.thread_time_ns() - start) / BATCH / 1_000


def memory() -> None:
    """The ledger in memory against two locked updates of as many counters, an insert and a delete."""
    lock, holds = threading.Lock(), dict[str, Amounts]()

    def floor(scopes: int) -> Callable[[], None]:
        counters = {scope: ([0] * 6, [0] * 6) for scope in SCOPES[:scopes]}

        def once() -> None:
            made = new_id()
            with lock:
                a, b, c, d, e, f = HELD
                for _, reserved in counters.values():
                    reserved[0] += a
                    reserved[1] += b
                    reserved[2] += c
                    reserved[3] += d
                    reserved[4] += e
                    reserved[5] += f
                holds[made] = HELD
            with lock:
                a, b, c, d, e, f = holds.pop(made)
                u, v, w, x, y, z = SPENT
                for committed, reserved in counters.values():
                    reserved[0] -= a
                    reserved[1] -= b
                    reserved[2] -= c
                    reserved[3] -= d
                    reserved[4] -= e
                    reserved[5] -= f
                    committed[0] += u
                    committed[1] += v
                    committed[2] += w
                    committed[3] += x
                    committed[4] += y
                    committed[5] += z

        return once

    def pair(ledger: Ledger, scopes: tuple[Scope, ...]) -> Callable[[], None]:
        def once() -> None:
            made = new_id()
            ledger.reserve(made, scopes, HELD, HELD)
            ledger.commit(made, scopes, SPENT)

        return once

    ledger = opened(MemoryLedger())
    for scopes in (1, 4):
        ways = (new_id, floor(scopes), pair(ledger, SCOPES[:scopes]))
        rounds = [[batch_us(way) for way in ways] for _ in range(400)]  # in turn: the machine's speed meets them all
        least, whole = (statistics.median(each[i] - each[0] for each in rounds[100:]) for i in (1, 2))
        ratio = statistics.median((each[2] - each[0]) / (each[1] - each[0]) for each in rounds[100:])
        print(f"memory   {scopes} scopes   floor {least:5.2f} us   {ratio:4.1f} x ({whole:.2f} us)   goal 4.5 x")


def sqlite() -> None:
    """The ledger in a file against a transaction of one row's update, with and without the wait for the disk."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        for durable in (True, False):
            bare = _bare_transactions(Path(folder) / f"bare-{durable}.db", durable)
            print(f"sqlite   durable={durable!s:5}   one row's update alone {bare:7,.0f} transactions/s")
            ledger = opened(SqliteLedger(Path(folder) / f"ledger-{durable}.db", durable=durable))
            asyncio.run(_pairs(ledger, 128, 2_000))  # warm up
            for tasks, pairs in ((1, 300), (16, 3_000), (128, 20_000)):
                start, cpu = time.perf_counter(), time.process_time()
                asyncio.run(_pairs(ledger, tasks, pairs))
                rate = pairs / (time.perf_counter() - start)
                each = (time.process_time() - cpu) / pairs * 1e6
                goal = "   goal 5,000" if durable and tasks == 128 else ""
                print(f"         {tasks:4} tasks {rate:7,.0f} pairs/s {rate / bare:7.2f} x {each:6.0f} us CPU{goal}")
            assert ledger.audit() == []
            ledger.close()


async def _pairs(ledger: Ledger, tasks: int, pairs: int) -> None:
    async def work() -> None:
        for _ in range(pairs // tasks):
            made = new_id()
            await ledger.aio.reserve(made, SCOPES, HELD, HELD)
            await ledger.aio.commit(made, SCOPES, SPENT)

    await asyncio.gather(*(work() for _ in range(tasks)))


def _bare_transactions(path: Path, durable: bool) -> float:
    """Transactions a second of one connection that updates one row in each."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    db.execute("CREATE TABLE counter (key INTEGER PRIMARY KEY, committed INTEGER) STRICT")
    db.execute("INSERT INTO counter VALUES (1, 0)")
    count = 1_000
    start = time.perf_counter()
    for _ in range(count):
        db.execute("UPDATE counter SET committed = committed + 3 WHERE key = 1")
    rate = count / (time.perf_counter() - start)
    db.close()
    return rate


class _Counting(LedgerWrapper):
    """A shared ledger in memory whose round trips are counted."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(MemoryLedger(clock=clock))
        self.trips = 0

    def flow(self, verb: Verb, arguments: tuple[Any, ...]) -> Flow[Any]:
        self.trips += 1
        return super().flow(verb, arguments)


def leases() -> None:
    """Round trips to a shared ledger for each call, with and without leases, until the ceiling refuses every run.

    A simulation: calls cost lognormal amounts and are estimated 1.2 to 8 times too high, a call takes 2 s.
    """
    for workers, usd in ((8, 20), (64, 100), (64, 400)):
        for processes in (0, workers, 1):
            trips, refused, most = _fleet(workers, processes, usd)
            how = f"leases, {processes:2} processes" if processes else "every call by itself"
            print(
                f"leases   {workers:2} runs, ${usd:3}, {how:20} {trips:.3f} round trips a call, "
                f"first refused at {refused:.0%}, at most {most:.1%} committed and held"
            )


def _fleet(workers: int, processes: int, usd: int) -> tuple[float, float, float]:
    chance, clock, user, ceiling = random.Random(7), FakeClock(), Scope("user", "1"), usd * 10**9
    shared = _Counting(clock)
    ledgers: list[Ledger] = [LeasedLedger(shared, clock=clock) for _ in range(processes)] or [shared]
    runs = [(Scope("run", str(worker)), user) for worker in range(workers)]
    for scope in {scope for run in runs for scope in run}:
        shared.inner.set_limits(scope, Limits(cost=ceiling) if scope == user else Limits())
    due = [(chance.random(), worker, "", 0) for worker in range(workers)]
    calls = spent = most = 0
    refused = 0.0
    while due:
        at, worker, held, cost = heapq.heappop(due)
        clock.advance(max(0.0, at - clock.monotonic()))
        ledger, run = ledgers[worker % len(ledgers)], runs[worker]
        if held:
            ledger.commit(held, run, Amounts(cost, requests=1))
            calls, spent = calls + 1, spent + cost
        cost = int(chance.lognormvariate(math.log(8e6), 0.9))
        bound = Amounts(int(cost * chance.uniform(1.2, 8)), requests=1)
        held = hold_id(clock.now_ms(), f"0123456789ab-{next(_numbers)}")
        ledger.balances(run)
        if isinstance(ledger.reserve(held, run, bound, bound), Held):
            ledger.forward(held)
            heapq.heappush(due, (at + chance.expovariate(0.5), worker, held, cost))
        else:
            refused = refused or spent / ceiling
        balance = shared.inner.balances((user,))[0]
        most = max(most, balance.committed.cost + balance.reserved.cost)
    return shared.trips / calls, refused, most / ceiling


def redis() -> None:
    """One verb in four scopes against a bare INCRBY through redis-py, on a server of its own, blocking and awaited.

    Then the round trips of one call under an authority, as the server counts them.
    """
    import redis as library

    from budget_guard.ledger.redis import RedisLedger

    with redis_server() as server:
        if server is None:
            return
        ledger = RedisLedger(server.url, timeout_s=5)
        _blocking_round_trips(ledger, server.client)
        asyncio.run(_awaited_round_trips(RedisLedger(server.url, timeout_s=5), server.client))
        opened(ledger)
        _blocking_verbs(ledger, server.client)
        asyncio.run(_awaited_verbs(ledger, library.asyncio.Redis(port=server.port)))
        assert ledger.audit() == []
        ledger.close()


CEILINGS = {kind: Budget("$1000000", window="day") for kind in ("user", "key", "team")}
CALL = ModelCall("gpt-4o", weigh(messages="Why is the sky blue?"), max_output_tokens=200)
USAGE = Usage(input=12, output=150)
WARM, COUNTED = 5, 100


def _blocking_round_trips(ledger: Ledger, client: Any) -> None:
    authority = BudgetAuthority(ledger, CEILINGS)
    with authority.session(Budget("$1000"), user="u", key="k", team="t") as session:
        for number in range(WARM + COUNTED):
            if number == WARM:
                before = _served(client)
            session.authorize(CALL, sent=True).require().commit(USAGE)
        _tell_round_trips("blocking", before, _served(client))


async def _awaited_round_trips(ledger: Ledger, client: Any) -> None:
    authority = BudgetAuthority(ledger, CEILINGS)
    async with await authority.asession(Budget("$1000"), user="u", key="k", team="t") as session:
        for number in range(WARM + COUNTED):
            if number == WARM:
                before = _served(client)
            decision = await session.aauthorize(CALL, sent=True)
            await decision.require().acommit(USAGE)
        _tell_round_trips("awaited", before, _served(client))
    await ledger.aio.close()


def _served(client: Any) -> tuple[int, int]:
    """The reads of the server from its clients, and the scripts it has run, counted."""
    stats, commands = client.info("stats"), client.info("commandstats")
    scripts = sum(commands.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha", "fcall"))
    return int(stats["total_reads_processed"]), int(scripts)


def _tell_round_trips(how: str, before: tuple[int, int], after: tuple[int, int]) -> None:
    reads = after[0] - before[0] - 2  # the second INFO of the first count, and the first of the second
    scripts = after[1] - before[1]
    print(
        f"redis    {how:10} a call under three ceilings   {reads / COUNTED:.2f} round trips, "
        f"{scripts / COUNTED:.2f} scripts, counted by the server   goal 2"
    )


def _blocking_verbs(ledger: Ledger, client: Any) -> None:
    times: dict[str, list[float]] = {"INCRBY": [], "reserve": [], "commit": []}
    for _ in range(2_000):  # turn by turn: other work on the machine disturbs all of them alike
        made = new_id()
        for name, verb in (
            ("INCRBY", lambda: client.incrby("bare", 5)),
            ("reserve", lambda made=made: ledger.reserve(made, SCOPES, HELD, HELD)),
            ("commit", lambda made=made: ledger.commit(made, SCOPES, SPENT)),
        ):
            start = time.perf_counter()
            verb()
            times[name].append(time.perf_counter() - start)
    _tell_redis("blocking", times)


async def _awaited_verbs(ledger: Ledger, client: Any) -> None:
    times: dict[str, list[float]] = {"INCRBY": [], "reserve": [], "commit": []}
    for tasks in (1, 32):
        for kept in times.values():
            kept.clear()
        for _ in range(1_600 // tasks):
            ids = [new_id() for _ in range(tasks)]
            for name, verb in (
                ("INCRBY", lambda _: client.incrby("bare", 5)),
                ("reserve", lambda made: ledger.aio.reserve(made, SCOPES, HELD, HELD)),
                ("commit", lambda made: ledger.aio.commit(made, SCOPES, SPENT)),
            ):
                start = time.perf_counter()
                await asyncio.gather(*map(verb, ids))
                times[name].append((time.perf_counter() - start) / tasks)
        _tell_redis(f"{tasks} awaited", times)
    await client.aclose()
    await ledger.aio.close()


def _tell_redis(how: str, times: dict[str, list[float]]) -> None:
    least, reserve, commit = (statistics.median(each) * 1e6 for each in times.values())
    print(f"redis    {how:10}   INCRBY {least:4.0f} us", end="   ")
    print(f"reserve {reserve / least:.1f} x   commit {commit / least:.1f} x   goal 3 x")


SECTIONS = {"memory": memory, "sqlite": sqlite, "redis": redis, "leases": leases}


def main() -> None:
    """Measure and print the sections that are named, or all."""
    for name in sys.argv[1:] or SECTIONS:
        SECTIONS[name]()


if __name__ == "__main__":
    main()
