"""A process of its own that spends from a ledger in Redis: ``redis_worker URL TENANT NAME CALLS``."""

from __future__ import annotations

import json
import random
import sys

from budget_guard.clock import SYSTEM_CLOCK
from budget_guard.ledger import Held
from budget_guard.ledger.hold_id import hold_id
from budget_guard.ledger.redis import RedisLedger
from budget_guard.units.amounts import Amounts
from budget_guard.units.scope import Scope

SHARED = (Scope("user", "u"), Scope("key", "k"), Scope("team", "t"))


def scopes_of(worker: str) -> tuple[Scope, ...]:
    """The worker's own run, and what all share."""
    return (Scope("run", worker), *SHARED)


def spend(ledger: RedisLedger, worker: str, calls: int) -> tuple[int, list[int]]:
    """Make *calls* calls; return what was spent, and the largest sum seen in each scope right after a hold."""
    scopes, chance = scopes_of(worker), random.Random(worker)
    largest, spent = [0] * len(scopes), 0
    for call in range(calls):
        hold = hold_id(SYSTEM_CLOCK.now_ms(), f"{worker}-{call}")
        amounts = Amounts(cost=chance.randint(1, 9), requests=1)
        if not isinstance(ledger.reserve(hold, scopes, amounts, amounts), Held):
            continue
        for i, balance in enumerate(ledger.balances(scopes)):
            largest[i] = max(largest[i], balance.committed.cost + balance.reserved.cost)
        if chance.random() < 0.3:
            ledger.release(hold, scopes)
        else:
            actual = chance.randint(0, amounts.cost)
            ledger.commit(hold, scopes, Amounts(cost=actual, requests=1))
            spent += actual
    return spent, largest


if __name__ == "__main__":
    url, tenant, name, calls = sys.argv[1:]
    print(json.dumps(spend(RedisLedger(url, tenant=tenant, timeout_s=10), name, int(calls))))
