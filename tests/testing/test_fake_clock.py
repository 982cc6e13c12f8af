"""The fake clock moves only when told to, and never makes anybody wait."""

from __future__ import annotations

import asyncio
import threading
from datetime import datetime, timedelta, timezone

import pytest

from budget_guard.clock import Clock
from budget_guard.testing import FakeClock

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def test_it_is_a_clock_that_starts_where_it_is_told() -> None:
    clock: Clock = FakeClock(NOON)
    assert clock.now() == NOON
    assert clock.monotonic() == 0


def test_time_passes_when_it_is_advanced_and_not_otherwise() -> None:
    clock = FakeClock(NOON)
    clock.advance(90.5)
    assert clock.now() == clock.now() == NOON + timedelta(seconds=90.5)
    assert clock.monotonic() == 90.5


def test_time_never_goes_back() -> None:
    with pytest.raises(ValueError, match="never goes back"):
        FakeClock().advance(-1)


def test_the_time_of_day_can_be_turned_back_and_time_passes_all_the_same() -> None:
    clock = FakeClock(NOON)
    clock.turn(-3_600)
    clock.advance(90)
    assert clock.now() == NOON + timedelta(seconds=90 - 3_600)
    assert clock.now_ms() == clock.now().timestamp() * 1_000
    assert clock.monotonic() == 90


def test_a_start_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        FakeClock(NOON.replace(tzinfo=None))


def test_a_wait_for_what_is_ready_takes_no_time() -> None:
    clock, condition = FakeClock(), threading.Condition()
    with condition:
        assert clock.wait(condition, lambda: True, 5)
    assert clock.monotonic() == 0


def test_a_wait_jumps_to_its_end_and_looks_once_more() -> None:
    clock, condition = FakeClock(), threading.Condition()
    with condition:
        assert not clock.wait(condition, lambda: False, 5)
        assert clock.wait(condition, lambda: clock.monotonic() >= 10, 5)
    assert clock.monotonic() == 10


async def test_an_async_wait_jumps_too_unless_the_future_is_done() -> None:
    clock, future = FakeClock(), asyncio.get_running_loop().create_future()
    assert not await clock.wait_async(future, 5)
    future.set_result(None)
    assert await clock.wait_async(future, 5)
    assert clock.monotonic() == 5
