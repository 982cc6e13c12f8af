"""The outbox: spend that could not be booked, kept until it is, on the disk where a path is given, else in memory.

The file holds one JSON record a line and is only ever appended to, until nothing is left to deliver: then it is
emptied. Each line is on the disk before the verb that it stands for is given up. A line that cannot be read is skipped:
a crash has torn it, and it was never acknowledged, or another version or program wrote it. Before the file is emptied
it is put aside, in ``<path>.unread``. Any number of processes may use one file: the one that gets the lock beside it
delivers for all.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import uuid
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeAlias, cast

from budget_guard.ledger.history import QUANTITIES, Labels, UsageLine, line_of, quantities
from budget_guard.ledger.hold_id import hold_id
from budget_guard.units.amounts import MOST, Amounts
from budget_guard.units.printable import printable
from budget_guard.units.scope import Scope

try:
    import fcntl
except ImportError:  # Windows: then a file is for one process alone
    fcntl = None  # type: ignore[assignment]  # Windows has none

_log = logging.getLogger("budget_guard")

Record: TypeAlias = "dict[str, Any]"

_MOST_TOLD = 1_000
"""Lines that could not be read and were told of that are remembered."""
_MOST_RELEASES = 1_000
"""Holds to be given back that are remembered. Those that are not are freed when their time is up."""


class Entry(NamedTuple):
    """A commit or a charge that the ledger has not acknowledged."""

    key: str
    verb: Literal["commit", "charge"]
    id: str
    """The hold's id, or the charge's."""
    scopes: tuple[Scope, ...]
    amounts: Amounts
    uncertain: bool
    owner: str
    """The owner of the run, should its scope have to be opened."""
    fresh: bool
    """Whether the ledger never acknowledged a hold of that id."""
    ambiguous: bool
    """Whether it may have been booked all the same."""
    lines: tuple[UsageLine, ...] = ()
    """What it was spent for, for the usage history."""


def new_entry(
    verb: Literal["commit", "charge"],
    id: str,
    scopes: Sequence[Scope],
    amounts: Amounts,
    *,
    uncertain: bool = False,
    owner: str = "",
    fresh: bool = False,
    ambiguous: bool = False,
    lines: Sequence[UsageLine] = (),
) -> Entry:
    """An entry with a key of its own."""
    return Entry(uuid.uuid4().hex, verb, id, tuple(scopes), amounts, uncertain, owner, fresh, ambiguous, tuple(lines))


class Outbox:
    """Keeps what could not be delivered to a ledger. Safe to use from any thread.

    Args:
        path: A file on a local disk, made where it is needed; its folder must be there. None keeps everything in
            memory, where a crash during an outage loses it.

    Raises:
        OSError: If the file is there and cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._store: _Memory | _File = _Memory() if path is None else _File(os.fspath(path))
        self._rejected = None if path is None else _File(f"{os.fspath(path)}.rejected")
        self._spare = _Memory()
        """For the moment where the disk fails as well."""
        self.releases: deque[tuple[str, tuple[Scope, ...]]] = deque(maxlen=_MOST_RELEASES)
        """Holds to give back. No money hangs on them: in time they are freed or suspended by themselves."""
        self.rejected: deque[Record] = deque(maxlen=1_000)
        """The latest entries that the ledger refused, each with its error; all of them are in ``<path>.rejected``."""
        self._told: set[bytes] = set()
        self.pending = bool(self.entries())
        """Whether there may be something to deliver."""

    @property
    def unread(self) -> int:
        """How many lines of the file could not be read, so that what they say was spent is not booked.

        They are in the file, and once all others are delivered in ``<path>.unread``, for an operator to look at.
        """
        if not isinstance(self._store, _File):
            return 0
        return len(self._store.read_lines().unread) + self._store.lines_aside()

    def add(self, entry: Entry) -> None:
        """Keep *entry*. It is on the disk when this returns."""
        record = {"add": _plain(entry)}
        try:
            self._store.append([record])
        except OSError as error:
            _log.error("budget_guard: the outbox cannot be written, so %s is in memory alone: %s", record, error)
            self._spare.append([record])
        self.pending = True

    def entries(self) -> list[Entry]:
        """What is to be delivered, oldest first."""
        return _open_entries([*self._spare.read(), *self._read()])

    def _read(self) -> list[Record]:
        if not isinstance(self._store, _File):
            return self._store.read()
        records, unread = self._store.read_lines()
        fresh = [line for line in unread if line not in self._told]
        if fresh:
            self._told.update(fresh[:_MOST_TOLD])
            _log.error(
                "budget_guard: the outbox %s has %s lines that cannot be read: what they say was spent is not booked. "
                "They are put aside in %s.unread once the others are delivered: look at them",
                *(printable(self._store.path), len(unread), printable(self._store.path)),
            )
        return records

    @contextmanager
    def claim(self) -> Generator[Claim | None, None, None]:
        """The right to deliver, for one at a time in all processes that use the file; None while another has it."""
        with contextmanager(self._store.claim)() as mine:
            if not mine:
                yield None
                return
            yield Claim(self)
            self._store.empty()
            self._spare.empty()
            self.pending = bool(self.releases) or bool(self.entries())

    def note(self, records: Sequence[Record]) -> None:
        """Write down what became of entries. What cannot be written is delivered once more, which changes nothing."""
        if self._spare.used:
            self._spare.append(records)
        try:
            self._store.append(records)
        except OSError as error:
            _log.error("budget_guard: the outbox cannot be written: %s", error)

    def reject(self, entry: Entry, error: Exception) -> None:
        """Put *entry* aside: the ledger refuses it, and an operator must look."""
        record = {"entry": _plain(entry), "error": str(error)}
        _log.error("budget_guard: the ledger refuses what was spent, and it is not booked: %s", record)
        self.rejected.append(record)
        if self._rejected is not None:
            try:
                self._rejected.append([record])
            except OSError as failed:
                _log.error("budget_guard: it is in this log alone: %s", failed)
        self.note([{"rejected": entry.key}])


class Claim:
    """The right to deliver what an outbox holds, and what is noted about each entry meanwhile."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.entries = outbox.entries()

    def tried(self, entries: Iterable[Entry]) -> None:
        """They are about to be sent: a crash from here on leaves it open whether they were."""
        self._outbox.note([{"tried": entry.key} for entry in entries])

    def unsent(self, entries: Iterable[Entry]) -> None:
        """They certainly were not booked."""
        self._outbox.note([{"unsent": entry.key} for entry in entries])

    def done(self, entries: Iterable[Entry]) -> None:
        """They are booked."""
        self._outbox.note([{"done": entry.key} for entry in entries])

    def instead(self, entry: Entry, made_ms: int) -> Entry:
        """The charge that is sent instead of an entry whose id is too old."""
        charge = entry._replace(verb="charge", id=hold_id(made_ms, f"outbox-{entry.key}"), uncertain=False)
        self._outbox.note([{"instead": entry.key, "id": charge.id}])
        return charge

    def rejected(self, entry: Entry, error: Exception) -> None:
        """The ledger refuses it."""
        self._outbox.reject(entry, error)


class _Lines(NamedTuple):
    records: list[Record]
    unread: list[bytes]
    """The lines that are no records."""


_MARKS = {"done": str, "rejected": str, "tried": str, "unsent": str}
_ENTRY = {
    **dict.fromkeys(("key", "id", "owner"), str),
    **dict.fromkeys(("uncertain", "fresh", "ambiguous"), bool),
}


def _is_record(record: object) -> bool:
    """Whether it is one of those that are written here."""
    if not isinstance(record, dict):
        return False
    fields = cast("dict[str, object]", record)
    if "add" in fields:
        return len(fields) == 1 and _is_entry(fields["add"])
    if "instead" in fields:
        return set(fields) == {"instead", "id"} and all(isinstance(value, str) for value in fields.values())
    return len(fields) == 1 and all(isinstance(value, _MARKS.get(name, ())) for name, value in fields.items())


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, dict):
        return False
    fields = cast("dict[str, Any]", entry)
    names = set(fields) | {"lines"}  # which entries of an older version have not
    if names != set(Entry._fields) or fields["verb"] not in ("commit", "charge"):
        return False
    scopes, amounts, lines = fields["scopes"], fields["amounts"], fields.get("lines", [])
    return (
        all(isinstance(fields[name], kind) for name, kind in _ENTRY.items())
        and isinstance(scopes, list)
        and bool(cast("list[object]", scopes))
        and all(_is_list_of(str, 2, scope) for scope in cast("list[object]", scopes))
        and _is_list_of(int, len(Amounts._fields), amounts)
        and all(0 <= amount <= MOST for amount in amounts)
        and isinstance(lines, list)
        and all(_is_line(line) for line in cast("list[object]", lines))
    )


def _is_line(line: object) -> bool:
    if not isinstance(line, list) or len(cast("list[object]", line)) != 2:
        return False
    labels, row = cast("list[object]", line)
    return (
        _is_list_of(str, len(Labels._fields), labels)
        and _is_list_of(int, len(QUANTITIES), row)
        and all(-MOST <= quantity <= MOST for quantity in cast("list[int]", row))
    )


def _is_list_of(kind: type, length: int, value: object) -> bool:
    if not isinstance(value, list):
        return False
    items = cast("list[object]", value)
    return len(items) == length and all(type(item) is kind for item in items)


def _open_entries(records: Iterable[Record]) -> list[Entry]:
    found: dict[str, Entry] = {}
    for record in records:
        if "add" in record:
            entry = _entry(record["add"])
            found[entry.key] = entry
            continue
        verb = next(name for name in record if name != "id")
        key: str = record[verb]
        known = found.get(key)
        if known is None:
            continue
        if verb == "instead":
            found[key] = known._replace(verb="charge", id=record["id"], uncertain=False)
        elif verb in ("tried", "unsent"):
            found[key] = known._replace(ambiguous=verb == "tried")
        else:
            del found[key]  # it is done, or rejected
    return list(found.values())


def _plain(entry: Entry) -> Record:
    return {
        **entry._asdict(),
        "scopes": [list(scope) for scope in entry.scopes],
        "amounts": list(entry.amounts),
        "lines": [[list(line.labels), list(quantities(line))] for line in entry.lines],
    }


def _entry(record: Record) -> Entry:
    fields: dict[str, Any] = {
        **record,
        "scopes": tuple(Scope(*scope) for scope in record["scopes"]),
        "amounts": Amounts(*record["amounts"]),
        "lines": tuple(line_of(Labels._make(labels), row) for labels, row in record.get("lines", ())),
    }
    return Entry(**fields)


class _Memory:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claim = threading.Lock()
        self._records: list[Record] = []

    @property
    def used(self) -> bool:
        """Whether there is anything in it."""
        return bool(self._records)

    def append(self, records: Sequence[Record]) -> None:
        with self._lock:
            self._records.extend(records)

    def read(self) -> list[Record]:
        with self._lock:
            return list(self._records)

    def empty(self) -> None:
        with self._lock:
            if not _open_entries(self._records):
                self._records.clear()

    def claim(self) -> Generator[bool, None, None]:
        mine = self._claim.acquire(blocking=False)
        try:
            yield mine
        finally:
            if mine:
                self._claim.release()


class _File:
    def __init__(self, path: str) -> None:
        self.path = path
        """The file."""
        self._lock = threading.Lock()
        self._claim = threading.Lock()

    def append(self, records: Sequence[Record]) -> None:
        if records:
            self.append_lines([json.dumps(record, separators=(",", ":")).encode() + b"\n" for record in records])

    def append_lines(self, each: Sequence[bytes]) -> None:
        """Write whole lines; they are on the disk when this returns."""
        lines = b"".join(each)
        with self._opened(os.O_RDWR | os.O_CREAT | os.O_APPEND) as file:
            size = os.fstat(file).st_size
            if size:
                os.lseek(file, size - 1, os.SEEK_SET)
                if os.read(file, 1) != b"\n":
                    lines = b"\n" + lines  # closes a line that a crash has torn
            written = 0
            while written < len(lines):
                written += os.write(file, lines[written:])
            os.fsync(file)
            if not size and os.name == "posix":
                _fsync_folder(self.path)

    def read_lines(self) -> _Lines:
        """What is in the file, with what cannot be read."""
        try:
            with self._opened(os.O_RDONLY, shared=True) as file:
                return self._parsed(file)
        except FileNotFoundError:
            return _Lines([], [])

    def lines_aside(self) -> int:
        """How many lines are put aside."""
        try:
            with open(f"{self.path}.unread", "rb") as aside:
                return sum(bool(line.strip()) for line in aside)
        except FileNotFoundError:
            return 0

    def empty(self) -> None:
        try:
            with self._opened(os.O_RDWR) as file:
                records, unread = self._parsed(file)
                if not _open_entries(records):
                    if unread and not self._put_aside(unread):
                        return
                    os.ftruncate(file, 0)
                    os.fsync(file)
        except FileNotFoundError:
            return

    def _put_aside(self, unread: Sequence[bytes]) -> bool:
        try:
            _File(f"{self.path}.unread").append_lines([line.rstrip(b"\n") + b"\n" for line in unread])
        except OSError as error:
            _log.error("budget_guard: the outbox cannot put aside what it cannot read: %s", error)
            return False
        return True

    def claim(self) -> Generator[bool, None, None]:
        mine, file = self._claim.acquire(blocking=False), None
        try:
            if mine and fcntl is not None:
                file = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    yield False
                    return
            yield mine
        finally:
            if file is not None:
                os.close(file)
            if mine:
                self._claim.release()

    @contextmanager
    def _opened(self, flags: int, *, shared: bool = False) -> Generator[int, None, None]:
        file = os.open(self.path, flags, 0o600)
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            with self._lock:
                yield file
        finally:
            os.close(file)

    def _parsed(self, file: int) -> _Lines:
        found = _Lines([], [])
        with os.fdopen(os.dup(file), "rb") as lines:
            for line in lines:
                try:
                    record: Any = json.loads(line)
                except (ValueError, RecursionError):
                    record = None
                if _is_record(record):
                    found.records.append(record)
                elif line.strip():
                    found.unread.append(line)
        return found


def _fsync_folder(path: str) -> None:
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
