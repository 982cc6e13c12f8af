"""Waking those in this process who wait until a ledger has room again."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import weakref
from contextlib import suppress

from budget_guard.clock import Clock


class Waiters:
    """Counts how often this process gave room, and wakes whoever waits for that. Safe to use from any thread.

    Whoever gives counts first and looks then whether somebody waits; whoever waits says so first and looks then at the
    count. So nobody misses the other, and giving takes no lock while nobody waits.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.times = 0
        """How often room was given. Two that give at once may count out of turn, but never twice the same."""
        self._count = itertools.count(1).__next__
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting = 0
        self._futures: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        _rooms.add(self)

    def give(self) -> None:
        """Wake whoever waits."""
        self.times = self._count()
        if self._waiting or self._futures:
            self._wake_all()

    def _wake_all(self) -> None:
        with self._lock:
            self._changed.notify_all()
            futures, self._futures = self._futures, []
        for loop, future in futures:
            with suppress(RuntimeError):  # the loop is closed, and nobody waits there any more
                loop.call_soon_threadsafe(_wake, future)

    def wait(self, times: int, timeout: float) -> bool:
        """Wait until room is given after `times` was *times*, or *timeout* seconds; return whether it was."""
        with self._changed:
            self._waiting += 1
            try:
                return self._clock.wait(self._changed, lambda: self.times != times, timeout)
            finally:
                self._waiting -= 1

    async def wait_async(self, times: int, timeout: float) -> bool:
        """As `wait`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        entry = (loop, future)
        with self._lock:
            self._futures.append(entry)
        try:
            return self.times != times or await self._clock.wait_async(future, timeout)
        finally:
            with self._lock:
                if entry in self._futures:
                    self._futures.remove(entry)

    def forked(self) -> None:
        """In a forked process: another thread may have held the lock, and there is nobody to wake."""
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting = 0
        self._futures = []


_rooms: weakref.WeakSet[Waiters] = weakref.WeakSet()


def _forked() -> None:
    for room in _rooms:
        room.forked()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forked)
