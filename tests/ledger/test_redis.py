"""The ledger in Redis keeps the contract, on a real server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from budget_guard.clock import Clock, SystemClock
from budget_guard.dimension import Limits
from budget_guard.hold_id import hold_id
from budget_guard.ledger import Ledger
from budget_guard.ledger.redis import RedisLedger
from budget_guard.scope import Scope
from budget_guard.testing import FakeClock
from budget_guard.testing.ledger_contract import LedgerContract, cost
from tests.ledger.machine import machine
from tests.ledger.redis_server import RedisServer, needs_redis_server

pytestmark = needs_redis_server

RETAINED = 500
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class TimedRedisLedger(RedisLedger):
    """On a server that takes its time from a clock of ours."""

    def __init__(self, url: str, clock: Clock, **options: int) -> None:
        super().__init__(url, tenant=uuid.uuid4().hex, clock=clock, timeout_s=5, **options)
        self._clock = clock

    def _now(self) -> bytes:
        if isinstance(self._clock, SystemClock):
            return b""
        return b"%d" % ((self._clock.now() - EPOCH) // timedelta(microseconds=1))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server for the whole file. Every test has a tenant of its own there."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), "--appendonly", "yes").start()
    yield server
    server.stop()


class TestRedisLedger(LedgerContract):
    workers = 8
    rounds = 20

    @pytest.fixture(autouse=True)
    def _server(self, server: RedisServer) -> None:
        self.url = server.url

    def make_ledger(self, clock: Clock) -> Ledger:
        return TimedRedisLedger(self.url, clock, retain=RETAINED)

    def forget_settled(self, ledger: Ledger, clock: FakeClock) -> None:
        forget_settled(ledger, clock)

    def close_ledger(self, ledger: Ledger) -> None:
        assert ledger.audit() == []
        ledger.close()


def forget_settled(ledger: Ledger, clock: FakeClock) -> None:
    """Settle as many others as the ledger remembers, and as many more as it lets gather."""
    others = Scope("team", "others")
    ledger.set_limits(others, Limits())
    clock.advance(0.001)
    ids = [hold_id(clock.now_ms(), f"other-{number}") for number in range(RETAINED + 100)]

    async def charge_all() -> None:
        await asyncio.gather(*(ledger.aio.charge(each, (others,), cost(1)) for each in ids))

    asyncio.run(charge_all())


def test_it_does_as_the_naive_ledger_does(server: RedisServer) -> None:
    def make(clock: Clock) -> Ledger:
        return TimedRedisLedger(server.url, clock, retain=RETAINED)

    made = machine(make, forget_settled)
    made.TestCase().runTest()  # type: ignore[no-untyped-call]  # hypothesis says nothing of it
