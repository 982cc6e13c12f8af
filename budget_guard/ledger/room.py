"""Waking those who wait for room in the same process, where the counters live elsewhere."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref

from budget_guard.clock import Clock


class Room:
    """Counts how often this process gave room, and wakes whoever waits for that. Safe to use from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.times = 0
        """How often room was given."""
        self._changed = threading.Condition()
        self._futures: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        _rooms.add(self)

    def give(self) -> None:
        """Wake whoever waits."""
        with self._changed:
            self.times += 1
            self._changed.notify_all()
            futures, self._futures = self._futures, []
        for loop, future in futures:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_wake, future)

    def wait(self, times: int, timeout: float) -> None:
        """Wait until room was given more often than *times*, or *timeout* seconds."""
        with self._changed:
            self._clock.wait(self._changed, lambda: self.times != times, timeout)

    async def wait_async(self, times: int, timeout: float) -> None:
        """As `wait`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        entry = (loop, future)
        with self._changed:
            if self.times != times:
                return
            self._futures.append(entry)
        try:
            await self._clock.wait_async(future, timeout)
        finally:
            with self._changed:
                if entry in self._futures:
                    self._futures.remove(entry)

    def forked(self) -> None:
        """In a forked process: another thread may have held the lock, and there is nobody to wake."""
        self._changed = threading.Condition()
        self._futures = []


_rooms: weakref.WeakSet[Room] = weakref.WeakSet()


def _forked() -> None:
    for room in _rooms:
        room.forked()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forked)
