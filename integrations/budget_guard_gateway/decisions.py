"""The records of decisions, kept for who asks for one by its id: beside the ledger, for as long as is set.

Calls do not wait for it: what was decided is written a moment later, by then mostly with what was booked for it. A
process that is killed loses the records of that moment, never money.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from pydantic_core import PydanticSerializationError, to_json

from budget_guard import Decision
from budget_guard.clock import Clock
from budget_guard.protocol import decision_record
from budget_guard_gateway.keys import Principal

_log = logging.getLogger("budget_guard")

_MOST_IN_MEMORY = 10_000
"""Records that are kept where the ledger is in memory, and that wait where theirs cannot be reached."""
_DAY_S = 86_400
WRITTEN_AFTER_S = 0.5
"""Seconds between two writings of what was noted."""
_LAST = "~"
"""What sorts after every id."""
_MOST_LOOKED_AT = 20_000
"""Records that are looked at for one part of a list."""
_AT_ONCE = 500
"""Records that Redis is asked for at once."""
_INDEXED = {"action": "json_extract(record, '$.decision')", "run": "json_extract(record, '$.run_id')"}
"""What records are found by, beside their ids."""
_OURS = ("tenant", "wait_replicas")
"""Options of a ledger's URL that are no options of a client's."""


class Row(NamedTuple):
    """One record, and whose it is."""

    id: str
    owner: str
    record: str
    """JSON."""


class Wanted(NamedTuple):
    """Which of the records a list is to have, the latest first."""

    most: int = 100
    before: str | None = None
    """Those of earlier ids alone, to go on with a list."""
    action: str | None = None
    """Those with this action alone: ``block``, for example."""
    kind: str | None = None
    """Those that concern one of this kind: ``run``, ``user``, ``key``, ``team``."""
    id: str | None = None
    """And this one of it."""

    def wants(self, record: Mapping[str, Any]) -> bool:
        """Whether *record* is one of them."""
        if self.action is not None and record["decision"] != self.action:
            return False
        if self.kind is None:
            return True
        name = record["run_id"] if self.kind == "run" else record["principals"].get(self.kind)
        return name is not None if self.id is None else name == self.id


class Listed(NamedTuple):
    """A part of a list of records."""

    records: list[dict[str, Any]]
    next: str | None
    """What to give as `Wanted.before` for the next part; None at the end."""


class Store(Protocol):
    """Where records are kept."""

    async def put(self, rows: Sequence[Row]) -> None:
        """Keep *rows*, in place of those of the same ids."""
        ...

    async def get(self, id: str) -> Row | None:
        """The record of that id; None where there is none, or it is too old."""
        ...

    async def latest(self, wanted: Wanted) -> Listed:
        """The records that are *wanted*. Of very many at most 20,000 are looked at for one part of the list."""
        ...

    async def close(self) -> None:
        """Let go of files and connections."""
        ...


class Decisions:
    """The decisions of one process on their way into the store.

    Args:
        store: Where they are kept.
        mode: The mode of the runs' budgets.
        counted: Takes notice of each decision as well.
    """

    def __init__(self, store: Store, mode: str, counted: Callable[[Decision], None]) -> None:
        self._store = store
        self._mode = mode
        self._counted = counted
        self._open: dict[str, tuple[Decision, Principal]] = {}  # not written with what was booked yet
        self._written: set[str] = set()  # those of them that were written before that

    def note(self, decision: Decision, who: Principal) -> None:
        """Note a decision: it is written with the next `flush`, and again once its call is booked."""
        self._counted(decision)
        if len(self._open) < _MOST_IN_MEMORY:
            self._open[decision.id] = (decision, who)

    async def write(self, decision: Decision, who: Principal) -> None:
        """Write a decision at once, for who asks another process for it next."""
        try:
            await self._store.put([self._row(decision, who)])
        except Exception as error:  # each store has errors of its own
            _log.error("budget_guard: the record of a decision waits: %s", type(error).__name__)
            self.note(decision, who)

    async def find(self, id: str, who: Principal) -> str | None:
        """The record of a decision of *who*, as JSON; None where there is none of that id, or it is another's."""
        noted = self._open.get(id)
        row = self._row(*noted) if noted is not None else await self._store.get(id)
        return row.record if row is not None and row.owner == owner_of(who) else None

    async def record(self, id: str) -> str | None:
        """The record of any principal's decision, as JSON; None where there is none of that id."""
        noted = self._open.get(id)
        row = self._row(*noted) if noted is not None else await self._store.get(id)
        return None if row is None else row.record

    async def latest(self, wanted: Wanted) -> Listed:
        """The records that are *wanted*, of all processes: those of this one as they are now."""
        await self.flush()
        return await self._store.latest(wanted)

    async def flush(self) -> None:
        """Write what was noted."""
        noted = [
            (decision, who)
            for decision, who in list(self._open.values())
            if _is_over(decision) or decision.id not in self._written
        ]
        if not noted:
            return
        over = {decision.id for decision, _ in noted if _is_over(decision)}  # before: a call may end meanwhile
        try:
            await self._store.put([self._row(decision, who) for decision, who in noted])
        except Exception as error:  # each store has errors of its own
            _log.error("budget_guard: %s records of decisions wait: %s", len(noted), type(error).__name__)
            return
        self._written.update(decision.id for decision, _ in noted)
        self._written -= over
        for decision_id in over:
            self._open.pop(decision_id, None)

    async def close(self) -> None:
        """Write what was noted, and let go of the store."""
        await self.flush()
        await self._store.close()

    def _row(self, decision: Decision, who: Principal) -> Row:
        record = decision_record(decision, mode=self._mode, feature=who.feature)
        try:
            text = to_json(record).decode()
        except PydanticSerializationError:  # half a surrogate pair in a name, say: the others must not wait for it
            text = json.dumps(record)
        return Row(decision.id, owner_of(who), text)


def _is_over(decision: Decision) -> bool:
    """Whether nothing more comes of it."""
    return decision.reservation is None or decision.reservation.settled


def owner_of(who: Principal) -> str:
    """Whose runs, and records, those of *who* are: its user's, where it has one."""
    return f"key:{who.name}" if who.user is None else f"user:{who.user}"


def open_store(ledger: str, days: float, clock: Clock) -> Store:
    """The store beside the ledger at that URL.

    Args:
        ledger: The URL.
        days: How long records are kept.
        clock: Where time comes from.
    """
    parts = urlsplit(ledger)
    if parts.scheme == "memory":
        return MemoryStore(days, clock)
    if parts.scheme == "sqlite":
        return SqliteStore(Path(f"{unquote(parts.path[1:])}.decisions"), days, clock)
    return RedisStore(ledger, days, clock)


class MemoryStore:
    """Records in this process, the latest 10,000."""

    def __init__(self, days: float, clock: Clock) -> None:
        self._days = days
        self._clock = clock
        self._rows: OrderedDict[str, Row] = OrderedDict()

    async def put(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._rows[row.id] = row
        while len(self._rows) > _MOST_IN_MEMORY:
            self._rows.popitem(last=False)

    async def get(self, id: str) -> Row | None:
        return None if id < _oldest(self._days, self._clock) else self._rows.get(id)

    async def latest(self, wanted: Wanted) -> Listed:
        oldest = _oldest(self._days, self._clock)
        rows = [row for row in self._rows.values() if oldest <= row.id < (wanted.before or _LAST)]
        found = [(row.id, row.record) for row in sorted(rows, reverse=True)]
        return await asyncio.to_thread(_picked, wanted, found)

    async def close(self) -> None:
        self._rows.clear()


class SqliteStore:
    """Records in a file of their own beside the ledger's, for all processes of this host."""

    def __init__(self, path: Path, days: float, clock: Clock) -> None:
        self._days = days
        self._clock = clock
        self._lock = threading.Lock()
        path.touch(0o600)
        self._connection = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS decisions (id TEXT PRIMARY KEY, owner TEXT, record TEXT) WITHOUT ROWID"
        )
        for name, expression in _INDEXED.items():
            self._connection.execute(f"CREATE INDEX IF NOT EXISTS decisions_{name} ON decisions ({expression}, id)")

    async def put(self, rows: Sequence[Row]) -> None:
        await asyncio.to_thread(self._put, rows)

    def _put(self, rows: Sequence[Row]) -> None:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany("INSERT OR REPLACE INTO decisions VALUES (?, ?, ?)", rows)
                self._connection.execute("DELETE FROM decisions WHERE id < ?", (_oldest(self._days, self._clock),))
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise

    async def get(self, id: str) -> Row | None:
        return await asyncio.to_thread(self._get, id)

    def _get(self, id: str) -> Row | None:
        if id < _oldest(self._days, self._clock):
            return None
        with self._lock:
            found = self._connection.execute("SELECT id, owner, record FROM decisions WHERE id = ?", (id,)).fetchone()
        return None if found is None else Row(*found)

    async def latest(self, wanted: Wanted) -> Listed:
        return await asyncio.to_thread(self._latest, wanted)

    def _latest(self, wanted: Wanted) -> Listed:
        given: dict[str, str | None] = {"action": wanted.action, "run": wanted.id if wanted.kind == "run" else None}
        named = {name: value for name, value in given.items() if value is not None}
        where = "".join(f" AND {_INDEXED[name]} = ?" for name in named)
        query = (
            f"SELECT id, record FROM decisions WHERE id >= ? AND id < ?{where} ORDER BY id DESC"  # no name is theirs
        )
        values = (_oldest(self._days, self._clock), wanted.before or _LAST, *named.values())
        with self._lock:
            return _picked(wanted, self._connection.execute(query, values))

    async def close(self) -> None:
        with self._lock:
            self._connection.close()


class RedisStore:
    """Records in the ledger's Redis, each with a time to live."""

    def __init__(self, url: str, days: float, clock: Clock) -> None:
        client: Any = import_module("redis.asyncio")  # whose options have no types
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        self._days = days
        self._clock = clock
        self._prefix = f"budget:{{{options.get('tenant', 'default')}}}:decision:"
        self._ids = f"{self._prefix}ids"
        """The ids of all records, in their order."""
        self._refused = f"{self._prefix}refused"
        """Those of what was refused, which is what is looked for."""
        rest = urlencode({name: value for name, value in options.items() if name not in _OURS})
        scheme = {"valkey": "redis", "valkeys": "rediss"}.get(parts.scheme, parts.scheme)
        self._redis: Any = client.from_url(
            urlunsplit((scheme, parts.netloc, parts.path, rest, "")), socket_timeout=2, socket_connect_timeout=2
        )
        self._seconds = max(1, round(days * _DAY_S))

    async def put(self, rows: Sequence[Row]) -> None:
        pipe: Any = self._redis.pipeline(transaction=False)
        for row in rows:
            pipe.set(self._prefix + row.id, json.dumps([row.owner, row.record]), ex=self._seconds)
        refused = [row.id for row in rows if json.loads(row.record)["decision"] == "block"]
        for name, ids in ((self._ids, [row.id for row in rows]), (self._refused, refused)):
            if ids:
                pipe.zadd(name, dict.fromkeys(ids, 0))
                pipe.zremrangebylex(name, "-", f"({_oldest(self._days, self._clock)}")
                pipe.expire(name, self._seconds)
        await pipe.execute()

    async def get(self, id: str) -> Row | None:
        found: bytes | None = await self._redis.get(self._prefix + id)
        return None if found is None else Row(id, *json.loads(found))

    async def latest(self, wanted: Wanted) -> Listed:
        name = self._refused if wanted.action == "block" else self._ids
        records: list[dict[str, Any]] = []
        looked_at, end = 0, f"({wanted.before or _LAST}"
        while looked_at < _MOST_LOOKED_AT:
            ids = [id.decode() for id in await self._redis.zrevrangebylex(name, end, "-", start=0, num=_AT_ONCE)]
            if not ids:
                return Listed(records, None)
            values = await self._redis.mget([self._prefix + id for id in ids])
            found = [(id, json.loads(value)[1]) for id, value in zip(ids, values, strict=True) if value is not None]
            part = _picked(wanted._replace(most=wanted.most - len(records)), found)
            records += part.records
            if part.next is not None or len(records) == wanted.most:
                return Listed(records, part.next or ids[-1])
            looked_at += len(ids)
            end = f"({ids[-1]}"
        return Listed(records, end[1:])

    async def close(self) -> None:
        await self._redis.aclose()


def _picked(wanted: Wanted, found: Iterable[tuple[str, str]]) -> Listed:
    """What is *wanted* of the records that were *found*, the latest first."""
    records: list[dict[str, Any]] = []
    last: str | None = None
    for looked_at, (id, text) in enumerate(found):
        if looked_at == _MOST_LOOKED_AT or len(records) == wanted.most:
            return Listed(records, last)
        last = id
        record = json.loads(text)
        if wanted.wants(record):
            records.append(record)
    return Listed(records, None)


def _oldest(days: float, clock: Clock) -> str:
    """What sorts before every id of that many days: they begin with their time."""
    return f"{max(0, clock.now_ms() - round(days * _DAY_S * 1_000)):012x}"


def is_decision_id(text: str) -> bool:
    """Whether *text* may be the id of a decision."""
    return 13 < len(text) <= 128 and text.isascii() and all(each.isalnum() or each in "-_." for each in text)
