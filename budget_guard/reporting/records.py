"""Run records: one line for each run that ended, kept apart from the ledger, for advice and forecasts."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from budget_guard.reporting.spend import Outcome
from budget_guard.units.money import to_usd

VERSION = 1
"""The version of a log's file. A newer one is refused, and left as it is."""

_Count = Annotated[int, Field(ge=0, strict=True)]
_SQLITE = (".db", ".sqlite", ".sqlite3")
_APPLICATION_ID = 0x62756472
"""What marks an SQLite file as a run log ("budr"), in the header that SQLite keeps for it."""


class RunRecord(BaseModel):
    """What one run took, and how it ended. Money is in nano-dollars."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    id: str
    """The run's id."""
    task: str | None = None
    """The kind of work, as `Budget.task` names it."""
    started_at: AwareDatetime
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """From its first call to its end."""
    outcome: Outcome
    cost: _Count
    """Nano-dollars committed."""
    uncertain: _Count = 0
    """Nano-dollars of them that are estimates."""
    input_tokens: _Count = 0
    """Cached ones included."""
    output_tokens: _Count = 0
    """Reasoning included."""
    calls: _Count = 0
    """Model calls."""
    tool_calls: _Count = 0
    limit: _Count | None = None
    """Nano-dollars that it might have spent; None without a dollar limit."""
    terminated_by: str | None = None
    """What stopped it, as `BudgetReport.terminated_by`."""
    by_model: Mapping[str, _Count] = {}
    """Nano-dollars by model."""
    by_tool: Mapping[str, _Count] = {}
    """Nano-dollars by tool."""
    price_version: str | None = None
    """The version of the price table that it was priced with."""

    @property
    def cost_usd(self) -> Decimal:
        """Dollars committed."""
        return to_usd(self.cost)

    @property
    def limit_usd(self) -> Decimal | None:
        """Dollars that it might have spent."""
        return None if self.limit is None else to_usd(self.limit)


class RunStore(Protocol):
    """Anything that keeps run records: a `RunLog`, or a table of your own."""

    def add(self, record: RunRecord) -> None:
        """Keep *record*. Called once for each run that ends, from whichever thread ends it."""
        ...


class RunLog:
    """Run records in a file that several processes may write at once.

    A path that ends with ``.db``, ``.sqlite`` or ``.sqlite3`` is an SQLite database, any other one a text file with
    one JSON object a line.

    ::

        log = RunLog("runs.db")
        with Budget("$2.00", task="summarise").session(run_log=log): ...
        print(advise(log))

    Args:
        path: The file, made with the first record, and readable by its owner alone. Its folder must be there.

    Raises:
        ValueError: If it is no file, or was written by a newer version or another program. It is left as it is then.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        name = os.fspath(path)
        self.path = Path(name).absolute()
        if not name or self.path.is_dir() or not self.path.parent.is_dir():
            raise ValueError(f"path={name!r} must name a file in a folder that is there, such as 'runs.db'")
        self._file = _SqliteFile(self.path) if self.path.suffix in _SQLITE else _JsonLines(self.path)
        self._file.check()
        self.skipped = 0
        """Records that the last reading left out, because they cannot be true or cannot be read."""

    def add(self, record: RunRecord) -> None:
        """Keep *record*.

        Raises:
            OSError, sqlite3.Error: If the file cannot be written.
        """
        self._file.add(record)

    def records(self, *, task: str | None = None, since: datetime | None = None) -> Iterator[RunRecord]:
        """The records in the order in which they were added.

        Args:
            task: The kind of work alone.
            since: Runs that started then or later alone; with a time zone.

        Raises:
            ValueError: If *since* has no time zone, or a newer version wrote the file.
        """
        if since is not None and since.tzinfo is None:
            raise ValueError(f"since={since!r} has no time zone: write datetime(..., tzinfo=timezone.utc)")
        self.skipped = 0
        for text in self._file.lines():
            try:
                record = RunRecord.model_validate_json(text)
            except ValidationError:
                self.skipped += 1
                continue
            if (task is None or record.task == task) and (since is None or record.started_at >= since):
                yield record

    def __iter__(self) -> Iterator[RunRecord]:
        return self.records()

    def __repr__(self) -> str:
        return f"RunLog({str(self.path)!r})"


class _JsonLines:
    """A text file, one JSON object a line. A line is written in one go, so lines of several processes do not mix."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def check(self) -> None:
        for number, text in enumerate(self.lines()):  # all of them: each says which version wrote it
            if number == 0 and _version_of(text) is None:
                raise ValueError(f"{self._path} is no run log: its first line is no record; give a file of its own")

    def add(self, record: RunRecord) -> None:
        line = json.dumps({"version": VERSION, **record.model_dump(mode="json")}, separators=(",", ":")).encode()
        file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(file).st_size
            torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"  # somebody was killed while writing
            os.write(file, (b"\n" if torn else b"") + line + b"\n")
        finally:
            os.close(file)

    def lines(self) -> Iterator[str]:
        try:
            file = self._path.open(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        with file:
            for line in file:
                if not line.strip():
                    continue
                version = _version_of(line)
                if version is not None and version > VERSION:
                    raise _newer(self._path, version)
                yield line


def _version_of(line: str) -> int | None:
    """The version that wrote *line*; None where it is no record."""
    try:
        version: Any = json.loads(line)["version"]
    except (ValueError, TypeError, LookupError):
        return None
    return version if type(version) is int else None


class _SqliteFile:
    """An SQLite database with one table. A connection serves one record: a run ends seldom."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def check(self) -> None:
        if self._path.exists():
            try:
                with closing(self._open()) as db:
                    self._must_be_ours(db)
            except sqlite3.DatabaseError as error:
                raise ValueError(f"{self._path} cannot be read as a run log: {error}") from error

    def add(self, record: RunRecord) -> None:
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        with closing(self._open()) as db, db:
            db.execute("BEGIN IMMEDIATE")
            if not self._must_be_ours(db):
                db.execute("CREATE TABLE run (number INTEGER PRIMARY KEY, record TEXT NOT NULL) STRICT")
                db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {VERSION}")
            db.execute("INSERT INTO run (record) VALUES (?)", (record.model_dump_json(),))

    def lines(self) -> Iterator[str]:
        if not self._path.exists():
            return
        with closing(self._open()) as db:
            if self._must_be_ours(db):
                for (text,) in db.execute("SELECT record FROM run ORDER BY number"):
                    yield text

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=10, isolation_level=None)

    def _must_be_ours(self, db: sqlite3.Connection) -> bool:
        """Whether the table is there already.

        Raises:
            ValueError: If a newer version wrote the file, or another program.
        """
        (program,), (version,) = (
            db.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
        )
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if program == _APPLICATION_ID and version > VERSION:
            raise _newer(self._path, version)
        if program != _APPLICATION_ID and (program or version or tables):
            raise ValueError(f"{self._path} is another program's database: give a file of its own")
        return bool(program == _APPLICATION_ID)


def _newer(path: Path, version: int) -> ValueError:
    return ValueError(
        f"{path} was written by a newer budget_guard (version {version} of the file, this one knows {VERSION}): "
        "pip install --upgrade budget-guard-py"
    )
