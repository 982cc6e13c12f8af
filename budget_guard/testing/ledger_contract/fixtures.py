"""Fixtures of the rules: a ledger to try, its time, ids, and a few short words."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from budget_guard.clock import Clock, SystemClock
from budget_guard.ledger.base import Balance, Ledger, Settled
from budget_guard.ledger.hold_id import hold_id
from budget_guard.testing.clock import FakeClock
from budget_guard.units.amounts import Amounts, Limits
from budget_guard.units.scope import Scope

T = TypeVar("T")

RUN = Scope("run", "r1")
USER = Scope("user", "u1")
OTHER = Scope("user", "u2")
BOTH = (RUN, USER)
PATIENCE_S = 20.0
"""How long a wait that ought to be woken at once may take before the test gives up."""


class Ids:
    """Ids by name: each is made from the clock when it is first asked for, and stays the same from then on."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._made: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        return self._made.setdefault(name, hold_id(self._clock.now_ms(), name))


class LiveClock(SystemClock):
    """Real time that tells when a thread begins to wait, and when nobody woke it."""

    def __init__(self) -> None:
        self.waits = threading.Semaphore(0)

    def wait(self, condition: threading.Condition, ready: Callable[[], bool], timeout: float) -> bool:
        self.waits.release()
        ends = self.monotonic() + timeout
        while not ready():
            if not condition.wait(ends - self.monotonic()):
                return False
        return True


class LedgerFixtures:
    """A ledger to try, in a time that moves only when it is told to, and in real time."""

    workers = 32
    """Threads in the races. A slow ledger may lower it."""
    rounds = 100
    """Calls of each thread in the races. A slow ledger may lower it."""

    def make_ledger(self, clock: Clock) -> Ledger:
        """A new, empty ledger that reads the time from *clock*."""
        raise NotImplementedError  # abstract

    def close_ledger(self, ledger: Ledger) -> None:
        """Let go of what *ledger* uses."""
        ledger.close()

    def forget_settled(self, ledger: Ledger, clock: FakeClock) -> None:
        """Make *ledger* forget all that is settled, and take no id that was made before for a new one.

        By much time on *clock*, or many settled holds, in scopes of its own.
        """
        raise NotImplementedError  # abstract

    @pytest.fixture
    def clock(self) -> FakeClock:
        """The time of `ledger`."""
        return FakeClock()

    @pytest.fixture
    def ledger(self, clock: FakeClock) -> Iterator[Ledger]:
        """A ledger with a run of 100 nano-dollars, and two users of 1,000; its books must balance in the end."""
        yield from self._opened(clock)

    @pytest.fixture
    def ids(self, clock: FakeClock) -> Ids:
        """The ids of what `ledger` holds."""
        return Ids(clock)

    @pytest.fixture
    def live_clock(self) -> LiveClock:
        """The time of `live_ledger`."""
        return LiveClock()

    @pytest.fixture
    def live_ledger(self, live_clock: LiveClock) -> Iterator[Ledger]:
        """As `ledger`, in real time: for waits that something ends."""
        yield from self._opened(live_clock)

    @pytest.fixture
    def live_ids(self, live_clock: LiveClock) -> Ids:
        """The ids of what `live_ledger` holds."""
        return Ids(live_clock)

    def _opened(self, clock: Clock) -> Iterator[Ledger]:
        made = self.make_ledger(clock)
        made.set_limits(RUN, Limits(cost=100))
        for scope in (USER, OTHER):
            made.set_limits(scope, Limits(cost=1_000))
        yield made
        assert list(made.audit()) == []
        self.close_ledger(made)


def cost(nano: int) -> Amounts:
    """Amounts of *nano* nano-dollars and nothing else."""
    return Amounts(cost=nano)


def only(dimension: int, amount: int) -> Amounts:
    """Amounts of *amount* in one dimension and nothing else."""
    return Amounts(**{Amounts._fields[dimension]: amount})


def spend(ledger: Ledger, ids: Ids, name: str, nano: int, scopes: Sequence[Scope] = BOTH) -> None:
    """Hold *nano* nano-dollars, and commit them."""
    ledger.reserve(ids(name), scopes, cost(nano), cost(nano))
    ledger.commit(ids(name), scopes, cost(nano))


def balance_of(ledger: Ledger, scope: Scope) -> Balance:
    """The counters of *scope*."""
    return ledger.balances((scope,))[0]


def figures(ledger: Ledger, scope: Scope) -> tuple[int, int, int]:
    """What is committed and what is reserved in *scope*, in nano-dollars, and how many holds are open."""
    balance = balance_of(ledger, scope)
    return balance.committed.cost, balance.reserved.cost, balance.open_holds


def race(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Run *jobs* at the same time, a thread each, all let go by one barrier; return their results in order.

    Threads take turns after every few instructions meanwhile, so that a step that ought to be one and is two shows.
    """
    barrier = threading.Barrier(len(jobs))

    def job_at_once(job: Callable[[], T]) -> T:
        barrier.wait(PATIENCE_S)
        return job()

    turn_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(len(jobs)) as pool:
            return list(pool.map(job_at_once, jobs))
    finally:
        sys.setswitchinterval(turn_s)


def own(settled: Settled) -> Settled:
    """*settled* without what it tells of the scopes above the first, and of what is left."""
    return settled._replace(above=(), cost_left=None)
