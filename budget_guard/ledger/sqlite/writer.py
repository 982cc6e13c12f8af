"""The thread that performs the verbs of one ledger, as many in a transaction as are waiting.

Callers from any thread or event loop queue a verb and wait for its answer, which comes after the commit. So one write
to the disk serves all that came while the last one was under way, and no event loop ever waits for the disk.

A fork finds no transaction under way and no file open: it waits for the batch at hand to end, and parent and child each
open the file again when they next need it. What the parent was asked for stays the parent's to do.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import random
import sqlite3
import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeAlias, TypeVar

from budget_guard.clock import Clock
from budget_guard.errors import LedgerAmbiguous, LedgerUnavailable
from budget_guard.ledger.checks import check_id
from budget_guard.ledger.history import Kept, UsageQuery, UsageSum
from budget_guard.ledger.sqlite.file import FilesInUse, LedgerFile, is_locked, unavailable
from budget_guard.ledger.sqlite.transaction import MOST_VERBS, Transaction
from budget_guard.ledger.sqlite.usage import KnownRows
from budget_guard.ledger.sqlite.verbs import SqliteVerbs
from budget_guard.ledger.waiters import Waiters

_SHORTEST_PAUSE_S = 0.0001
_LONGEST_PAUSE_S = 0.002
"""Between two looks at a file that another process has locked. SQLite's own pauses grow to 100 ms and let some wait
for most of a second; with these the longest wait of 8 busy processes was a tenth of that."""

_READS = frozenset(("version", "balances", "names"))
"""The verbs that change nothing, and take no lock if only such are waiting."""
_BY_ID = frozenset(("reserve", "forward", "extend", "commit", "release", "charge", "adjust"))
"""The verbs whose first argument is an id."""

P = ParamSpec("P")
R = TypeVar("R")
Answer: TypeAlias = tuple[Any, Exception | None]
"""What a verb returned, or what it raised."""


class QueuedVerb(NamedTuple):
    """A verb that a thread, or a task of some event loop, waits for."""

    name: str
    """The name of a method of `SqliteVerbs`."""
    arguments: tuple[Any, ...]
    hold_id: str | None
    """The id that it is about, where it is about one."""
    future: Future[Answer] | asyncio.Future[Answer]


class Writer:
    """Performs verbs on *file*, in the order in which they come.

    Args:
        file: Where the ledger lives.
        clock: Where the time comes from.
        waiters: What waits for room in this process.
        hold_ttl_s: Seconds after which a hold expires if nothing else was asked for.
        retain: How many settled holds to remember.
        busy_timeout_s: How long to wait for a lock that another process holds: real seconds, whatever the clock.
        kept: For how long to keep the rows of the usage history.
    """

    def __init__(
        self,
        file: LedgerFile,
        clock: Clock,
        waiters: Waiters,
        hold_ttl_s: float,
        retain: int,
        busy_timeout_s: float,
        kept: Kept,
    ) -> None:
        self._file = file
        self._clock = clock
        self._waiters = waiters
        self._hold_ttl_s = hold_ttl_s
        self._retain = retain
        self._busy_timeout_s = busy_timeout_s
        self._kept = kept
        self._closed = False
        self._committing = False
        self._seen_at = 0
        """The latest time of the ledger that this process knows of: what the file says is never an earlier one."""
        self.begin_anew()
        with _forking:
            _writers.add(self)

    def begin_anew(self) -> None:
        """Begin with nothing under way and no file open: at first, and in a forked process."""
        self._lock = threading.Lock()
        self.at_work = threading.Lock()
        """Held while the file is in use."""
        self._queue: SimpleQueue[QueuedVerb | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._db: sqlite3.Connection | None = None
        self._files = FilesInUse((0, 0), None, None)
        self._known = KnownRows()

    def call(self, verb: str, *arguments: Any) -> Any:
        """Perform *verb*, a method of `SqliteVerbs`, and wait for what it returns."""
        future: Future[Answer] = Future()
        self._leave(verb, arguments, future)
        return _result(future.result())

    async def acall(self, verb: str, *arguments: Any) -> Any:
        """As `call`. The verb is performed even if its caller is cancelled."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._leave(verb, arguments, future)
        return _result(await future)

    def audit(self) -> Sequence[str]:
        """Recount everything in the caller's own thread, for it may take long."""
        return self._read(SqliteVerbs.audit)

    def usage(self, query: UsageQuery) -> Sequence[UsageSum]:
        """The answer to *query*, in the caller's own thread."""
        return self._read(SqliteVerbs.usage, query)

    def _read(self, verb: Callable[Concatenate[SqliteVerbs, P], R], *arguments: P.args, **named: P.kwargs) -> R:
        self._must_be_open()
        ends = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                db = self._file.open()
                try:
                    db.execute("BEGIN")
                    transaction = Transaction(db, self._clock.now(), self._kept, self._known)
                    return verb(SqliteVerbs(transaction, self._hold_ttl_s, self._retain), *arguments, **named)
                finally:
                    db.close()
            except sqlite3.Error as error:
                if not is_locked(error) or time.monotonic() >= ends:
                    raise unavailable(self._file.path, error) from error
            time.sleep(random.uniform(_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S))

    def stop(self) -> threading.Thread | None:
        """Take no more verbs, and let the thread end after those that it has."""
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
            self._queue.put(None)
        return thread

    def close(self) -> None:
        """As `stop`, and wait for it."""
        thread = self.stop()
        if thread is not None:
            thread.join()

    def let_go(self) -> None:
        """Close the file; the next batch opens it again. Only while `at_work` is held."""
        if self._db is not None:
            db, self._db = self._db, None
            with suppress(sqlite3.Error):
                self._file.close(db, self._files)

    def _leave(self, verb: str, arguments: tuple[Any, ...], future: Future[Answer] | asyncio.Future[Answer]) -> None:
        hold_id = None
        if verb in _BY_ID:
            check_id(arguments[0])
            hold_id = arguments[0]
        with self._lock:
            self._must_be_open()
            if self._thread is None:
                thread = threading.Thread(target=self._run, args=(self._queue,), name="ledger", daemon=True)
                thread.start()
                self._thread = thread
            self._queue.put(QueuedVerb(verb, arguments, hold_id, future))

    def _must_be_open(self) -> None:
        if self._closed:
            raise LedgerUnavailable(detail=f"{self._file.path} was closed")

    def _run(self, queue: SimpleQueue[QueuedVerb | None]) -> None:
        more = True
        while more:
            batch: list[QueuedVerb] = []
            queued = queue.get()
            with suppress(Empty):
                while queued is not None:
                    batch.append(queued)
                    if len(batch) == MOST_VERBS:
                        break
                    queued = queue.get_nowait()
            more = queued is not None
            if batch:
                _deliver(batch, self._perform(batch))
        with self.at_work:
            self.let_go()

    def _perform(self, batch: Sequence[QueuedVerb]) -> Sequence[Answer]:
        ends = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                with self.at_work:
                    return self._transact(batch)
            except Exception as error:
                if not is_locked(error) or time.monotonic() >= ends:
                    return [(None, unavailable(self._file.path, error, committing=self._committing)) for _ in batch]
            time.sleep(random.uniform(_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S))

    def _transact(self, batch: Sequence[QueuedVerb]) -> Sequence[Answer]:
        self._committing = False
        reads = all(queued.name in _READS for queued in batch)
        db = self._db
        try:
            if db is None:
                db = self._db = self._file.open()
                self._files = self._file.in_use()
            else:
                self._file.must_be_there(self._files)
            db.execute("BEGIN" if reads else "BEGIN IMMEDIATE")
            transaction = Transaction(db, self._clock.now(), self._kept, self._known)
            verbs = SqliteVerbs(transaction, self._hold_ttl_s, self._retain)
            version = transaction.version
            if transaction.seen_at < self._seen_at:
                raise LedgerUnavailable(
                    detail=f"{self._file.path} is in an earlier state than it was: the last of what was counted is gone"
                )
            if not reads:
                verbs.forget()
            transaction.load([queued.hold_id for queued in batch if queued.hold_id is not None])
            answers = [_performed(queued, verbs) for queued in batch]
            if not reads:
                transaction.save()
            self._committing = True
            db.execute("COMMIT")
            if not reads:
                self._must_be_kept()
        except BaseException as error:
            if db is not None and (db.in_transaction or not is_locked(error)):
                self.let_go()  # which rolls back
            raise
        self._seen_at = transaction.seen_at
        if transaction.version != version:
            self._waiters.give()
        return answers

    def _must_be_kept(self) -> None:
        """Check that what was just committed went where others will find it.

        Raises:
            LedgerAmbiguous: If a file was taken away meanwhile.
        """
        try:
            self._file.must_be_there(self._files)
        except LedgerUnavailable as error:
            raise error.recast(LedgerAmbiguous) from None


def _performed(queued: QueuedVerb, verbs: SqliteVerbs) -> Answer:
    """The answer of one verb.

    Raises:
        sqlite3.Error: If the file fails, and with it all that the transaction does.
    """
    try:
        return getattr(verbs, queued.name)(*queued.arguments), None
    except (sqlite3.InterfaceError, sqlite3.ProgrammingError) as error:  # an argument of a type that cannot be stored
        return None, ValueError(f"{queued.name}{queued.arguments}: {error}")
    except sqlite3.Error:
        raise
    except Exception as error:
        return None, error


def _deliver(batch: Sequence[QueuedVerb], answers: Sequence[Answer]) -> None:
    """Hand each verb its answer, and wake each event loop once."""
    loops: defaultdict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Answer], Answer]]] = defaultdict(list)
    for queued, answer in zip(batch, answers, strict=True):
        if isinstance(queued.future, asyncio.Future):
            loops[queued.future.get_loop()].append((queued.future, answer))
        else:
            queued.future.set_result(answer)
    for loop, answered in loops.items():
        with suppress(RuntimeError):  # the loop was closed: nothing waits there any more
            loop.call_soon_threadsafe(_resolve, answered)


def _resolve(answered: Sequence[tuple[asyncio.Future[Answer], Answer]]) -> None:
    for future, answer in answered:
        if not future.done():
            future.set_result(answer)


def _result(answer: Answer) -> Any:
    """What the verb returned; what it raised is raised."""
    value, error = answer
    if error is not None:
        raise error
    return value


_writers: weakref.WeakSet[Writer] = weakref.WeakSet()
_paused: list[Writer] = []
_forking = threading.Lock()
"""Held while `_writers` changes, and during a fork."""


def _before_fork() -> None:
    _forking.acquire()
    _paused.extend(_writers)
    for writer in _paused:
        writer.at_work.acquire()
        writer.let_go()


def _after_fork_in_parent() -> None:
    for writer in _paused:
        writer.at_work.release()
    _paused.clear()
    _forking.release()


def _after_fork_in_child() -> None:
    for writer in _paused:
        writer.begin_anew()
    _paused.clear()
    _forking.release()


@atexit.register
def _close_all() -> None:
    for writer in list(_writers):
        writer.close()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
