"""The file of a ledger: opened, checked, and brought up to date."""

from __future__ import annotations

import ctypes
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple, TypeAlias

from budget_guard.errors import LedgerAmbiguous, LedgerUnavailable

Identity: TypeAlias = "tuple[int, int]"
"""Which file it is, whatever it is called: its device and its number there."""

APPLICATION_ID = 0x62756467
"""What marks a file as a ledger ("budg"), in the header that SQLite keeps for it."""
_OLDEST_SQLITE = (3, 37, 0)
"""The first that has STRICT tables."""
_WHAT_IT_IS = (
    "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)"
    " FROM pragma_application_id, pragma_user_version"
)
"""In one statement, for another process may be making it."""
_LONGEST_WAIT_S = 1.0
_PAUSE_S = 0.001
"""How long to wait for others who read or write what is to be written out, and between two looks."""


class FilesInUse(NamedTuple):
    """The files that a connection has open: SQLite keeps what is not yet in the first one in the other two."""

    main: Identity
    wal: Identity | None
    shm: Identity | None


def scripts() -> tuple[str, ...]:
    """What makes each version of the file out of the one before."""
    folder = files("budget_guard.ledger.sqlite") / "schema"
    return tuple((folder / f"{version}.sql").read_text("utf-8") for version in (1, 2, 3, 4))


class LedgerFile:
    """Where the ledger lives.

    Args:
        path: The file, made if it is not there. Its folder must be there.
        durable: Whether a commit is on the disk before it is acknowledged.
        mode: The permissions of the file if it is made.
    """

    def __init__(self, path: str | os.PathLike[str], *, durable: bool, mode: int) -> None:
        name = os.fspath(path)
        if not name or name.startswith((":memory:", "file:")):
            raise ValueError(f"path={name!r} must name a file: for counters in memory alone use MemoryLedger()")
        self.path = Path(name).absolute()
        self._wal, self._shm = (Path(f"{self.path}{suffix}") for suffix in ("-wal", "-shm"))
        self._durable = durable
        self._mode = mode
        self._identity: Identity | None = None

    def open(self) -> sqlite3.Connection:
        """A new connection, of the present version.

        Raises:
            LedgerUnavailable: If the file is not a ledger, or a newer version wrote it. It is left as it is.
            sqlite3.Error: If SQLite cannot read it, or another process has it locked.
        """
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise LedgerUnavailable(
                detail=f"SQLite {sqlite3.sqlite_version} is too old: use a Python with 3.37 or later"
            )
        if self._identity is None:
            self._make()
        self._must_be_the_same()
        self._must_be_whole()
        db = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            self._check(db)
            if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                raise LedgerUnavailable(detail=f"{self.path} is where SQLite cannot share memory: use a local disk")
            db.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
            self._bring_up_to_date(db)
            self._must_be_the_same()
        except BaseException:
            db.close()
            raise
        return db

    def _make(self) -> None:
        """Make the file if it is not there, with its permissions: SQLite gives the other two the same ones."""
        with suppress(FileExistsError, FileNotFoundError):  # SQLite says what is wrong with the folder
            file = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, self._mode)
            os.close(file)
            if os.name == "posix":
                os.chmod(self.path, self._mode)  # whatever the umask is: it was asked for

    def _must_be_whole(self) -> None:
        """Check that nobody took ``-wal`` or ``-shm`` away: what was counted last would be missing.

        SQLite makes them in the order ``-wal``, ``-shm``, and removes them in the other one, with the last connection.

        Raises:
            LedgerUnavailable: If what is left says that something is missing.
            sqlite3.OperationalError: If somebody has the file open, and they are not there: for a moment that may be.
        """
        if not self._status().st_size:
            return
        wal, shm = self._beside()
        if wal is not None and shm is not None:
            return
        # Nobody else may have it open then. SQLite tells: a connection that wants it for itself gets it, or does not.
        alone = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        try:
            if shm is not None and _identity(self._wal) is None and _identity(self._shm) == shm:
                raise sqlite3.OperationalError(
                    f"{self._wal.name} is gone, and the last of what was counted with it: put it back, or where it is "
                    f"lost, delete {self._shm.name} to go on without"
                )
            alone.execute("PRAGMA locking_mode = EXCLUSIVE")
            alone.execute(_WHAT_IT_IS).fetchone()
        except sqlite3.OperationalError as error:
            if not is_locked(error):
                raise
            gone = ", ".join(path.name for path in (self._wal, self._shm) if _identity(path) is None)
            if gone:
                raise sqlite3.OperationalError(
                    f"locked: {gone} is gone while another connection has it open; stop all who use the ledger"
                ) from error
        except sqlite3.DatabaseError:
            pass  # it is no database: the check that follows says so
        finally:
            alone.close()

    def _check(self, db: sqlite3.Connection) -> int:
        """The version of the file; 0 if it is new."""
        application_id, version, tables = db.execute(_WHAT_IT_IS).fetchone()
        known = len(scripts())
        if application_id != APPLICATION_ID:
            if application_id or version or tables:
                raise LedgerUnavailable(detail=f"{self.path} is another program's database: give a file of its own")
        elif version > known:
            raise LedgerUnavailable(
                detail=f"{self.path} has version {version} and this budget_guard knows {known}: upgrade budget-guard-py"
            )
        return int(version)

    def _bring_up_to_date(self, db: sqlite3.Connection) -> None:
        steps = scripts()
        if self._check(db) == len(steps):
            return
        db.execute("BEGIN EXCLUSIVE")
        try:
            for script in steps[self._check(db) :]:  # another process may have done it meanwhile
                for statement in _statements(script):
                    db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {len(steps)}")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def in_use(self) -> FilesInUse:
        """The files that a connection which was just opened has open."""
        return FilesInUse(self._must_be_the_same(), *self._beside())

    def must_be_there(self, opened: FilesInUse) -> None:
        """Check that the names still are those of the files that were *opened*.

        Raises:
            LedgerUnavailable: If somebody deleted or replaced one: other processes would count in another one.
        """
        self._must_be_the_same()
        for path, before in ((self._wal, opened.wal), (self._shm, opened.shm)):
            if _identity(path) != before:
                raise LedgerUnavailable(detail=self._taken(path))

    def close(self, db: sqlite3.Connection, opened: FilesInUse) -> None:
        """Close *db*, without what it has not committed.

        Args:
            db: The connection.
            opened: The files that it has open, as `in_use` told.

        Raises:
            sqlite3.Error: If what was counted cannot be written to the file. The connection is closed all the same.
        """
        if self._replaced(opened):
            _abandon(db)
            return
        try:
            if db.in_transaction:
                db.execute("ROLLBACK")
            self._write_out(db, opened)
        finally:
            db.close()

    def _write_out(self, db: sqlite3.Connection, opened: FilesInUse) -> None:
        """Write what is in ``-wal`` to the file itself.

        SQLite does so for the last connection that is closed, but two that are closed in the same moment each take the
        other for the last one. That loses nothing while ``-wal`` is there; if it was taken away, it would lose all.
        """
        ends = time.monotonic() + _LONGEST_WAIT_S
        while True:
            busy, frames, written = db.execute("PRAGMA wal_checkpoint").fetchone()
            done = not busy and frames == written
            if done or self._beside() == opened[1:] or time.monotonic() >= ends:
                return
            time.sleep(_PAUSE_S)

    def _replaced(self, opened: FilesInUse) -> bool:
        """Whether others may already count in files that took the place of those which were *opened*."""
        return any(now not in (None, before) for now, before in zip(self._beside(), opened[1:], strict=True))

    def _beside(self) -> tuple[Identity | None, Identity | None]:
        """The files that ``-wal`` and ``-shm`` are the names of now."""
        return _identity(self._wal), _identity(self._shm)

    def _taken(self, path: Path) -> str:
        how = "was there and is gone" if _identity(path) is None else "was replaced by another file while it was in use"
        return f"{path} {how}, with the last of what was counted in it: stop all who use the ledger, and start anew"

    def _status(self) -> os.stat_result:
        try:
            return os.stat(self.path)
        except OSError as error:
            raise LedgerUnavailable(detail=f"{self.path} was there and is gone: {error.strerror}") from error

    def _must_be_the_same(self) -> Identity:
        status = self._status()
        identity = (status.st_dev, status.st_ino)
        if self._identity is None:
            self._identity = identity
        if identity != self._identity:
            raise LedgerUnavailable(detail=f"{self.path} was replaced by another file while it was in use: start anew")
        return identity


def _abandon(db: sqlite3.Connection) -> None:
    """Let *db* go without a last word: others use files of the same names, which it must not write to or remove."""
    if sys.version_info >= (3, 12):
        db.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE)
        db.close()
    else:  # it is never closed
        with suppress(AttributeError):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(db))


def _identity(path: Path) -> Identity | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


def is_locked(error: BaseException) -> bool:
    """Whether another process or connection is in the way, for a moment."""
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)  # Python 3.10 knows no error codes


def unavailable(path: Path, error: Exception, *, committing: bool = False) -> LedgerUnavailable:
    """*error* in the words of the contract."""
    if isinstance(error, LedgerUnavailable):
        return error.recast(type(error))
    # at the commit the last page may be there all the same, and a recovery would find it
    cls = LedgerAmbiguous if committing and "I/O" in str(error) else LedgerUnavailable
    named = cls(detail=f"{path}: {error}")
    named.__cause__ = error
    return named


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
