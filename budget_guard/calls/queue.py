"""The queue of calls that wait for room in one ledger, in order of arrival.

First come, first served: a call does not take room that an older one waits for. The queue is this process's own; over a
ledger that processes share, whoever of them looks first is served first.

Two kinds of calls are in it. A call that runs inside of no other stands in the queue: only the first one for a scope
asks the ledger, and wakes the next when it leaves. A call made *inside* an open hold (a tool's, a stream's) passes it,
because those in it may wait for that very hold. So that two of these never wait for each other, neither counts on a
hold that another one is inside of.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Generator, Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

from budget_guard.calls.enclosing import OpenHold
from budget_guard.clock import Clock
from budget_guard.ledger.base import AsyncLedger, Ledger
from budget_guard.ledger.flow import arun, run
from budget_guard.ledger.verbs import LedgerWrapper
from budget_guard.ledger.waiters import Waiters
from budget_guard.units.scope import Scope

T = TypeVar("T")

Steps: TypeAlias = Generator[tuple[str, tuple[Any, ...]], Any, T]
"""A flow that may also yield ``"await_turn", (ticket, times, timeout)``, which waits as `Waiters.wait` does."""


class Ticket:
    """The place of one waiting call.

    Args:
        clock: Where it waits.
        scopes: The scopes that it waits for.
        around: The open holds that it is inside of.
        passes: Whether it stands in nobody's way and nobody in its: it is inside a call.
    """

    __slots__ = ("around", "passes", "scopes", "turn")

    def __init__(self, clock: Clock, scopes: Iterable[Scope], around: Sequence[OpenHold], passes: bool) -> None:
        self.scopes = frozenset(scopes)
        self.around = around
        self.passes = passes
        self.turn = Waiters(clock)
        """Wakes it when it is first."""


class WaitingQueue:
    """The calls of this process that wait for room in one ledger, oldest first. Safe to use from any thread."""

    def __init__(self) -> None:
        self.tickets: list[Ticket] = []
        """Those that wait."""
        self._lock = threading.Lock()
        _all_queues.add(self)

    def awaited(self, scopes: Sequence[Scope], but: Ticket | None = None) -> frozenset[Scope]:
        """Those of *scopes* that a call stands in the queue for, *but* for one."""
        with self._lock:
            standing = [ticket for ticket in self.tickets if not ticket.passes and ticket is not but]
            awaited = {scope for ticket in standing for scope in ticket.scopes}
        return frozenset(awaited.intersection(scopes))

    def join(self, ticket: Ticket) -> None:
        """Stand at the end of the queue."""
        with self._lock:
            self.tickets.append(ticket)

    def wait_for(self, ticket: Ticket, scopes: Iterable[Scope]) -> None:
        """Note that *ticket* waits for *scopes* now. It keeps its place."""
        with self._lock:
            before, ticket.scopes = ticket.scopes, frozenset(scopes)
            if not before <= ticket.scopes:
                self._wake_first()

    def turn(self, ticket: Ticket) -> int | None:
        """None if no older one waits for a scope that *ticket* waits for; else what `Ticket.turn` counts now."""
        with self._lock:
            return None if ticket.passes or ticket in self._first() else ticket.turn.times

    def leave(self, ticket: Ticket) -> None:
        """Leave the queue, and wake who is first then."""
        with self._lock:
            if ticket in self.tickets:
                self.tickets.remove(ticket)
                self._wake_first()

    def around_others(self, ticket: Ticket | None) -> list[OpenHold]:
        """The open holds that waiting calls are inside of, but for those of *ticket*."""
        with self._lock:
            return [hold for other in self.tickets if other is not ticket for hold in other.around if not hold.settled]

    def _first(self) -> list[Ticket]:
        first: list[Ticket] = []
        awaited: set[Scope] = set()
        for ticket in self.tickets:
            if not ticket.passes:
                if awaited.isdisjoint(ticket.scopes):
                    first.append(ticket)
                awaited |= ticket.scopes
        return first

    def _wake_first(self) -> None:
        for ticket in self._first():
            ticket.turn.give()

    def forked(self) -> None:
        """Begin anew in a forked process: none of those that wait is here."""
        self._lock = threading.Lock()
        self.tickets = []


_queues: weakref.WeakKeyDictionary[Ledger, WaitingQueue] = weakref.WeakKeyDictionary()
_queues_lock = threading.Lock()
_all_queues: weakref.WeakSet[WaitingQueue] = weakref.WeakSet()


def queue_of(ledger: Ledger) -> WaitingQueue:
    """The queue of *ledger*, which all sessions on it share."""
    while isinstance(ledger, LedgerWrapper):
        ledger = ledger.inner
    with _queues_lock:
        try:
            return _queues.setdefault(ledger, WaitingQueue())
        except TypeError:  # somebody's own ledger, of which there can be no weak reference, or which has no hash
            return WaitingQueue()


class _Blocking:
    """A ledger whose callers also wait for their turn."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def await_turn(self, ticket: Ticket, times: int, timeout: float) -> bool:
        return ticket.turn.wait(times, timeout)

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._ledger, verb)


class _Awaiting:
    """As `_Blocking`, to await."""

    def __init__(self, ledger: AsyncLedger) -> None:
        self._ledger = ledger

    async def await_turn(self, ticket: Ticket, times: int, timeout: float) -> bool:
        return await ticket.turn.wait_async(times, timeout)

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._ledger, verb)


def drive(steps: Steps[T], ledger: Ledger) -> T:
    """Perform *steps* on a ledger that blocks."""
    return run(steps, _Blocking(ledger))


async def adrive(steps: Steps[T], ledger: AsyncLedger) -> T:
    """Perform *steps* on a ledger to await."""
    return await arun(steps, _Awaiting(ledger))


def _forked() -> None:
    global _queues_lock
    _queues_lock = threading.Lock()
    for queue in _all_queues:
        queue.forked()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forked)
