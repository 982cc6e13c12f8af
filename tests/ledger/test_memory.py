"""The ledger in memory keeps the contract, and its memory bounded."""

from __future__ import annotations

import asyncio
import gc
import sys

import pytest

from budget_guard.clock import Clock
from budget_guard.dimension import Limits
from budget_guard.errors import UnknownReservation
from budget_guard.ledger import Held, Ledger, MemoryLedger, Refused
from budget_guard.testing.ledger_contract import RUN, LedgerContract, cost
from tests.ledger.machine import machine


class TestMemoryLedger(LedgerContract):
    def make_ledger(self, clock: Clock) -> Ledger:
        return MemoryLedger(clock=clock)


TestMemoryLedgerAgainstTheModel = machine(MemoryLedger).TestCase


def opened(retain: int = 10_000) -> MemoryLedger:
    ledger = MemoryLedger(retain=retain)
    ledger.set_limits(RUN, Limits(cost=10**18))
    return ledger


def settle(ledger: Ledger, hold_id: str) -> None:
    ledger.reserve(hold_id, (RUN,), cost(3), cost(3))
    ledger.commit(hold_id, cost(2))


def test_settled_holds_beyond_the_retained_ones_are_forgotten_and_stay_counted() -> None:
    ledger = opened(retain=3)
    for number in range(5):
        settle(ledger, f"h{number}")
    for forgotten in ("h0", "h1"):
        with pytest.raises(UnknownReservation, match="long ago"):
            ledger.commit(forgotten, cost(2))
    assert ledger.commit("h2", cost(2)).committed == cost(10)
    assert ledger.balances((RUN,))[0].committed == cost(10)


def test_open_holds_are_never_forgotten() -> None:
    ledger = opened(retain=1)
    ledger.reserve("open", (RUN,), cost(5), cost(5))
    for number in range(10):
        settle(ledger, f"h{number}")
    assert ledger.release("open") is True
    assert ledger.balances((RUN,))[0].reserved == cost(0)


def test_memory_is_bounded_after_100_000_settled_holds() -> None:
    ledger = opened(retain=100)
    for number in range(1_000):
        settle(ledger, f"warm-{number}")
    gc.collect()
    before = sys.getallocatedblocks()
    for number in range(100_000):
        settle(ledger, f"h{number}") if number % 2 else ledger.charge(f"h{number}", (RUN,), cost(2))
    gc.collect()
    assert sys.getallocatedblocks() - before < 2_000
    assert ledger.balances((RUN,))[0].committed == cost(202_000)


def test_a_waiter_of_a_loop_that_is_gone_disturbs_nobody() -> None:
    ledger = MemoryLedger()
    ledger.set_limits(RUN, Limits(cost=1))
    ledger.reserve("full", (RUN,), cost(1), cost(1))
    refused = ledger.reserve("next", (RUN,), cost(1), cost(1))
    assert isinstance(refused, Refused)
    loop = asyncio.new_event_loop()
    task = loop.create_task(ledger.await_room_async(refused.version, 60))
    loop.run_until_complete(asyncio.sleep(0))
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # abandoned on purpose
    loop.close()
    assert ledger.release("full") is True
    assert ledger.reserve("next", (RUN,), cost(1), cost(1)) == Held("next")
