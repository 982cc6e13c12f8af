"""A ledger in a file: durable, and shared by the processes of one host."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Iterator, Sequence

from budget_guard.clock import SYSTEM_CLOCK, Clock
from budget_guard.ledger.base import AsyncLedger, Balance, Refused, ReserveOutcome, Settled, Suspended
from budget_guard.ledger.sqlite.file import LedgerFile
from budget_guard.ledger.sqlite.verbs import SqliteVerbs
from budget_guard.ledger.sqlite.writer import Writer
from budget_guard.ledger.waiters import Waiters
from budget_guard.units.amounts import Amounts, Limits, Sums
from budget_guard.units.scope import Scope, Window

_FIRST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 0.25


class SqliteLedger:
    """Counters in an SQLite file, for every process of this host that opens it.

    What a verb answers has been written: a killed process loses nothing that was acknowledged, and with *durable*
    neither does a loss of power. A thread does the writing, so the verbs of `aio` never stall an event loop. The
    ledger may be used on both sides of a fork.

    Args:
        path: The file, made if it is not there. On a local disk, and for this purpose alone.
        clock: Where windows begin, holds expire and revocations get their time. The ledger's time never goes back.
        durable: Whether the disk itself has what is acknowledged. False is faster where the disk is slow, and a loss
            of power, unlike a killed process, may then take the last moments with it.
        hold_ttl_s: Seconds after which a hold expires where `reserve` does not say.
        retain: How many settled holds to remember, so that a repeated verb gets the same answer; about 200 bytes each.
            Those made in the last 5 minutes are remembered in any case.
        busy_timeout_s: How long a verb waits, in real seconds, while another process writes.

    Raises:
        LedgerUnavailable: If the file cannot be opened, is none of this library, or is of a newer version.
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock = SYSTEM_CLOCK,
        durable: bool = True,
        hold_ttl_s: float = 900.0,
        retain: int = 100_000,
        busy_timeout_s: float = 5.0,
    ) -> None:
        if not hold_ttl_s > 0:
            raise ValueError(f"hold_ttl_s={hold_ttl_s!r} must be more than 0 seconds")
        if not retain >= 0:
            raise ValueError(f"retain={retain!r} must be 0 or more holds")
        if not busy_timeout_s >= 0:
            raise ValueError(f"busy_timeout_s={busy_timeout_s!r} must be 0 seconds or more")
        self._clock = clock
        self._room = Waiters(clock)
        self._writer = Writer(LedgerFile(path, durable=durable), clock, self._room, hold_ttl_s, retain, busy_timeout_s)
        weakref.finalize(self, self._writer.stop).atexit = False  # the writers end themselves then, in good order
        self.aio: AsyncLedger = _AsyncSqliteLedger(self, self._writer, self._room, clock)
        try:
            self._version()
        except BaseException:
            self.close()
            raise

    def set_limits(self, scope: Scope, limits: Limits, window: Window = "none", owner: str = "") -> None:
        self._writer.call(SqliteVerbs.set_limits, scope, limits, window, owner)

    def reserve(
        self,
        hold_id: str,
        scopes: Sequence[Scope],
        amounts: Amounts,
        room: Sums | None,
        ttl_s: float | None = None,
        suspend: bool = True,
        sent: bool = False,
    ) -> ReserveOutcome:
        return self._writer.call(SqliteVerbs.reserve, hold_id, scopes, amounts, room, ttl_s, suspend, sent)

    def forward(self, hold_id: str) -> None:
        self._writer.call(SqliteVerbs.forward, hold_id)

    def extend(self, hold_id: str, ttl_s: float) -> bool:
        return self._writer.call(SqliteVerbs.extend, hold_id, ttl_s)

    def commit(self, hold_id: str, scopes: Sequence[Scope], amounts: Amounts, uncertain: bool = False) -> Settled:
        return self._writer.call(SqliteVerbs.commit, hold_id, scopes, amounts, uncertain)

    def release(self, hold_id: str, scopes: Sequence[Scope]) -> bool:
        return self._writer.call(SqliteVerbs.release, hold_id, scopes)

    def charge(self, charge_id: str, scopes: Sequence[Scope], amounts: Amounts) -> Refused | None:
        return self._writer.call(SqliteVerbs.charge, charge_id, scopes, amounts)

    def adjust(self, adjust_id: str, scope: Scope, change: Amounts, reason: str) -> Amounts:
        return self._writer.call(SqliteVerbs.adjust, adjust_id, scope, change, reason)

    def await_room(self, version: int, timeout: float) -> bool:
        for pause in pauses(self._clock, timeout):
            times = self._room.times
            if self._version() != version:
                return True
            self._room.wait(times, pause)
        return self._version() != version

    def balances(self, scopes: Sequence[Scope]) -> Sequence[Balance]:
        return self._writer.call(SqliteVerbs.balances, scopes)

    def revoke(self, scope: Scope, reason: str) -> None:
        self._writer.call(SqliteVerbs.revoke, scope, reason)

    def restore(self, scope: Scope) -> bool:
        return self._writer.call(SqliteVerbs.restore, scope)

    def sweep(self, most: int = 1_000) -> int:
        return self._writer.call(SqliteVerbs.sweep, most)

    def suspended(self, most: int = 1_000) -> Sequence[Suspended]:
        return self._writer.call(SqliteVerbs.suspended, most)

    def audit(self) -> Sequence[str]:
        """As the contract says, and check the file as well. Reads all of it, and holds up no other verb."""
        return self._writer.apart(SqliteVerbs.audit)

    def close(self) -> None:
        """Perform what was asked for, then let go of the file. The ledger is of no use afterwards."""
        self._writer.close()

    def _version(self) -> int:
        return self._writer.call(SqliteVerbs.version)


class _AsyncSqliteLedger:
    """The same verbs, left with the same writer, to await."""

    __slots__ = ("_clock", "_ledger", "_room", "_writer")

    def __init__(self, ledger: SqliteLedger, writer: Writer, room: Waiters, clock: Clock) -> None:
        self._clock = clock
        self._ledger = ledger  # kept, for without it the writer ends
        self._writer = writer
        self._room = room

    async def set_limits(self, scope: Scope, limits: Limits, window: Window = "none", owner: str = "") -> None:
        await self._writer.acall(SqliteVerbs.set_limits, scope, limits, window, owner)

    async def reserve(
        self,
        hold_id: str,
        scopes: Sequence[Scope],
        amounts: Amounts,
        room: Sums | None,
        ttl_s: float | None = None,
        suspend: bool = True,
        sent: bool = False,
    ) -> ReserveOutcome:
        return await self._writer.acall(SqliteVerbs.reserve, hold_id, scopes, amounts, room, ttl_s, suspend, sent)

    async def forward(self, hold_id: str) -> None:
        await self._writer.acall(SqliteVerbs.forward, hold_id)

    async def extend(self, hold_id: str, ttl_s: float) -> bool:
        return await self._writer.acall(SqliteVerbs.extend, hold_id, ttl_s)

    async def commit(self, hold_id: str, scopes: Sequence[Scope], amounts: Amounts, uncertain: bool = False) -> Settled:
        return await self._writer.acall(SqliteVerbs.commit, hold_id, scopes, amounts, uncertain)

    async def release(self, hold_id: str, scopes: Sequence[Scope]) -> bool:
        return await self._writer.acall(SqliteVerbs.release, hold_id, scopes)

    async def charge(self, charge_id: str, scopes: Sequence[Scope], amounts: Amounts) -> Refused | None:
        return await self._writer.acall(SqliteVerbs.charge, charge_id, scopes, amounts)

    async def adjust(self, adjust_id: str, scope: Scope, change: Amounts, reason: str) -> Amounts:
        return await self._writer.acall(SqliteVerbs.adjust, adjust_id, scope, change, reason)

    async def await_room(self, version: int, timeout: float) -> bool:
        for pause in pauses(self._clock, timeout):
            times = self._room.times
            if await self._version() != version:
                return True
            await self._room.wait_async(times, pause)
        return await self._version() != version

    async def balances(self, scopes: Sequence[Scope]) -> Sequence[Balance]:
        return await self._writer.acall(SqliteVerbs.balances, scopes)

    async def revoke(self, scope: Scope, reason: str) -> None:
        await self._writer.acall(SqliteVerbs.revoke, scope, reason)

    async def restore(self, scope: Scope) -> bool:
        return await self._writer.acall(SqliteVerbs.restore, scope)

    async def sweep(self, most: int = 1_000) -> int:
        return await self._writer.acall(SqliteVerbs.sweep, most)

    async def suspended(self, most: int = 1_000) -> Sequence[Suspended]:
        return await self._writer.acall(SqliteVerbs.suspended, most)

    async def audit(self) -> Sequence[str]:
        return await asyncio.to_thread(self._ledger.audit)

    async def close(self) -> None:
        await asyncio.to_thread(self._ledger.close)

    async def _version(self) -> int:
        return await self._writer.acall(SqliteVerbs.version)


def pauses(clock: Clock, timeout: float) -> Iterator[float]:
    """How long to wait before each next look at what another process may have done; *timeout* seconds in all."""
    ends, pause = clock.monotonic() + timeout, _FIRST_PAUSE_S
    while (left := ends - clock.monotonic()) > 0:
        yield min(pause, left)
        pause = min(2 * pause, _LONGEST_PAUSE_S)
