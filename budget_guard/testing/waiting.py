"""Waiting for a change of shared state, from threads and from event loops alike."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import NamedTuple


class _Sleeper(NamedTuple):
    loop: asyncio.AbstractEventLoop
    woken: asyncio.Future[None]
    ready: Callable[[], bool]


class Signal:
    """Guards shared state with one lock, and wakes those whose condition a change has made true.

    Any number of threads and any number of event loops may wait. A *ready* function runs under the lock, in
    the thread that made the change, so it only looks at state.
    """

    def __init__(self) -> None:
        # Re-entrant: a change may be made of smaller ones.
        self._condition = threading.Condition(threading.RLock())
        self._sleepers: set[_Sleeper] = set()

    @contextmanager
    def changing(self) -> Generator[None, None, None]:
        """Hold the lock, then wake those who wait for what was changed."""
        with self._condition:
            yield
            self._condition.notify_all()
            for sleeper in [sleeper for sleeper in self._sleepers if sleeper.ready()]:
                self._sleepers.discard(sleeper)
                # A loop that was closed in the meantime has nobody left to wake.
                with suppress(RuntimeError):
                    sleeper.loop.call_soon_threadsafe(_wake, sleeper.woken)

    @contextmanager
    def reading(self) -> Generator[None, None, None]:
        """Hold the lock, to read several values that belong together."""
        with self._condition:
            yield

    def wait(self, ready: Callable[[], bool], timeout: float) -> bool:
        """Block this thread until *ready* or *timeout* seconds; return whether it became ready."""
        with self._condition:
            return self._condition.wait_for(ready, timeout)

    async def wait_async(self, ready: Callable[[], bool], timeout: float | None = None) -> bool:
        """Suspend this task until *ready* or *timeout* seconds; return whether it became ready."""
        loop = asyncio.get_running_loop()
        with self._condition:
            if ready():
                return True
            sleeper = _Sleeper(loop, loop.create_future(), ready)
            self._sleepers.add(sleeper)
        try:
            await asyncio.wait({sleeper.woken}, timeout=timeout)
            return sleeper.woken.done()
        finally:
            with self._condition:
                self._sleepers.discard(sleeper)


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
