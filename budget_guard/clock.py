"""Time, in one place, so that no test needs to wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio


class Clock(Protocol):
    """Where the library reads the time and waits for it."""

    def now(self) -> datetime:
        """The time of day, timezone-aware (UTC)."""
        ...

    def now_ms(self) -> int:
        """Milliseconds since 1970 began; never goes back, so that ids made later sort later."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        ...

    def wait(self, condition: threading.Condition, ready: Callable[[], bool], timeout: float) -> bool:
        """Wait on *condition*, which the caller holds, until *ready* or *timeout* seconds; return *ready*."""
        ...

    async def wait_async(self, future: asyncio.Future[None], timeout: float) -> bool:
        """Wait until *future* is done or *timeout* seconds have passed; return whether it is done."""
        ...


class SystemClock:
    """The machine's own clock."""

    monotonic = staticmethod(time.monotonic)
    _latest_ms = 0

    def now(self) -> datetime:
        return datetime.now(timezone.utc)

    def now_ms(self) -> int:
        now = time.time_ns() // 1_000_000
        if now < self._latest_ms:  # the machine's clock was set back
            return self._latest_ms
        self._latest_ms = now
        return now

    def wait(self, condition: threading.Condition, ready: Callable[[], bool], timeout: float) -> bool:
        return condition.wait_for(ready, timeout)

    async def wait_async(self, future: asyncio.Future[None], timeout: float) -> bool:
        import asyncio  # a sixth of the time that importing us takes, and who awaits has it already

        done, _ = await asyncio.wait({future}, timeout=timeout)
        return bool(done)


SYSTEM_CLOCK = SystemClock()
