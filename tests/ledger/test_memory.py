"""The ledger in memory keeps the contract, and its memory bounded."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from budget_guard.clock import Clock
from budget_guard.errors import ReservationConflict, StaleReservation
from budget_guard.ledger import HELD, Ledger, MemoryLedger, Refused, memory
from budget_guard.ledger.hold_id import hold_id
from budget_guard.ledger.outbox.ledger import OutboxLedger
from budget_guard.ledger.outbox.store import Outbox
from budget_guard.testing import FakeClock
from budget_guard.testing.ledger_contract import RUN, LedgerContract, cost, race
from budget_guard.units.amounts import Amounts, Checked, Limits, unchecked
from budget_guard.units.scope import Scope
from tests.ledger.alike import differences
from tests.ledger.machine import machine

RETAINED = 50


class TestMemoryLedger(LedgerContract):
    def make_ledger(self, clock: Clock) -> Ledger:
        return MemoryLedger(clock=clock)

    def forget_settled(self, ledger: Ledger, clock: FakeClock) -> None:
        forget_settled(ledger, clock, 10_000)


def forget_settled(ledger: Ledger, clock: FakeClock, retained: int = RETAINED) -> None:
    """Settle as many others as the ledger remembers at most, and one more."""
    others = Scope("team", "others")
    ledger.set_limits(others, Limits())
    for number in range(retained + retained // 100 + 1):
        clock.advance(0.001)
        ledger.charge(hold_id(clock.now_ms(), f"other-{number}"), (others,), cost(1))


def telling(clock: Clock) -> MemoryLedger:
    """A ledger that is asked to tell all that a commit may tell."""
    ledger = MemoryLedger(clock=clock, retain=RETAINED)
    ledger.tells_cost_left = True
    return ledger


TestMemoryLedgerAgainstTheModel = machine(telling, forget_settled).TestCase


def opened(retain: int = 10_000) -> MemoryLedger:
    ledger = MemoryLedger(retain=retain)
    ledger.set_limits(RUN, Limits(cost=10**18))
    return ledger


def nth(number: int) -> str:
    """The id of the hold made at millisecond *number*."""
    return hold_id(number, "h")


def settle(ledger: Ledger, number: int) -> None:
    ledger.reserve(nth(number), (RUN,), cost(3), cost(3))
    ledger.commit(nth(number), (RUN,), cost(2))


def test_a_commit_says_what_is_left_only_where_that_is_asked_for() -> None:
    ledger, telling_one = opened(), opened()
    telling_one.tells_cost_left = True
    for each, left in ((ledger, None), (telling_one, 10**18 - 2)):
        each.reserve(nth(2), (RUN,), cost(3), cost(3))
        assert each.commit(nth(2), (RUN,), cost(2)).cost_left == left


def test_amounts_that_were_looked_at_are_held_like_any_others() -> None:
    ledger = MemoryLedger()
    ledger.set_limits(RUN, Limits(cost=100))
    sound = unchecked(Checked, (60, 1, 1, 2, 1, 0))
    assert ledger.reserve(nth(1), (RUN,), sound, sound) == HELD
    assert isinstance(ledger.reserve(nth(2), (RUN,), sound, sound), Refused)
    assert ledger.commit(nth(1), (RUN,), sound).charged == Amounts(*sound)
    assert ledger.audit() == []
    with pytest.raises(ReservationConflict, match=r"with Amounts\(cost=60.* take Amounts\(cost=5"):
        ledger.commit(nth(1), (RUN,), cost(5))


def test_settled_holds_beyond_the_retained_ones_are_forgotten_and_stay_counted() -> None:
    ledger = opened(retain=3)
    for number in range(5):
        settle(ledger, number)
    for forgotten in (0, 1):
        with pytest.raises(StaleReservation, match="older"):
            ledger.commit(nth(forgotten), (RUN,), cost(2))
        with pytest.raises(StaleReservation, match="older"):
            ledger.reserve(nth(forgotten), (RUN,), cost(3), cost(3))
    assert ledger.commit(nth(2), (RUN,), cost(2)).committed == cost(10)
    assert ledger.balances((RUN,))[0].committed == cost(10)


def test_open_holds_are_never_forgotten() -> None:
    ledger = opened(retain=1)
    ledger.reserve(nth(0), (RUN,), cost(5), cost(5))
    for number in range(1, 10):
        settle(ledger, number)
    assert ledger.release(nth(0), (RUN,)) is True
    assert ledger.balances((RUN,))[0].reserved == cost(0)


def test_memory_is_bounded_after_100_000_settled_holds() -> None:
    ledger = opened(retain=100)
    for number in range(1_000):
        settle(ledger, number)
    gc.collect()
    before = sys.getallocatedblocks()
    for number in range(1_000, 101_000):
        settle(ledger, number) if number % 2 else ledger.charge(nth(number), (RUN,), cost(2))
    gc.collect()
    assert sys.getallocatedblocks() - before < 2_000
    assert ledger.balances((RUN,))[0].committed == cost(202_000)


def test_times_to_live_that_are_over_or_put_off_take_no_memory() -> None:
    clock = FakeClock()
    ledger = MemoryLedger(clock=clock, retain=100)
    ledger.set_limits(RUN, Limits())
    for number, ttl_s in ((0, 1_000), (1, 1)):
        ledger.reserve(nth(number), (RUN,), cost(3), cost(3), ttl_s)
    for number in range(2, 10_000):
        ledger.reserve(nth(number), (RUN,), cost(3), cost(3), 600)
        ledger.extend(nth(number), 900)
        ledger.commit(nth(number), (RUN,), cost(2))
    assert len(ledger._expiries) < 2_000
    clock.advance(1)
    assert ledger.sweep() == 1


def test_an_audit_names_what_is_wrong() -> None:
    ledger = opened()
    ledger.reserve(nth(0), (RUN,), cost(3), cost(3))
    settle(ledger, 1)
    assert ledger.audit() == []
    counters = ledger._scopes[RUN]
    counters.reserved, counters.committed, counters.open_holds = cost(4), cost(1), 2
    wrong = sorted(ledger.audit())
    assert [line.split(" is ")[0] for line in wrong] == ["run:r1: committed", "run:r1: open_holds", "run:r1: reserved"]
    assert "2" in wrong[1] and "1" in wrong[1]


async def waiting(ledger: Ledger, version: int) -> bool:
    return await ledger.aio.await_room(version, 60)


def test_a_waiter_of_a_loop_that_is_gone_disturbs_nobody() -> None:
    ledger = MemoryLedger()
    ledger.set_limits(RUN, Limits(cost=1))
    ledger.reserve(nth(0), (RUN,), cost(1), cost(1))
    refused = ledger.reserve(nth(1), (RUN,), cost(1), cost(1))
    assert isinstance(refused, Refused)
    loop = asyncio.new_event_loop()
    task = loop.create_task(waiting(ledger, refused.version))
    loop.run_until_complete(asyncio.sleep(0))
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # abandoned on purpose
    loop.close()
    assert ledger.release(nth(0), (RUN,)) is True
    assert ledger.reserve(nth(1), (RUN,), cost(1), cost(1)) == HELD


async def test_waiters_that_gave_up_leave_nothing_behind() -> None:
    ledger = MemoryLedger(clock=FakeClock())
    for _ in range(100):
        assert not await ledger.aio.await_room(0, 1)
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(1_000):
        await ledger.aio.await_room(0, 1)
    gc.collect()
    assert sys.getallocatedblocks() - before < 500


@pytest.fixture
def switching_at_every_line() -> Iterator[None]:
    """Let another thread run before every line of the ledger: whatever no lock guards is torn apart."""

    def let_others_run(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename != memory.__file__:
            return None
        time.sleep(0)
        return let_others_run

    before = threading.gettrace()
    threading.settrace(let_others_run)
    yield
    threading.settrace(before)


@pytest.mark.usefixtures("switching_at_every_line")
@pytest.mark.parametrize("verb", ["reserve", "commit", "release", "charge", "again"])
def test_every_verb_is_one_step(verb: str) -> None:
    ledger, workers = opened(), 8
    ledger.set_limits(RUN, Limits(cost=10))
    room = cost(3) if verb == "reserve" else None
    numbers = [0] * workers if verb == "again" else list(range(workers))
    if verb in ("commit", "release"):
        for number in numbers:
            ledger.reserve(nth(number), (RUN,), cost(3), None)

    def act(number: int) -> bool:
        if verb == "commit":
            ledger.commit(nth(number), (RUN,), cost(2))
        elif verb == "release":
            ledger.release(nth(number), (RUN,))
        elif verb == "charge":
            ledger.charge(nth(number), (RUN,), cost(2))
        else:
            return ledger.reserve(nth(number), (RUN,), cost(3), room) == HELD
        return True

    done = sum(race([partial(act, number) for number in numbers]))
    balance = ledger.balances((RUN,))[0]
    expected = {"reserve": (3, 0, 9), "again": (8, 0, 3), "commit": (8, 16, 0), "release": (8, 0, 0)}
    assert (done, balance.committed.cost, balance.reserved.cost) == expected.get(verb, (8, 16, 0))


def test_what_a_commit_says_is_committed_is_of_the_present_window() -> None:
    clock = FakeClock()
    ledger = MemoryLedger(clock=clock)
    run, user = Scope("run", "r"), Scope("user", "u")
    for scope in (run, user):
        ledger.set_limits(scope, Limits(cost=100), "day")
    made = hold_id(clock.now_ms(), "h")
    ledger.reserve(made, (run, user), Amounts(cost=10), Amounts(cost=10))
    clock.advance(86_400)
    settled = ledger.commit(made, (run, user), Amounts(cost=9))
    assert (settled.committed[0], settled.above[0].committed[0], settled.charged.cost) == (0, 0, 9)


def test_its_awaitable_verbs_and_those_behind_an_outbox_answer_as_the_blocking_ones_do(tmp_path: Path) -> None:
    for number in range(100, 140):
        clock = FakeClock()
        behind = OutboxLedger(
            MemoryLedger(clock=clock), Outbox(tmp_path / "outbox"), clock=clock, forgiving=False, owner=""
        )
        other = behind if number % 2 else MemoryLedger(clock=clock)
        assert differences(number, (MemoryLedger(clock=clock), other), clock, awaits=number % 3 > 0) == []


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_budget_in_memory_that_a_fork_has_copied_says_so_once_and_goes_on() -> None:
    ledger = opened()
    ledger.reserve(nth(0), (RUN,), cost(5), cost(5))
    read, write = os.pipe()
    with ledger._lock:  # as another thread, which no fork takes along, may hold it
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # what waits for a lock that nobody gives back is ended
            told: list[str] = []
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    outcomes = [ledger.reserve(nth(number), (RUN,), cost(5), cost(5)) for number in (1, 2)]
                told = [str(outcomes == [HELD, HELD]), *(str(each.message) for each in caught)]
            finally:
                os.write(write, "\n".join(told).encode())
                os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with open(read) as pipe:
        went_on, *said = pipe.read().splitlines()
    assert went_on == "True"
    assert ["was copied by a fork" in each and "sqlite:///" in each for each in said] == [True]
    assert ledger.reserve(nth(3), (RUN,), cost(5), cost(5)) == HELD  # and nothing of it where it was copied from
