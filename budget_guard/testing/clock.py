"""A clock that moves only when it is told to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

_START = datetime(2025, 1, 1, tzinfo=timezone.utc)


class FakeClock:
    """A `budget_guard.clock.Clock` for tests: nothing ever really waits.

    Waiting takes no time: where what is waited for is not there yet, the clock jumps to the end of the wait
    and looks once more. So a wait always ends at once, and always at the same fake time. Other threads and
    tasks get no turn in between; a test that wants something to happen during a wait makes it happen in
    *ready*, or before. Safe to use from several threads.
    """

    def __init__(self, start: datetime = _START) -> None:
        """
        Args:
            start: The first time of day, timezone-aware.

        Raises:
            ValueError: If *start* has no time zone.
        """
        if start.tzinfo is None:
            raise ValueError(f"start={start!r} has no time zone: use datetime(..., tzinfo=timezone.utc)")
        self._start = start.astimezone(timezone.utc)
        self._passed = 0.0
        self._turned = timedelta()
        self._lock = threading.Lock()

    def advance(self, seconds: float) -> None:
        """Move on by *seconds*.

        Raises:
            ValueError: If *seconds* is negative: time never goes back.
        """
        if not seconds >= 0:
            raise ValueError(f"seconds={seconds!r} is negative: time never goes back")
        with self._lock:
            self._passed += seconds

    def turn(self, seconds: float) -> None:
        """Turn the time of day by *seconds*, forwards or back, as a time server does. No time passes."""
        with self._lock:
            self._turned += timedelta(seconds=seconds)

    def now(self) -> datetime:
        """The start plus every second that has passed, and by which the clock was turned (UTC)."""
        with self._lock:
            return self._start + timedelta(seconds=self._passed) + self._turned

    def now_ms(self) -> int:
        """The same in milliseconds since 1970 began."""
        return int(self.now().timestamp() * 1000)

    def monotonic(self) -> float:
        """Seconds that have passed since the start."""
        with self._lock:
            return self._passed

    def wait(self, condition: threading.Condition, ready: Callable[[], bool], timeout: float) -> bool:
        """Return True if *ready*; else let *timeout* seconds pass at once, and return *ready* then."""
        if ready():
            return True
        self.advance(timeout)
        return ready()

    async def wait_async(self, future: asyncio.Future[None], timeout: float) -> bool:
        """Return True if *future* is done; else let *timeout* seconds pass at once and return False."""
        if future.done():
            return True
        self.advance(timeout)
        return future.done()
