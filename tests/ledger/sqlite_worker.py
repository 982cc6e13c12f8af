"""A process of its own that spends from a ledger in a file.

``python -m tests.ledger.sqlite_worker spend|acknowledge PATH NAME CALLS``
"""

from __future__ import annotations

import asyncio
import json
import random
import sys

from budget_guard.clock import SYSTEM_CLOCK
from budget_guard.ledger import Held
from budget_guard.ledger.hold_id import hold_id
from budget_guard.ledger.sqlite import SqliteLedger
from budget_guard.units.amounts import Amounts
from budget_guard.units.scope import Scope

SHARED = (Scope("user", "u"), Scope("key", "k"), Scope("team", "t"))
TASKS = 8


def scopes_of(worker: str) -> tuple[Scope, ...]:
    """The worker's own run, and what all share."""
    return (Scope("run", worker), *SHARED)


def spend(path: str, worker: str, calls: int) -> None:
    """Make *calls* calls and print what was spent, and the largest sum seen in each scope right after a hold."""
    ledger = SqliteLedger(path)
    scopes = scopes_of(worker)
    largest = [0] * len(scopes)
    spent = 0

    async def task(number: int) -> None:
        nonlocal spent
        chance = random.Random(f"{worker}-{number}")
        for call in range(calls // TASKS):
            hold = hold_id(SYSTEM_CLOCK.now_ms(), f"{worker}-{number}-{call}")
            amounts = Amounts(cost=chance.randint(1, 9), requests=1)
            if not isinstance(await ledger.aio.reserve(hold, scopes, amounts, amounts), Held):
                continue
            for i, balance in enumerate(await ledger.aio.balances(scopes)):
                largest[i] = max(largest[i], balance.committed.cost + balance.reserved.cost)
            if chance.random() < 0.3:
                await ledger.aio.release(hold, scopes)
            else:
                actual = chance.randint(0, amounts.cost)
                await ledger.aio.commit(hold, scopes, Amounts(cost=actual, requests=1))
                spent += actual

    async def all_tasks() -> None:
        await asyncio.gather(*(task(number) for number in range(TASKS)))

    asyncio.run(all_tasks())
    print(json.dumps({"spent": spent, "largest": largest}))  # and goes without closing the ledger


def acknowledge(path: str, worker: str, most: int) -> None:
    """Spend until killed, and print the id of each call after its commit was acknowledged."""
    ledger = SqliteLedger(path)
    scopes = scopes_of(worker)

    async def task(number: int) -> None:
        for call in range(most):
            hold = hold_id(SYSTEM_CLOCK.now_ms(), f"{worker}-{number}-{call}")
            await ledger.aio.reserve(hold, scopes, Amounts(cost=3), None)
            await ledger.aio.commit(hold, scopes, Amounts(cost=2))
            print(hold, flush=True)

    async def all_tasks() -> None:
        await asyncio.gather(*(task(number) for number in range(TASKS)))

    asyncio.run(all_tasks())


if __name__ == "__main__":
    verb, path, worker, number = sys.argv[1:]
    {"spend": spend, "acknowledge": acknowledge}[verb](path, worker, int(number))
