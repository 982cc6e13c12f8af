"""The ledger in an SQLite file: durable, and shared by the processes of one host."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from budget_guard.clock import SYSTEM_CLOCK, Clock
from budget_guard.ledger.base import AsyncLedger, Ledger
from budget_guard.ledger.flow import Steps, arun, run
from budget_guard.ledger.history import KEPT, Kept, UsageQuery, UsageSum
from budget_guard.ledger.sqlite.file import LedgerFile
from budget_guard.ledger.sqlite.writer import Writer
from budget_guard.ledger.verbs import AwaitableVerbs, BlockingVerbs
from budget_guard.ledger.waiters import Waiters

P = ParamSpec("P")
R = TypeVar("R")

_FIRST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 0.25


class SqliteLedger(BlockingVerbs):
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
        mode: The permissions that the file gets if it is made, and SQLite's two beside it: for its owner alone unless
            another mode is given, such as ``0o660`` for a group.
        history: For how long to keep what the usage history has.

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
        mode: int = 0o600,
        history: Kept = KEPT,
    ) -> None:
        if not hold_ttl_s > 0:
            raise ValueError(f"hold_ttl_s={hold_ttl_s!r} must be more than 0 seconds")
        if not retain >= 0:
            raise ValueError(f"retain={retain!r} must be 0 or more holds")
        if not busy_timeout_s >= 0:
            raise ValueError(f"busy_timeout_s={busy_timeout_s!r} must be 0 seconds or more")
        if isinstance(mode, bool) or not isinstance(mode, int) or not 0 <= mode <= 0o777 or mode & 0o600 != 0o600:
            raise ValueError(f"mode={mode!r} must be permissions that let the owner read and write, such as 0o600")
        self._waiters = Waiters(clock)
        file = LedgerFile(path, durable=durable, mode=mode)
        self._writer = Writer(file, clock, self._waiters, hold_ttl_s, retain, busy_timeout_s, history.check())
        weakref.finalize(self, self._writer.stop).atexit = False  # the writers end themselves then, in good order
        self.aio: AsyncLedger = _AsyncSqliteLedger(self, self._writer, self._waiters)
        try:
            self._writer.call("version")
        except BaseException:
            self.close()
            raise

    def _perform(self, verb: Callable[Concatenate[Ledger, P], R], *arguments: P.args, **named: P.kwargs) -> R:
        result: R = self._writer.call(verb.__name__, *arguments)
        return result

    def await_room(self, version: int, timeout: float) -> bool:
        return run(_poll(self._waiters, version, timeout), _Looks(self._writer, self._waiters))

    def usage(self, query: UsageQuery) -> Sequence[UsageSum]:
        """As the contract says. Holds up no other verb."""
        return self._writer.usage(query)

    def audit(self) -> Sequence[str]:
        """As the contract says, and check the file as well. Reads all of it, and holds up no other verb."""
        return self._writer.audit()

    def close(self) -> None:
        """Perform what was asked for, then let go of the file. The ledger is of no use afterwards."""
        self._writer.close()


class _AsyncSqliteLedger(AwaitableVerbs):
    """The same verbs to await, performed by the same writer."""

    def __init__(self, ledger: SqliteLedger, writer: Writer, waiters: Waiters) -> None:
        self._ledger = ledger  # kept, for without it the writer ends
        self._writer = writer
        self._waiters = waiters

    def _perform(
        self, verb: Callable[Concatenate[Ledger, P], R], *arguments: P.args, **named: P.kwargs
    ) -> Coroutine[Any, Any, R]:
        return self._writer.acall(verb.__name__, *arguments)

    async def await_room(self, version: int, timeout: float) -> bool:
        return await arun(_poll(self._waiters, version, timeout), _AsyncLooks(self._writer, self._waiters))

    async def usage(self, query: UsageQuery) -> Sequence[UsageSum]:
        return await asyncio.to_thread(self._ledger.usage, query)

    async def audit(self) -> Sequence[str]:
        return await asyncio.to_thread(self._ledger.audit)

    async def close(self) -> None:
        await asyncio.to_thread(self._ledger.close)


class _Looks:
    """The steps of waiting for room: looks at the version, and pauses in between."""

    def __init__(self, writer: Writer, waiters: Waiters) -> None:
        self._writer = writer
        self.pause = waiters.wait

    def version(self) -> Any:
        return self._writer.call("version")


class _AsyncLooks:
    """The same, to await."""

    def __init__(self, writer: Writer, waiters: Waiters) -> None:
        self._writer = writer
        self.pause = waiters.wait_async

    async def version(self) -> Any:
        return await self._writer.acall("version")


def _poll(waiters: Waiters, version: int, timeout: float) -> Steps[bool]:
    return waiters.poll(_version, version, timeout, _FIRST_PAUSE_S, _LONGEST_PAUSE_S)


def _version() -> Steps[int]:
    version: int = yield "version", ()
    return version
