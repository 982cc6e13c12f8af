"""The thread that performs the verbs of one ledger, as many in a transaction as are waiting.

Callers from any thread or event loop leave a request and wait for its answer, which comes after the commit. So one
write to the disk serves all who came while the last one was under way, and no event loop ever waits for the disk.

A fork finds no transaction under way and no file open: whoever forks waits for the batch at hand to end, and parent
and child each open the file again when they next need it. What the parent was asked for stays the parent's to do.
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
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Concatenate, ParamSpec, TypeVar

from budget_guard.clock import Clock
from budget_guard.errors import LedgerUnavailable
from budget_guard.ledger.checks import check_id
from budget_guard.ledger.sqlite.file import LedgerFile, is_locked, unavailable
from budget_guard.ledger.sqlite.request import Answer, Request, deliver, perform, result
from budget_guard.ledger.sqlite.transaction import MOST_VERBS, Transaction
from budget_guard.ledger.sqlite.verbs import SqliteVerbs
from budget_guard.ledger.waiters import Waiters

T = TypeVar("T")
P = ParamSpec("P")

_SHORTEST_PAUSE_S = 0.0001
_LONGEST_PAUSE_S = 0.002
"""Between two looks at a file that another process has locked. SQLite's own pauses grow to 100 ms and let some wait
for most of a second; with these the longest wait of 8 busy processes was a tenth of that."""

READS = frozenset({SqliteVerbs.version, SqliteVerbs.balances})
"""The verbs that change nothing, and take no lock if only such are waiting."""
BY_ID = frozenset(
    {
        SqliteVerbs.reserve,
        SqliteVerbs.forward,
        SqliteVerbs.extend,
        SqliteVerbs.commit,
        SqliteVerbs.release,
        SqliteVerbs.charge,
        SqliteVerbs.adjust,
    }
)
"""The verbs whose first argument is an id."""


class Writer:
    """Performs verbs on *file*, in the order in which they come.

    Args:
        file: Where the ledger lives.
        clock: Where the time comes from.
        room: Who waits for room in this process.
        hold_ttl_s: Seconds after which a hold expires if nothing else was asked for.
        retain: How many settled holds to remember.
        busy_timeout_s: How long to wait for a lock that another process holds: real seconds, whatever the clock.
    """

    def __init__(
        self, file: LedgerFile, clock: Clock, room: Waiters, hold_ttl_s: float, retain: int, busy_timeout_s: float
    ) -> None:
        self._file = file
        self._clock = clock
        self._room = room
        self._hold_ttl_s = hold_ttl_s
        self._retain = retain
        self._busy_timeout_s = busy_timeout_s
        self._closed = False
        self._committing = False
        self.begin_anew()
        with _forking:
            _writers.add(self)

    def begin_anew(self) -> None:
        """Share nothing with whoever was here before: the state after a fork, and at first."""
        self._lock = threading.Lock()
        self.at_work = threading.Lock()
        """Held while the file is in use."""
        self._requests: SimpleQueue[Request | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._db: sqlite3.Connection | None = None

    def call(self, verb: Callable[Concatenate[SqliteVerbs, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Perform *verb* and wait for it."""
        future: Future[Answer] = Future()
        self._leave(Request(verb, args, kwargs, future))
        value: T = result(future.result())
        return value

    async def acall(self, verb: Callable[Concatenate[SqliteVerbs, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Perform *verb* and await it. It is performed even if whoever awaits it is cancelled."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._leave(Request(verb, args, kwargs, future))
        value: T = result(await future)
        return value

    def apart(self, verb: Callable[[SqliteVerbs], T]) -> T:
        """Perform *verb*, which only reads, in the caller's own thread, for it may take long."""
        self._must_be_open()
        try:
            db = self._file.open()
            try:
                db.execute("BEGIN")
                return verb(SqliteVerbs(Transaction(db, self._clock.now()), self._hold_ttl_s, self._retain))
            finally:
                db.close()
        except sqlite3.Error as error:
            raise unavailable(self._file.path, error) from error

    def stop(self) -> threading.Thread | None:
        """Take no more requests, and let the thread end after those that it has."""
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
            self._requests.put(None)
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
                db.close()

    def _leave(self, request: Request) -> None:
        if request.verb in BY_ID:
            check_id(request.args[0])
        with self._lock:
            self._must_be_open()
            if self._thread is None:
                thread = threading.Thread(target=self._run, args=(self._requests,), name="ledger", daemon=True)
                thread.start()
                self._thread = thread
            self._requests.put(request)

    def _must_be_open(self) -> None:
        if self._closed:
            raise LedgerUnavailable(detail=f"{self._file.path} was closed")

    def _run(self, requests: SimpleQueue[Request | None]) -> None:
        more = True
        while more:
            batch: list[Request] = []
            request = requests.get()
            with suppress(Empty):
                while request is not None:
                    batch.append(request)
                    if len(batch) == MOST_VERBS:
                        break
                    request = requests.get_nowait()
            more = request is not None
            if batch:
                deliver(batch, self._perform(batch))
        with self.at_work:
            self.let_go()

    def _perform(self, batch: Sequence[Request]) -> Sequence[Answer]:
        ends = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                with self.at_work:
                    return self._transact(batch)
            except Exception as error:
                if not is_locked(error) or time.monotonic() >= ends:
                    return [(None, unavailable(self._file.path, error, committing=self._committing)) for _ in batch]
            time.sleep(random.uniform(_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S))

    def _transact(self, batch: Sequence[Request]) -> Sequence[Answer]:
        self._committing = False
        reads = all(request.verb in READS for request in batch)
        db = self._db
        try:
            if db is None:
                db = self._db = self._file.open()
            else:
                self._file.must_be_there()
            db.execute("BEGIN" if reads else "BEGIN IMMEDIATE")
            transaction = Transaction(db, self._clock.now())
            books = SqliteVerbs(transaction, self._hold_ttl_s, self._retain)
            version = transaction.version
            if not reads:
                books.forget()
            transaction.load([request.args[0] for request in batch if request.verb in BY_ID])
            answers = [perform(request, books) for request in batch]
            if not reads:
                transaction.save()
            self._committing = True
            db.execute("COMMIT")
        except BaseException as error:
            if db is not None and (db.in_transaction or not is_locked(error)):
                self.let_go()  # which rolls back
            raise
        if transaction.version != version:
            self._room.give()
        return answers


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
