"""The default ledger: counters in this process, behind one lock."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence

from budget_guard.clock import SYSTEM_CLOCK, Clock
from budget_guard.dimension import DIMENSIONS, NOTHING, Amounts, Limits
from budget_guard.errors import UnknownReservation
from budget_guard.ledger.base import Balance, Held, Refused, ReserveOutcome, Revoked, Settled
from budget_guard.ledger.hold import Hold
from budget_guard.scope import Scope


class _Counters:
    """The counters of one scope."""

    __slots__ = ("committed", "limited", "limits", "open_holds", "reserved", "revoked", "scope")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.limits = Limits()
        self.limited: tuple[tuple[int, int], ...] = ()
        self.committed = NOTHING
        self.reserved = NOTHING
        self.open_holds = 0
        self.revoked: Revoked | None = None

    def balance(self) -> Balance:
        return Balance(self.scope, self.limits, self.committed, self.reserved, self.open_holds, self.revoked)

    def blocking(self, room: Amounts) -> int | None:
        """The first dimension whose limit *room* would pass."""
        for i, limit in self.limited:
            if self.committed[i] + self.reserved[i] + room[i] > limit:
                return i
        return None


class MemoryLedger:
    """Counters in this process. Every verb is one step under one lock, and none of them blocks for long.

    Args:
        clock: Where `await_room` waits and revocations get their time.
        retain: How many settled holds to remember, so that a repeated verb gets the same answer. An older one is
            unknown, and a verb that names it raises `UnknownReservation`.
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK, retain: int = 10_000) -> None:
        self._clock = clock
        self._retain = retain
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._version = 0
        self._waiting = 0
        self._futures: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._scopes: dict[Scope, _Counters] = {}
        self._holds: dict[str, Hold] = {}
        self._settled: deque[str] = deque()
        self.aio = _Inline(self)

    def set_limits(self, scope: Scope, limits: Limits) -> None:
        with self._lock:
            counters = self._scopes.get(scope)
            if counters is None:
                counters = self._scopes[scope] = _Counters(scope)
            counters.limits = limits
            counters.limited = tuple((i, limit) for i, limit in enumerate(limits) if limit is not None)
            self._gave_room()

    def reserve(self, hold_id: str, scopes: Sequence[Scope], amounts: Amounts, room: Amounts | None) -> ReserveOutcome:
        _check(amounts)
        with self._lock:
            known = self._holds.get(hold_id)
            if known is not None:
                known.must_match(scopes, amounts)
                return Held(hold_id)
            found = [self._scopes[scope] for scope in scopes]
            for counters in found:
                if counters.revoked is not None:
                    return counters.revoked
            if room is not None:
                for counters in found:
                    blocking = counters.blocking(room)
                    if blocking is not None:
                        return self._refused(counters, blocking, found, room)
            for counters in found:
                counters.reserved = counters.reserved.plus(amounts)
                counters.open_holds += 1
            self._holds[hold_id] = Hold(hold_id, tuple(scopes), amounts)
            return Held(hold_id)

    def forward(self, hold_id: str) -> None:
        with self._lock:
            self._hold(hold_id).forward()

    def commit(self, hold_id: str, amounts: Amounts, uncertain: bool = False) -> Settled:
        _check(amounts)
        with self._lock:
            hold = self._hold(hold_id)
            held, replaced = hold.amounts if hold.open else None, hold.charged
            if hold.commit(amounts, uncertain):
                for scope in hold.scopes:
                    counters = self._scopes[scope]
                    counters.committed = counters.committed.plus(amounts)
                    if held is not None:
                        counters.reserved = counters.reserved.minus(held)
                        counters.open_holds -= 1
                    if replaced is not None:
                        counters.committed = counters.committed.minus(replaced)
                if held is not None:
                    self._settle(hold_id)
                self._gave_room()
            assert hold.charged is not None
            return Settled(self._scopes[hold.scopes[0]].committed, hold.charged, hold.uncertain)

    def release(self, hold_id: str) -> bool:
        with self._lock:
            hold = self._hold(hold_id)
            if not hold.release():
                return False
            for scope in hold.scopes:
                counters = self._scopes[scope]
                counters.reserved = counters.reserved.minus(hold.amounts)
                counters.open_holds -= 1
            self._settle(hold_id)
            self._gave_room()
            return True

    def charge(self, charge_id: str, scopes: Sequence[Scope], amounts: Amounts) -> Refused | None:
        _check(amounts)
        with self._lock:
            found = [self._scopes[scope] for scope in scopes]
            known = self._holds.get(charge_id)
            if known is not None:
                known.must_match(scopes, amounts)
            else:
                for counters in found:
                    counters.committed = counters.committed.plus(amounts)
                hold = self._holds[charge_id] = Hold(charge_id, tuple(scopes), amounts)
                hold.commit(amounts, uncertain=False)
                self._settle(charge_id)
            for counters in found:
                blocking = counters.blocking(Amounts())
                if blocking is not None:
                    return self._refused(counters, blocking, found, Amounts())
            return None

    def await_room(self, version: int, timeout: float) -> bool:
        with self._lock:
            self._waiting += 1
            try:
                return self._clock.wait(self._room, lambda: self._version != version, timeout)
            finally:
                self._waiting -= 1

    async def await_room_async(self, version: int, timeout: float) -> bool:
        """As `await_room`, without blocking the event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        entry = (loop, future)
        with self._lock:
            if self._version != version:
                return True
            self._futures.append(entry)
        try:
            return await self._clock.wait_async(future, timeout)
        finally:
            with self._lock:
                if entry in self._futures:
                    self._futures.remove(entry)

    def balances(self, scopes: Sequence[Scope]) -> Sequence[Balance]:
        with self._lock:
            return [self._scopes[scope].balance() for scope in scopes]

    def remaining(self, scopes: Sequence[Scope]) -> Limits:
        least: list[int | None] = [None] * len(DIMENSIONS)
        with self._lock:
            for scope in scopes:
                counters = self._scopes[scope]
                for i, limit in counters.limited:
                    left, before = limit - counters.committed[i] - counters.reserved[i], least[i]
                    if before is None or left < before:
                        least[i] = left
        return Limits._make(least)

    def revoke(self, scope: Scope, reason: str) -> None:
        at = self._clock.now()
        with self._lock:
            counters = self._scopes.get(scope)
            if counters is None:
                counters = self._scopes[scope] = _Counters(scope)
            if counters.revoked is None:
                counters.revoked = Revoked(scope, reason, at)
            self._gave_room()  # whoever waits shall hear of it

    def _hold(self, hold_id: str) -> Hold:
        hold = self._holds.get(hold_id)
        if hold is None:
            raise UnknownReservation(
                reservation_id=hold_id, detail="was never made, or was settled long ago; nothing was changed"
            )
        return hold

    def _settle(self, hold_id: str) -> None:
        self._settled.append(hold_id)
        if len(self._settled) > self._retain:
            del self._holds[self._settled.popleft()]

    def _refused(self, counters: _Counters, i: int, found: Sequence[_Counters], room: Amounts) -> Refused:
        return Refused(
            counters.scope,
            i,
            dict(counters.limited)[i],
            counters.committed[i],
            counters.reserved[i],
            all(c.committed[j] + room[j] <= limit for c in found for j, limit in c.limited),
            self._version,
        )

    def _gave_room(self) -> None:
        self._version += 1
        if self._waiting:
            self._room.notify_all()
        if self._futures:
            for loop, future in self._futures:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(_wake, future)
            self._futures.clear()


def _check(amounts: Amounts) -> None:
    if min(amounts) < 0 or type(sum(amounts)) is not int:  # one float, NaN included, makes the sum a float
        raise ValueError(f"{amounts} must be whole numbers, zero or more")


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class _Inline:
    """The same verbs to await. None but `await_room` ever waits, so the others run where they are called."""

    __slots__ = ("_ledger",)

    def __init__(self, ledger: MemoryLedger) -> None:
        self._ledger = ledger

    async def reserve(
        self, hold_id: str, scopes: Sequence[Scope], amounts: Amounts, room: Amounts | None
    ) -> ReserveOutcome:
        return self._ledger.reserve(hold_id, scopes, amounts, room)

    async def forward(self, hold_id: str) -> None:
        self._ledger.forward(hold_id)

    async def commit(self, hold_id: str, amounts: Amounts, uncertain: bool = False) -> Settled:
        return self._ledger.commit(hold_id, amounts, uncertain)

    async def release(self, hold_id: str) -> bool:
        return self._ledger.release(hold_id)

    async def charge(self, charge_id: str, scopes: Sequence[Scope], amounts: Amounts) -> Refused | None:
        return self._ledger.charge(charge_id, scopes, amounts)

    async def await_room(self, version: int, timeout: float) -> bool:
        return await self._ledger.await_room_async(version, timeout)

    async def balances(self, scopes: Sequence[Scope]) -> Sequence[Balance]:
        return self._ledger.balances(scopes)

    async def remaining(self, scopes: Sequence[Scope]) -> Limits:
        return self._ledger.remaining(scopes)
