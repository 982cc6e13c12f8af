"""How subscribers are called: plain functions at once, async ones on an event loop, sinks as a function of each run."""

from __future__ import annotations

import inspect
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar, cast

from budget_guard.events.model import Event, Subscriber
from budget_guard.events.origin import Origin, Sink

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

_log = logging.getLogger("budget_guard")

T = TypeVar("T")

AsyncSubscriber: TypeAlias = Callable[[Event], Awaitable[object]]
AnySubscriber: TypeAlias = "Subscriber | AsyncSubscriber | Sink"
"""What `subscribe` takes: a function of one event, plain or async, or a sink."""

_MOST_WAITING = 10_000
"""Events that wait for an async subscriber; the oldest are dropped beyond that, with one warning."""


def as_subscriber(given: object, origin: Origin) -> Subscriber:
    """The plain function that takes the events of *origin* to *given*.

    Raises:
        TypeError: As `check_subscriber`.
    """
    check_subscriber(given)
    if isinstance(given, Sink):
        return given.of_run(origin)
    return cast("Subscriber", called_with(cast("Callable[[Event], object]", given)))


def called_with(function: Callable[[T], object]) -> Callable[[T], object]:
    """*function* as a plain one: an async one is called on an event loop, one call after the other."""
    called: object = function if inspect.isroutine(function) else type(function).__call__
    if inspect.iscoroutinefunction(called):
        return _OnLoop(cast("Callable[[T], Awaitable[object]]", function)).put
    return function


def check_subscriber(given: object) -> None:
    """Check that *given* can take events.

    Raises:
        TypeError: If it is neither a function of one event nor a sink.
    """
    if isinstance(given, str):
        raise TypeError(
            f"subscriber={given!r} is a text: give a function of one event, or a sink, such as "
            "budget_guard.events.sinks.WebhookSink for an address"
        )
    if isinstance(given, type):
        raise TypeError(f"subscriber={given.__name__} is a class: give an instance of it")
    if not isinstance(given, Sink) and not callable(given):
        raise TypeError(f"subscriber={given!r} cannot be called: give a function of one event, such as print")


class _OnLoop(Generic[T]):
    """Calls an async subscriber with one event after the other, in their order, on an event loop.

    That is the loop which was running when it subscribed, or else the one where its first event happens; where there is
    none, a loop on a thread of its own.
    """

    def __init__(self, subscriber: Callable[[T], Awaitable[object]]) -> None:
        self._subscriber = subscriber
        self._loop = _running_loop()
        self._lock = threading.Lock()
        self._waiting: deque[T] = deque()
        self._is_busy = False
        self._has_dropped = False
        self._task: object = None

    def put(self, event: T) -> None:
        with self._lock:
            if len(self._waiting) >= _MOST_WAITING:
                self._waiting.popleft()
                if not self._has_dropped:
                    self._has_dropped = True
                    _log.warning("budget_guard: an async subscriber is too slow, and events are dropped")
            self._waiting.append(event)
            if self._is_busy and not _is_gone(self._loop):
                return
            self._is_busy = True
            loop, running = self._loop, _running_loop()
            if loop is None or _is_gone(loop):
                loop = self._loop = running or _own_loop()
        if loop is running:
            self._task = loop.create_task(self._drain())
        else:
            import asyncio  # nobody loads it who never awaits

            self._task = asyncio.run_coroutine_threadsafe(self._drain(), loop)

    async def _drain(self) -> None:
        import asyncio

        while True:
            with self._lock:
                if not self._waiting:
                    self._is_busy = False
                    return
                event = self._waiting.popleft()
            try:
                await self._subscriber(event)
            except asyncio.CancelledError:  # the loop ends: what waits is told on the next one
                with self._lock:
                    self._is_busy = False
                raise
            except Exception:
                _log.exception("a budget_guard subscriber failed on %r", event)


def _running_loop() -> AbstractEventLoop | None:
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return None
    try:
        return cast("AbstractEventLoop", asyncio.get_running_loop())
    except RuntimeError:
        return None


def _is_gone(loop: AbstractEventLoop | None) -> bool:
    """Whether nothing runs on *loop* any more."""
    return loop is None or loop.is_closed() or loop is _of_parent


_of_parent: AbstractEventLoop | None = None
"""The loop that had a thread of its own in the process that this one was forked from."""
_own: AbstractEventLoop | None = None
_own_lock = threading.Lock()


def _own_loop() -> AbstractEventLoop:
    """A loop on a thread of its own, one in a process."""
    import asyncio

    global _own
    with _own_lock:
        if _own is None or _own.is_closed():
            _own = asyncio.new_event_loop()
            threading.Thread(target=_own.run_forever, name="budget_guard subscribers", daemon=True).start()
        return _own


def _after_fork_in_child() -> None:
    global _of_parent, _own, _own_lock
    _of_parent, _own, _own_lock = _own, None, threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
