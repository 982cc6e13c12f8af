"""The rows of the usage history in the file, and the statements that write, read and sum them up."""

from __future__ import annotations

import sqlite3
from typing import Any

from budget_guard.ledger.history import (
    DAY,
    MOST_LABELS,
    OTHERS,
    QUANTITIES,
    ZERO,
    By,
    Kept,
    Labels,
    Quantities,
    UsageQuery,
    UsageSum,
    plus,
    present,
    quantities,
    rolled_up,
)
from budget_guard.ledger.hold import Hold
from budget_guard.ledger.sqlite.rows import StoredCounters
from budget_guard.units.amounts import Amounts

_KEY = ("scope", "hour", *Labels._fields)
_SUMS = ", ".join(f"sum({name})" for name in QUANTITIES)
_ADD = (
    f"INSERT INTO usage VALUES (?{', ?' * (len(_KEY) + len(QUANTITIES) - 1)}) ON CONFLICT DO UPDATE SET "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in QUANTITIES)
)
_DELETE = f"DELETE FROM usage WHERE {' AND '.join(f'{name} = ?' for name in _KEY)}"
_OLD = (
    f"SELECT * FROM usage WHERE scope = ? AND hour < ? AND (hour < ? OR hour / {DAY} IN (SELECT hour / {DAY} FROM usage"
    f" WHERE scope = ? AND hour >= ? AND hour < ? AND hour % {DAY}))"
)
"""The rows that are older than what is kept, or of a day that has rows of single hours yet: not those of other days."""
_NAMES: dict[By, str] = {"day": f"hour / {DAY} * {DAY}"}
_MOST_KNOWN = 10_000


class KnownRows:
    """The labels that a process has seen in the rows of some scopes and hours: these need not be looked for again."""

    def __init__(self) -> None:
        self._of: dict[tuple[int, int], set[Labels]] = {}

    def of(self, scope: int, hour: int) -> set[Labels] | None:
        """Those of one scope and one hour; None where nobody has looked."""
        return self._of.get((scope, hour))

    def note(self, scope: int, hour: int, labels: set[Labels]) -> None:
        """Note what is there."""
        if len(self._of) >= _MOST_KNOWN:
            self._of.clear()
        self._of[scope, hour] = labels


class UsageRows:
    """The usage history as one transaction changes it: what is booked is added up, and written at the end.

    Args:
        db: The file, in a transaction.
        kept: For how long rows are kept.
        known: What this process has seen.
    """

    def __init__(self, db: sqlite3.Connection, kept: Kept, known: KnownRows) -> None:
        self._db = db
        self._kept = kept
        self._known = known
        self._booked: dict[tuple[StoredCounters, int], dict[Labels, Quantities]] = {}

    def note(self, hold: Hold) -> None:
        """Bring the history up to date with what is booked for *hold*."""
        hold.noted, steps = hold.to_note()
        for counters, hour, line, sign in steps:
            assert isinstance(counters, StoredCounters)
            rows = self._booked.setdefault((counters, hour), {})
            rows[line.labels] = plus(rows.get(line.labels, ZERO), quantities(line), sign)

    def save(self) -> None:
        """Write what is booked."""
        rows: list[tuple[Any, ...]] = []
        for (counters, hour), booked in self._booked.items():
            known = self._known.of(counters.key, hour)
            if known is None or not known.issuperset(booked):
                known = self._look(counters, hour, known is None)
            for labels, row in booked.items():
                if labels not in known:
                    labels = labels if len(known) < MOST_LABELS else OTHERS
                    known.add(labels)
                rows.append((counters.key, hour, *labels, *row))
        self._booked = {}
        if rows:
            self._db.executemany(_ADD, rows)

    def answer(self, query: UsageQuery) -> list[UsageSum]:
        """What the file has for *query*."""
        names = [_NAMES.get(name, f"scope.{name}" if name == "id" else name) for name in query.by]
        where, parameters = "kind = ? AND hour >= ?", [query.kind, query.since]
        if query.id is not None:
            where, parameters = f"{where} AND id = ?", [*parameters, query.id]
        if query.until is not None:
            where, parameters = f"{where} AND hour < ?", [*parameters, query.until]
        rows = self._db.execute(
            f"SELECT {', '.join([*names, _SUMS])} FROM scope JOIN usage ON usage.scope = scope.key WHERE {where}"
            f"{' GROUP BY ' if names else ''}{', '.join(map(str, range(1, len(names) + 1)))}",
            parameters,
        )
        many = len(names)
        return present({row[:many]: plus(ZERO, [n or 0 for n in row[many:]]) for row in rows})

    def committed(self, counters: StoredCounters) -> Amounts | None:
        """What a scope has in its present window; None where that cannot be told."""
        if not counters.begins_with_an_hour:
            return None
        sums = self._db.execute(
            f"SELECT {_SUMS} FROM usage WHERE scope = ? AND hour >= ?", (counters.key, counters.begins)
        ).fetchone()
        return Amounts._make(n or 0 for n in sums[: len(Amounts._fields)])

    def _look(self, counters: StoredCounters, hour: int, first: bool) -> set[Labels]:
        """The labels that a scope has in an hour. With the first booking of a day its old rows are summed up."""
        if first:
            (latest,) = self._db.execute("SELECT max(hour) FROM usage WHERE scope = ?", (counters.key,)).fetchone()
            if latest is not None and hour // DAY > latest // DAY:
                self._roll_up(counters, hour)
        found = self._db.execute(
            f"SELECT {', '.join(Labels._fields)} FROM usage WHERE scope = ? AND hour = ?", (counters.key, hour)
        )
        labels = set(map(Labels._make, found))
        self._known.note(counters.key, hour, labels)
        return labels

    def _roll_up(self, counters: StoredCounters, now: int) -> None:
        from_hours, from_days = self._kept.borders(now, counters.scope.kind)
        found = self._db.execute(_OLD, (counters.key, from_hours, from_days, counters.key, from_days, from_hours))
        rows = {(row[1], Labels._make(row[2 : len(_KEY)])): row[len(_KEY) :] for row in found}
        gone, changed = rolled_up(rows, now, self._kept, counters.scope.kind)
        self._db.executemany(_DELETE, [(counters.key, hour, *labels) for hour, labels in [*gone, *changed]])
        self._db.executemany(_ADD, [(counters.key, hour, *labels, *row) for (hour, labels), row in changed.items()])
