"""A thousand bad histories, and not one violation."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from budget_guard.clock import Clock
from budget_guard.ledger import Ledger, MemoryLedger
from budget_guard.ledger.sqlite import SqliteLedger
from tests.ledger.redis_server import RedisServer, needs_redis_server
from tests.ledger.simulation import Simulation, live_through
from tests.ledger.test_redis import TimedRedisLedger

SEEDS = 1_000
BATCHES = 10


def remembering(clock: Clock) -> Ledger:
    """The ledger as it is."""
    return MemoryLedger(clock=clock)


def forgetful(clock: Clock) -> Ledger:
    """A ledger that remembers no more than eight settled holds."""
    return MemoryLedger(clock=clock, retain=8)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_history_breaks_an_invariant(batch: int) -> None:
    seeds = range(batch, SEEDS, BATCHES)
    verbs = live_through(remembering, seeds[::2]) + live_through(forgetful, seeds[1::2], forgets=True)
    assert verbs > 100 * SEEDS / BATCHES


@pytest.mark.parametrize("forgets", [False, True])
def test_nor_does_it_in_a_file(tmp_path: Path, forgets: bool) -> None:
    files = (tmp_path / f"{number}.db" for number in itertools.count())

    def make(clock: Clock) -> Ledger:
        return SqliteLedger(next(files), clock=clock, durable=False, retain=8 if forgets else 10_000)

    assert live_through(make, range(12), forgets=forgets, steps=450 if forgets else 150) > 1_000


@needs_redis_server
@pytest.mark.parametrize("forgets", [False, True])
def test_nor_does_it_in_redis(tmp_path: Path, forgets: bool) -> None:
    server = RedisServer(tmp_path, "--appendonly", "yes").start()

    def make(clock: Clock) -> Ledger:
        return TimedRedisLedger(server.url, clock, retain=8 if forgets else 10_000)

    try:
        assert live_through(make, range(12), forgets=forgets, steps=450 if forgets else 150) > 1_000
    finally:
        server.stop()


def test_a_history_is_the_same_whenever_it_is_told() -> None:
    first, second = (Simulation(remembering, 7) for _ in range(2))
    assert first.run() == second.run()
    assert [vars(call) for call in first.calls] == [vars(call) for call in second.calls]


def test_memory_is_bounded_by_what_is_open_and_what_is_retained() -> None:
    """I12."""
    for seed in range(10):
        history = Simulation(forgetful, seed, forgets=True)
        ledger = history.ledger
        assert isinstance(ledger, MemoryLedger)
        for _ in range(100):
            history.happen()
            history.clock.advance(1)
            history.deliver(history.clock.monotonic())
            history.wake()
            open_holds = sum(hold.open for hold in ledger._holds.values())
            assert len(ledger._holds) <= open_holds + 8
