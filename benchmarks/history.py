"""What the usage history costs: time for each call, round trips, and rows after a year of 2,000 tenants.

Ratios within one run, with and without the history in turn: ``python benchmarks/history.py``, or with the names of the
sections that are wanted. The whole platform, whose provider keeps a ledger of its own, is
``python -m tests.session.platform 2000``.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from unittest import mock

from _redis import redis_server

from budget_guard import Budget, BudgetAuthority, ModelCall, Usage, weigh
from budget_guard.ledger import Ledger, MemoryLedger
from budget_guard.ledger.history import DAY, KEPT, NO_LINES, CheckedLines, Labels, UsageLine
from budget_guard.ledger.hold_id import hold_id
from budget_guard.ledger.memory import KEPT_IN_MEMORY
from budget_guard.ledger.sqlite import SqliteLedger
from budget_guard.ledger.sqlite.usage import UsageRows
from budget_guard.testing import FakeClock
from budget_guard.units.amounts import Amounts, Checked, Limits, unchecked
from budget_guard.units.scope import Scope

SCOPES = tuple(Scope(kind, "1") for kind in ("run", "user", "key", "team"))
HELD = unchecked(Checked, (500, 700, 200, 900, 1, 0))
SPENT = unchecked(Checked, (300, 650, 90, 740, 1, 0))
LABELS = Labels("search", "Researcher", "summarise", "gpt-4o")
BATCH = 200
TENANTS = 2_000
_numbers = itertools.count()


def new_id() -> str:
    """An id as a run makes it."""
    return hold_id(time.time_ns() // 1_000_000, f"0123456789ab-{next(_numbers)}")


def lines() -> CheckedLines:
    """What a call says it was for."""
    return CheckedLines((UsageLine(LABELS, SPENT, 0, 300, 0, 20),))


def opened(ledger: Ledger) -> Ledger:
    """*ledger* with a ceiling in every scope that nothing reaches."""
    for scope in SCOPES:
        ledger.set_limits(scope, Limits(cost=10**18))
    return ledger


def memory() -> None:
    """A reserve and a commit in memory, and a whole call of an authority's session, with and without the history."""

    def pair(ledger: Ledger, scopes: tuple[Scope, ...], said: Callable[[], CheckedLines]) -> Callable[[], None]:
        def once() -> None:
            made = new_id()
            ledger.reserve(made, scopes, HELD, HELD)
            ledger.commit(made, scopes, SPENT, False, said())

        return once

    def session(kept: Any) -> Callable[[], object]:
        authority = BudgetAuthority(MemoryLedger(history=kept), {"user": Budget("$1000000")})
        opened_session = authority.session(Budget("$1000000"), user="u", key="k", team="t", feature="f")
        call = ModelCall("gpt-4o", weigh(messages="Why is the sky blue?"), max_output_tokens=200)
        usage = Usage(input=8, cache_read=4, output=150)
        return lambda: opened_session.authorize(call).require().commit(usage)

    bare, with_history = opened(MemoryLedger(history=None)), opened(MemoryLedger())
    for name, without, having in (
        ("a pair, 1 scope", pair(bare, SCOPES[:1], lambda: NO_LINES), pair(with_history, SCOPES[:1], lines)),
        ("a pair, 4 scopes", pair(bare, SCOPES, lambda: NO_LINES), pair(with_history, SCOPES, lines)),
        ("a call of a session in 4", session(None), session(KEPT_IN_MEMORY)),
    ):
        rounds = [[_batch_us(way) for way in (without, having)] for _ in range(200)]
        least = [min(each[i] for each in rounds) for i in (0, 1)]
        added = statistics.median(each[1] - each[0] for each in rounds[50:])
        print(
            f"memory   {name:25} {least[0]:5.2f} us, with history {least[1]:5.2f} us: "
            f"{least[1] - least[0]:.2f} us more at best, {added:.2f} us in the median   goal 2 us"
        )


def _batch_us(once: Callable[[], object]) -> float:
    start = time.thread_time_ns()
    for _ in range(BATCH):
        once()
    return (time.thread_time_ns() - start) / BATCH / 1_000


def sqlite() -> None:
    """Pairs in a file: of one run, and of as many users as there are tasks; with the history, and with it left out."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        ledger = opened(SqliteLedger(Path(folder) / "history.db"))
        users: list[tuple[Scope, ...]] = [(Scope("run", f"r{i}"), Scope("user", f"u{i}")) for i in range(128)]
        for scope in {scope for each in users for scope in each}:
            ledger.set_limits(scope, Limits(cost=10**18))
        for name, tasks, pairs, scopes in (
            ("1 task, 4 scopes", 1, 300, [SCOPES]),
            ("16 tasks, 4 scopes", 16, 3_000, [SCOPES]),
            ("128 tasks, 4 scopes", 128, 6_000, [SCOPES]),
            ("128 tasks, 128 users", 128, 6_000, users),
        ):
            walls: list[list[float]] = [[], []]
            cpus: list[list[float]] = [[], []]
            for _ in range(5):
                for i in (0, 1):
                    with nullcontext() if i else _left_out():
                        start, cpu = time.perf_counter(), time.process_time()
                        asyncio.run(_pairs(ledger, tasks, pairs, scopes))
                        walls[i].append((time.perf_counter() - start) / pairs * 1e6)
                        cpus[i].append((time.process_time() - cpu) / pairs * 1e6)
            (wall, wall_with), (cpu, cpu_with) = ([min(each) for each in both] for both in (walls, cpus))
            print(
                f"sqlite   {name:21} {wall:5.0f} us a pair, with history {wall_with:5.0f} us: "
                f"{wall_with / wall - 1:+.0%}; of CPU {cpu:.0f} us and {cpu_with:.0f} us: {cpu_with / cpu - 1:+.0%}   "
                "goal +30%"
            )
        ledger.close()


@contextmanager
def _left_out() -> Iterator[None]:
    """The history of files is left out."""
    with mock.patch.object(UsageRows, "note", lambda self, hold: None):
        yield


async def _pairs(ledger: Ledger, tasks: int, pairs: int, scopes: list[tuple[Scope, ...]]) -> None:
    async def work(its: tuple[Scope, ...]) -> None:
        for _ in range(pairs // tasks):
            made = new_id()
            await ledger.aio.reserve(made, its, HELD, HELD)
            await ledger.aio.commit(made, its, SPENT, False, lines())

    await asyncio.gather(*(work(scopes[i % len(scopes)]) for i in range(tasks)))


def redis() -> None:
    """The round trips of a call under three ceilings, as the server counts them, and the time of its commit."""
    from budget_guard.ledger.redis import RedisLedger

    with redis_server() as server:
        if server is None:
            return
        ledger = RedisLedger(server.url, timeout_s=5)
        ceilings = {kind: Budget("$1000000", window="day") for kind in ("user", "key", "team")}
        authority = BudgetAuthority(ledger, ceilings)
        call = ModelCall("gpt-4o", weigh(messages="Why is the sky blue?"), max_output_tokens=200)
        with authority.session(Budget("$1000"), user="u", key="k", team="t", feature="f") as session:
            for number in range(105):
                if number == 5:
                    before = server.client.info("stats")["total_reads_processed"]
                session.authorize(call, sent=True).require().commit(Usage(input=12, output=150))
            reads = server.client.info("stats")["total_reads_processed"] - before - 1
        print(f"redis    a call under three ceilings   {reads / 100:.2f} round trips, counted by the server   goal 2")
        for scope in (*SCOPES, *_besides()):
            ledger.set_limits(scope, Limits(cost=10**18))
        spent: list[list[float]] = [[], []]
        for _ in range(2_000):
            for i, scopes in enumerate((_besides(), SCOPES)):
                made = new_id()
                ledger.reserve(made, scopes, HELD, HELD)
                start = time.perf_counter()
                ledger.commit(made, scopes, SPENT, False, lines())
                spent[i].append((time.perf_counter() - start) * 1e6)
        without, having = map(statistics.median, spent)
        more = having / without - 1
        print(f"redis    a commit in 4 scopes {without:.0f} us, with history {having:.0f} us: {more:+.0%}")
        ledger.close()


def _besides() -> tuple[Scope, ...]:
    """Four scopes that have no history."""
    return tuple(Scope(f"{scope.kind}@day", scope.id) for scope in SCOPES)


def year() -> None:
    """Rows after a year, and some more, in which 2,000 tenants work on weekdays with two models."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        clock, chance = FakeClock(datetime(2025, 1, 1, tzinfo=timezone.utc)), random.Random(7)
        path = Path(folder) / "year.db"
        ledger = SqliteLedger(path, clock=clock, durable=False, retain=1_000)
        users = [Scope("user", f"u{i:04}") for i in range(TENANTS)]
        for user in users:
            ledger.set_limits(user, Limits(cost=10**15), "month")
        models = [Labels("f", "agent", "task", f"model-{i}") for i in range(3)]
        asyncio.run(_live(ledger, clock, chance, users, models))
        start = time.perf_counter()
        wrong = ledger.audit()
        audited = time.perf_counter() - start
        db = sqlite3.connect(path)
        (rows,) = db.execute("SELECT count(*) FROM usage").fetchone()
        (most,) = db.execute("SELECT max(n) FROM (SELECT count(*) AS n FROM usage GROUP BY scope)").fetchone()
        (size,) = db.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").fetchone()
        db.close()
        authority = BudgetAuthority(ledger, clock=clock)
        start = time.perf_counter()
        authority.top("user")
        topped = time.perf_counter() - start
        start = time.perf_counter()
        authority.usage("user", "u0007", by=("day", "model"))
        asked = time.perf_counter() - start
        labels = 2
        bound = TENANTS * (labels * (KEPT.hours + DAY + KEPT.days + 1) + 1)
        print(
            f"year     {TENANTS:,} tenants, 450 days, {labels} sets of labels each: {rows:,} rows, at most {most:,} of "
            f"one tenant; the bound is {bound:,}\n         {size / rows:.0f} bytes a row, {size / 1e6:.0f} MB; top of "
            f"all {topped:.2f} s, a tenant's usage by day and model {asked * 1e3:.0f} ms, audit {audited:.1f} s: "
            f"{wrong or 'all agree'}"
        )
        ledger.close()


async def _live(
    ledger: SqliteLedger, clock: FakeClock, chance: random.Random, users: list[Scope], models: list[Labels]
) -> None:
    for day in range(450):
        if day % 7 < 5:
            for _ in range(1 + (day % 3 == 0)):
                clock.advance(3_600)
                verbs = []
                for i, user in enumerate(users):
                    if chance.random() < 0.8:
                        amounts = Amounts(cost=chance.randint(1, 10**6), requests=1)
                        said = CheckedLines((UsageLine(models[(i + chance.randrange(2)) % 3], amounts),))
                        made = hold_id(clock.now_ms(), str(next(_numbers)))
                        verbs.append(ledger.aio.charge(made, (user,), amounts, said))
                await asyncio.gather(*verbs)
            clock.advance(86_400 - 3_600 * (1 + (day % 3 == 0)))
        else:
            clock.advance(86_400)


SECTIONS = {"memory": memory, "sqlite": sqlite, "redis": redis, "year": year}


def main() -> None:
    """Measure and print the sections that are named, or all."""
    for name in sys.argv[1:] or SECTIONS:
        SECTIONS[name]()


if __name__ == "__main__":
    main()
