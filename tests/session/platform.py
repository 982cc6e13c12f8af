"""A platform of many tenants in two processes, whose provider keeps a ledger of its own: the truth.

``python -m tests.session.platform 2000`` runs it in its whole size, on a file and on a Redis server of its own, and
kills processes in a loop. The tests run it small.
"""

from __future__ import annotations

import json
import logging
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from budget_guard import Budget, BudgetAuthority, Ledger, Session, Usage
from budget_guard.clock import SYSTEM_CLOCK, Clock
from budget_guard.ledger.reconcile import reconcile
from budget_guard.ledger.redis import RedisLedger
from budget_guard.ledger.sqlite import SqliteLedger
from budget_guard.testing import FakeClock
from budget_guard.units.money import to_usd
from tests.builders import PRICES, call
from tests.ledger.redis_server import BINARY, RedisServer
from tests.ledger.test_redis import TimedRedisLedger

ROOT = Path(__file__).parents[2]
START = datetime(2025, 1, 27, 10, tzinfo=timezone.utc)
DAYS = (0, 1, 2, 4, 5, 9, 13)
"""The days on which tenants call, counted from `START`: four in January, three in February."""
NANO = {"large": (1_000, 10_000), "small": (100, 1_000), "tiny": (10, 100)}
"""What the provider takes for an input and an output token."""
SEARCH = 10_000_000
CEILINGS = {"user": Budget("$1000", window="month"), "team": Budget("$100000", window="day")}


class Billed(NamedTuple):
    """One line of the provider's ledger."""

    at: str
    """The day."""
    user: str
    model: str
    """Empty for a search."""
    nano: int
    read: int
    written: int


def opened(url: str, clock: Clock) -> Ledger:
    """The ledger at *url*, in the time of *clock*."""
    if url.startswith("redis"):
        tenant = "platform"
        return (
            TimedRedisLedger(url, clock, tenant=tenant)
            if clock is not SYSTEM_CLOCK
            else RedisLedger(url, tenant=tenant)
        )
    return SqliteLedger(url, clock=clock, durable=False)


def authority_of(url: str, clock: Clock) -> BudgetAuthority:
    """An authority as each process of the platform makes it."""
    return BudgetAuthority(opened(url, clock), CEILINGS, clock=clock, pricing=PRICES)


def session_of(authority: BudgetAuthority, tenant: int) -> Session:
    """The session of one tenant in this process."""
    budget = Budget("$1000", task=f"task-{tenant % 3}", max_wait_s=0)
    return authority.session(budget, user=f"u{tenant:04}", team=f"t{tenant % 7}", feature=f"f{tenant % 2}")


def serve(url: str, number: int, tenants: int) -> Iterator[list[Billed]]:
    """One process: every day each of its tenants makes some calls. Yields what the provider bills each day."""
    clock = FakeClock(START)
    authority = authority_of(url, clock)
    chance = random.Random(number)
    sessions = {tenant: session_of(authority, tenant) for tenant in range(tenants)}
    late: list[tuple[Any, Usage]] = []
    day = 0
    for today in DAYS:
        clock.advance((today - day) * 86_400)
        day = today
        at = clock.now().date().isoformat()
        bills: list[Billed] = []
        for reservation, usage in late:
            reservation.commit(usage)  # billed on the day of the call, told today
        late = []
        for tenant, session in sessions.items():
            user, dice = f"u{tenant:04}", chance.random()
            if dice < 0.1:
                continue
            model = chance.choice(list(NANO))
            read, written = chance.randint(1, 90), chance.randint(1, 50)
            usage = Usage(input=read, output=written)
            reservation = session.authorize(call(model, cap=50, agent=f"a{tenant % 4}")).require()
            if dice < 0.2:
                reservation.commit_estimate("timed out")
                late.append((reservation, usage))
            else:
                reservation.commit(usage)
            prices = NANO[model]
            bills.append(Billed(at, user, model, read * prices[0] + written * prices[1], read, written))
            if dice > 0.8:
                session.charge("search", to_usd(SEARCH))
                bills.append(Billed(at, user, "", SEARCH, 0, 0))
        yield bills
    for reservation, usage in late:
        reservation.commit(usage)
    authority.ledger.close()


def worked(url: str, tenants: int, workers: int = 2) -> list[Billed]:
    """Let *workers* processes serve the tenants, day by day; return the provider's ledger."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.session.platform", "serve", url, str(number), str(tenants)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for number in range(workers)
    ]
    billed: list[Billed] = []
    for _ in DAYS:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout is not None
            billed += [Billed(*line) for line in json.loads(process.stdout.readline())]
    for process in processes:
        process.communicate("\n", timeout=600)
        assert process.returncode == 0
    return billed


def check(url: str, tenants: int, billed: list[Billed]) -> None:
    """Compare what the authority tells with the provider's ledger, to the nano-dollar."""
    clock = FakeClock(START + timedelta(days=DAYS[-1]))
    authority = authority_of(url, clock)
    by_user: Counter[str] = Counter()
    january: Counter[str] = Counter()
    by_day: Counter[tuple[str, str]] = Counter()
    tokens: Counter[tuple[str, str]] = Counter()
    for line in billed:
        by_user[line.user] += line.nano
        january[line.user] += line.nano if line.at < "2025-02" else 0
        by_day[line.at, line.model] += line.nano
        tokens[line.at, line.model] += line.read + line.written

    names = [f"u{tenant:04}" for tenant in range(tenants)]
    assert authority.list("user") == names
    assert authority.list("user", prefix="u000") == names[:10]
    top = [(row.id, row.spent_usd) for row in authority.top("user", n=20)]
    assert top == [(user, to_usd(nano)) for user, nano in sorted(by_user.items(), key=lambda e: (-e[1], e[0]))[:20]]
    for kind in ("user", "team"):
        rows = authority.usage(kind, by=("day", "model"))
        assert {(row.day.isoformat() if row.day else "", row.model or ""): row.cost_usd for row in rows} == {
            key: to_usd(nano) for key, nano in by_day.items()
        }
        assert sum(row.total_tokens for row in rows) == sum(tokens.values())
        assert sum(row.uncertain_usd for row in rows) == 0
    total = sum(by_user.values())
    by_month = {row.month: row.cost_usd for row in authority.usage("user", by=("month",))}
    assert [usd for _, usd in sorted(by_month.items(), key=lambda e: str(e[0]))] == [
        to_usd(sum(january.values())),
        to_usd(total - sum(january.values())),
    ]
    for user in names[:: max(1, tenants // 500)]:
        now, before = authority.snapshot("user", user), authority.snapshot("user", user, window=-1)
        assert (before.spent_usd, now.spent_usd) == (to_usd(january[user]), to_usd(by_user[user] - january[user]))
        assert sum(row.cost_usd for row in authority.usage("user", user)) == to_usd(by_user[user])
    assert list(authority.ledger.audit()) == []
    authority.ledger.close()


def killed(url: str, rounds: int, seed: int = 7) -> Decimal:
    """Kill a process that spends, *rounds* times at some moment; the history and the counters still agree. What was
    spent then."""
    chance = random.Random(seed)
    for _ in range(rounds):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.session.platform", "spend", url],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.02, 0.3))  # another process: only time tells how far it is
        process.kill()
        process.communicate()
        authority = authority_of(url, SYSTEM_CLOCK)
        assert list(authority.ledger.audit()) == []
        reconcile(authority.ledger)
        assert list(authority.ledger.audit()) == []
        authority.ledger.close()
    authority = authority_of(url, SYSTEM_CLOCK)
    users = authority.list("user")
    spent = sum((authority.snapshot("user", user).spent_usd for user in users), Decimal(0))
    month = SYSTEM_CLOCK.now().date().replace(day=1)
    assert sum(row.cost_usd for row in authority.usage("user", since=month)) == spent > 0
    authority.ledger.close()
    return spent


def spend(url: str) -> None:
    """Spend until the process is killed."""
    authority = authority_of(url, SYSTEM_CLOCK)
    sessions = [session_of(authority, tenant) for tenant in range(20)]
    print("ready", flush=True)
    for number in range(10**9):
        session = sessions[number % len(sessions)]
        reservation = session.authorize(call("large", cap=50, agent=f"a{number % 3}"), sent=True).require()
        if number % 5:
            reservation.commit(Usage(input=number % 90, output=number % 50 + 1))
        else:
            reservation.commit_estimate("timed out")
            if number % 2:
                reservation.commit(Usage(input=3, output=4))


def main(tenants: int, rounds: int) -> None:
    """Run it in its whole size."""
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder) / "redis", "--appendonly", "yes").start() if BINARY else None
        try:
            for name, url in (("sqlite", f"{folder}/budget.db"), ("redis", server.url if server else "")):
                if url:
                    start = time.perf_counter()
                    billed = worked(url, tenants)
                    check(url, tenants, billed)
                    print(
                        f"{name:6}   {tenants:,} tenants in 2 processes, {len(billed):,} bills of "
                        f"{to_usd(sum(line.nano for line in billed))} dollars: top, list, usage by day and model, and "
                        f"last month's snapshots equal the provider's ledger ({time.perf_counter() - start:.0f} s)"
                    )
            for name, url in (("sqlite", f"{folder}/killed.db"), ("redis", server.url if server else "")):
                if url:
                    if server is not None and name == "redis":
                        server.client().flushall()
                    print(f"{name:6}   killed {rounds} times while it spent {killed(url, rounds)} dollars: they agree")
        finally:
            if server is not None:
                server.stop()


if __name__ == "__main__":
    logging.disable()  # of estimates, which are meant
    if sys.argv[1] == "serve":
        days = serve(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        for _ in DAYS:
            sys.stdin.readline()
            print(json.dumps(next(days)), flush=True)
        sys.stdin.readline()
        next(days, None)
    elif sys.argv[1] == "spend":
        spend(sys.argv[2])
    else:
        main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 30)
