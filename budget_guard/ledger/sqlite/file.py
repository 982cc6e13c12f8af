"""The file of an SQLite ledger: opened, checked, and brought up to date."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from budget_guard.errors import LedgerAmbiguous, LedgerUnavailable

APPLICATION_ID = 0x62756467
"""What marks a file as a ledger ("budg"), in the header that SQLite keeps for it."""
_OLDEST_SQLITE = (3, 37, 0)
"""The first that has STRICT tables."""
_WHAT_IT_IS = (
    "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)"
    " FROM pragma_application_id, pragma_user_version"
)
"""In one statement, for another process may be making it."""


def scripts() -> tuple[str, ...]:
    """What makes each version of the file out of the one before."""
    folder = files("budget_guard.ledger.sqlite") / "schema"
    return tuple((folder / f"{version}.sql").read_text("utf-8") for version in (1,))


class LedgerFile:
    """The file that a ledger lives in.

    Args:
        path: The file, made if it is not there. Its folder must be there.
        durable: Whether a commit is on the disk before it is acknowledged.
    """

    def __init__(self, path: str | os.PathLike[str], *, durable: bool) -> None:
        name = os.fspath(path)
        if not name or name.startswith((":memory:", "file:")):
            raise ValueError(f"path={name!r} must name a file: for counters in memory alone use MemoryLedger()")
        self.path = Path(name).absolute()
        self._durable = durable
        self._identity: tuple[int, int] | None = None

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
        if self._identity is not None:
            self.must_be_there()
        db = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            self._check(db)
            if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                raise LedgerUnavailable(detail=f"{self.path} is where SQLite cannot share memory: use a local disk")
            db.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
            self._bring_up_to_date(db)
            self.must_be_there()
        except BaseException:
            db.close()
            raise
        return db

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

    def must_be_there(self) -> None:
        """Check that the path still names the file that was opened.

        Raises:
            LedgerUnavailable: If it was deleted or replaced: other processes would count in another one.
        """
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise LedgerUnavailable(detail=f"{self.path} was there and is gone: {error.strerror}") from error
        identity = (status.st_dev, status.st_ino)
        if self._identity is None:
            self._identity = identity
        if identity != self._identity:
            raise LedgerUnavailable(detail=f"{self.path} was replaced by another file while it was in use: start anew")


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
