"""One transaction of the file: the rows that it has read, and what it will write."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import datetime

from budget_guard.clock import SystemClock
from budget_guard.ledger.checks import check_text
from budget_guard.ledger.counters import Counters
from budget_guard.ledger.history import Kept
from budget_guard.ledger.hold_id import made_ms
from budget_guard.ledger.sqlite.rows import (
    INSERT_HOLD,
    INSERT_SCOPE,
    SELECT_HOLDS,
    SELECT_SCOPES,
    UPDATE_HOLD,
    UPDATE_SCOPE,
    Group,
    Row,
    StoredCounters,
    StoredHold,
    keys_of,
    micros,
    moment,
)
from budget_guard.ledger.sqlite.usage import KnownRows, UsageRows
from budget_guard.units.amounts import MOST, NOTHING, Amounts, Limits
from budget_guard.units.scope import Scope

MOST_VERBS = 256
"""How many verbs may share one `Transaction`."""
LARGEST = 2**63 - 1
"""The largest integer that a row can keep."""
_TEXTS_CLEARED_AT_ONCE = 8
_FULL = LARGEST - MOST_VERBS * MOST
"""A sum up to here cannot pass `LARGEST` within one transaction."""


class _Time(SystemClock):
    """The ledger's own time, which stands still during a transaction."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now


class Transaction:
    """The rows that one transaction needs, each read once and written once.

    Args:
        db: The file, in a transaction.
        now: The time by the clock.
        kept: For how long the rows of the usage history are kept.
        known: The rows of it that this process has seen.
    """

    def __init__(self, db: sqlite3.Connection, now: datetime, kept: Kept, known: KnownRows) -> None:
        self._db = db
        self.usage = UsageRows(db, kept, known)
        """The usage history."""
        *saved, self.seen_at = db.execute(
            "SELECT version, settled, forgotten, forgotten_ms, seen_at FROM ledger"
        ).fetchone()
        """The ledger's time as the file has it, in microseconds since 1970."""
        self._saved = tuple(saved)
        self.version: int
        """Changes whenever room is given."""
        self.settled: int
        """How many holds were settled so far."""
        self.forgotten: int
        """How many of these are forgotten."""
        self.forgotten_ms: int
        """When the youngest forgotten id was made."""
        self.version, self.settled, self.forgotten, self.forgotten_ms = self._saved
        self.now: int = max(micros(now), self.seen_at)
        """The ledger's time, in microseconds since 1970."""
        self.time = _Time(moment(self.now))
        self.holds: dict[str, StoredHold] = {}
        """Those that were read with `load`, and new ones."""
        self.scopes: dict[Scope, StoredCounters] = {}
        """Those that were read so far."""
        self._by_key: dict[int, StoredCounters] = {}
        self._groups: dict[tuple[Scope, ...] | str, Group] = {}
        """By the scopes, and by their keys."""
        self._nearly_full = False
        """Whether a sum is so large that it might become too large for its row."""

    def load(self, hold_ids: Sequence[str]) -> None:
        """Read those of *hold_ids* that the file knows."""
        missing = tuple({hold_id for hold_id in hold_ids if hold_id not in self.holds})
        if missing:
            for hold in self._select(f"WHERE id IN (?{', ?' * (len(missing) - 1)})", missing):
                self.holds[hold.id] = hold

    def save(self) -> None:
        """Write what has changed."""
        changed: list[Row] = []
        for counters in self._by_key.values():
            row = counters.row()
            if row != counters.saved:
                counters.saved = row
                changed.append((*row, counters.key))
        if changed:
            self._db.executemany(UPDATE_SCOPE, changed)
        made: list[Row] = []
        became: list[Row] = []
        for hold in self.holds.values():
            row = hold.became()
            if hold.saved is None:
                made.append((*hold.made(), *row))
            elif row != hold.saved:
                became.append((*row, hold.id))
            hold.saved = row
        if made:
            self._db.executemany(INSERT_HOLD, made)
        if became:
            self._db.executemany(UPDATE_HOLD, became)
        self.usage.save()
        ledger = (self.version, self.settled, self.forgotten, self.forgotten_ms)
        if changed or made or became or ledger != self._saved:
            self._db.execute(
                "UPDATE ledger SET version = ?, settled = ?, forgotten = ?, forgotten_ms = ?, seen_at = ?",
                (*ledger, self.now),
            )
            self._saved, self.seen_at = ledger, self.now

    def counters(self, scope: Scope) -> StoredCounters | None:
        """Those of *scope*, in its present window; None if it was never opened."""
        counters = self.scopes.get(scope)
        if counters is None:
            for part in scope:
                check_text("scope", part)
            row = self._db.execute(f"{SELECT_SCOPES} WHERE kind = ? AND id = ?", tuple(scope)).fetchone()
            if row is not None:
                counters = self._keep(row)
        return counters

    def opened(self, scope: Scope) -> StoredCounters:
        """Those of *scope*, which is opened if it is new."""
        counters = self.counters(scope)
        if counters is None:
            row = (None, "", "none", None, None, 0, None, None, 0, *Limits(), *NOTHING * 3)
            key = self._db.execute(INSERT_SCOPE, (*scope, *row)).lastrowid
            counters = self._keep((key, *scope, *row))
        return counters

    def group(self, scopes: Sequence[Scope]) -> Group:
        """The scopes of a verb.

        Raises:
            KeyError: If one was never opened.
        """
        scopes = tuple(scopes)
        group = self._groups.get(scopes)
        if group is None:
            found: list[StoredCounters] = []
            for scope in scopes:
                counters = self.counters(scope)
                if counters is None:
                    raise KeyError(scope)
                found.append(counters)
            group = self._groups[scopes] = Group.of(found)
        return group

    def ids(self, kind: str, prefix: str) -> list[str]:
        """The ids of the scopes of a kind that begin with *prefix*."""
        check_text("kind", kind)
        check_text("prefix", prefix)
        rows = self._db.execute(
            "SELECT id FROM scope WHERE kind = ? AND substr(id, 1, ?) = ?", (kind, len(prefix), prefix)
        )
        return [id for (id,) in rows]

    def kept(self, name: str) -> str | None:
        """The text under *name*; None if there is none, or its time is up."""
        row = self._db.execute("SELECT text FROM kept WHERE name = ? AND expires_at > ?", (name, self.now)).fetchone()
        return None if row is None else str(row[0])

    def keep(self, name: str, text: str | None, until: int) -> None:
        """Keep *text* under *name* until then, or nothing; a few texts whose time is up go with it."""
        self._db.execute("DELETE FROM kept WHERE name = ?", (name,))
        if text is not None:
            self._db.execute("INSERT INTO kept VALUES (?, ?, ?)", (name, text, until))
        self._db.execute(
            "DELETE FROM kept WHERE name IN (SELECT name FROM kept WHERE expires_at <= ? LIMIT ?)",
            (self.now, _TEXTS_CLEARED_AT_ONCE),
        )

    def due(self, most: int) -> list[StoredHold]:
        """At most *most* holds whose time is up, and which are not suspended."""
        rows = self._db.execute(
            "SELECT id FROM hold"
            " WHERE state IN ('reserved', 'forwarded') AND expires_at <= ? ORDER BY expires_at LIMIT ?",
            (self.now, most),
        ).fetchall()
        self.load([hold_id for (hold_id,) in rows])
        return [
            hold
            for hold in (self.holds[hold_id] for (hold_id,) in rows)
            if hold.state in ("reserved", "forwarded") and hold.expires is not None and hold.expires <= self.now
        ]  # the others were settled or extended in this very transaction

    def suspended(self, most: int) -> list[StoredHold]:
        """At most *most* suspended holds, oldest first."""
        self.save()
        return list(self._select("WHERE state = 'suspended' ORDER BY suspended_at LIMIT ?", (most,)))

    def take_settled(self, last: int, before_ms: int) -> list[StoredHold]:
        """Take the settled holds up to number *last* out of the file, but for the first made later and all after it.

        Args:
            last: The last number to take.
            before_ms: What is taken was made before, in milliseconds since 1970.
        """
        taken: list[StoredHold] = []
        for hold in self._select("WHERE settled <= ? ORDER BY settled", (last,)):
            if hold.settled is None or made_ms(hold.id) >= before_ms:
                break
            self.forgotten = hold.settled
            taken.append(hold)
        if taken:
            self._db.execute("DELETE FROM hold WHERE settled <= ?", (self.forgotten,))
        return taken

    def everything(self) -> Iterator[StoredHold]:
        """Read every scope, then every hold, one by one."""
        for row in self._db.execute(SELECT_SCOPES):
            self._keep(row)
        return self._select("", ())

    def damage(self) -> list[str]:
        """What is wrong with the file."""
        return [str(row[0]) for row in self._db.execute("PRAGMA quick_check") if row[0] != "ok"]

    def must_fit(self, found: Sequence[Counters], amounts: Amounts) -> None:
        """Check that no sum passes what a row can keep, before the first one is changed."""
        if self._nearly_full:
            for counters in found:
                for committed, reserved, amount in zip(counters.committed, counters.reserved, amounts, strict=True):
                    if committed + reserved + amount > LARGEST:
                        raise OverflowError(f"{counters.scope} would pass {LARGEST}, the most that the file can keep")

    def _keep(self, row: Row) -> StoredCounters:
        counters = StoredCounters.of(row, self.time)
        counters.roll()  # once is enough: the time stands still
        self._nearly_full = self._nearly_full or counters.largest > _FULL
        self.scopes[counters.scope] = self._by_key[counters.key] = counters
        return counters

    def _select(self, where: str, parameters: Sequence[int | str]) -> Iterator[StoredHold]:
        for row in self._db.execute(f"{SELECT_HOLDS} {where}", parameters):
            yield StoredHold.of(row, self._group_of(keys_of(row)))

    def _group_of(self, keys: str) -> Group:
        group = self._groups.get(keys)
        if group is None:
            found = [self._by_key.get(key) or self._read(key) for key in json.loads(keys)]
            group = self._groups[keys] = self.group([each.scope for each in found])
        return group

    def _read(self, key: int) -> StoredCounters:
        return self._keep(self._db.execute(f"{SELECT_SCOPES} WHERE key = ?", (key,)).fetchone())
