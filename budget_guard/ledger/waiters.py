"""Waiting until a ledger has room again: for what this process gives back, and for what others do."""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from budget_guard.clock import Clock
from budget_guard.ledger.flow import Steps

if TYPE_CHECKING:
    import asyncio


class Waiters:
    """Counts how often this process gave room, and wakes the threads and tasks that wait for it.

    Safe to use from any thread. Giving counts first and then looks for waiters; waiting registers first and then looks
    at the count. So neither misses the other, and giving takes no lock while nothing waits.
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
        _all_waiters.add(self)

    def give(self) -> None:
        """Count that room was given, and wake all that wait for it."""
        self.times = self._count()
        if self._waiting or self._futures:
            self._wake_all()

    def _wake_all(self) -> None:
        with self._lock:
            self._changed.notify_all()
            futures, self._futures = self._futures, []
        for loop, future in futures:
            with suppress(RuntimeError):  # the loop is closed, and nothing waits there any more
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
        import asyncio  # as `SystemClock.wait_async` does

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

    def poll(
        self, look: Callable[[], Steps[int]], version: int, timeout: float, first_s: float, longest_s: float
    ) -> Steps[bool]:
        """Wait for room that other processes may give as well.

        The steps are those of *look* and ``"pause", (times, timeout)``, which is performed by `wait` or `wait_async`.

        Args:
            look: The steps that return the present version of the ledger.
            version: The version since which room is awaited.
            timeout: Seconds to wait at most.
            first_s: The first pause between two looks, in seconds. Each next one is twice as long.
            longest_s: The longest pause, in seconds.

        Returns:
            Whether the version is another one now.
        """
        ends, pause_s = self._clock.monotonic() + timeout, first_s
        while True:
            times = self.times
            if (yield from look()) != version:
                return True
            left = ends - self._clock.monotonic()
            if left <= 0:
                return False
            yield "pause", (times, min(pause_s, left))
            pause_s = min(2 * pause_s, longest_s)

    def forked(self) -> None:
        """Begin anew in a forked process: another thread may have held the lock, and none of them is here."""
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting = 0
        self._futures = []


_all_waiters: weakref.WeakSet[Waiters] = weakref.WeakSet()


def _forked() -> None:
    for waiters in _all_waiters:
        waiters.forked()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forked)
