"""The usage history of a ledger in memory.

Rows are immutable, and what a booking makes of them is worked out first and then put in place, so that a signal which
tears it loses nothing: `MemoryHistory.mend` finishes it.

A row is one whole number, in which each quantity has 128 bits of its own. To add to it takes one addition for each
scope of a call, in place of ten.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from budget_guard.ledger.counters import Counters
from budget_guard.ledger.history import (
    DAY,
    MOST_LABELS,
    MOST_ROWS,
    MS_PER_HOUR,
    OTHERS,
    Kept,
    Labels,
    Quantities,
    ScopeHistory,
    UsageQuery,
    UsageSum,
    as_row,
    clean,
    present,
    quantities,
    rolled_up,
    summed,
    total,
)
from budget_guard.ledger.hold import Hold, Noted
from budget_guard.units.amounts import Amounts

_BITS = 20
"""Bits of a key that are the number of the labels."""
_MASK = (1 << _BITS) - 1
_MOST_KNOWN = 100_000
"""Sets of labels that are told apart in one ledger."""


_Write: TypeAlias = tuple[dict[int, int], int, int]
"""The rows of a scope, the key of one, and what that is to be."""

_LANE = 128
"""Bits of one quantity of a row, of which a sum of any number of amounts takes far less."""
_HALF = 1 << _LANE - 1
_ten = struct.Struct("<" + "q8x" * 10).pack


def packed_row(row: Quantities) -> int:
    """The whole number that a row is."""
    return sum(quantity << _LANE * i for i, quantity in enumerate(row))


def unpacked_row(packed: int) -> Quantities:
    """The row in a whole number. A quantity may be below zero, where more was taken back than was booked there."""
    row: list[int] = []
    for _ in range(10):
        quantity = (packed + _HALF & (1 << _LANE) - 1) - _HALF
        row.append(quantity)
        packed = packed - quantity >> _LANE
    return as_row(row)


class MemoryHistory:
    """The histories of the scopes of one ledger. Not thread-safe.

    Args:
        kept: For how long rows are kept.
    """

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._labels: list[Labels] = [OTHERS]
        self._numbers: dict[Labels, int] = {OTHERS: 0}
        self._writing: tuple[Hold, Noted, Sequence[_Write]] | None = None
        self._begin_hour(0)

    def note(self, hold: Hold) -> None:
        """Bring the history up to date with what is booked for *hold*."""
        charged, lines = hold.charged, hold.lines
        if charged is None:
            return
        if hold.noted is not None or hold.uncertain or len(lines) != 1:
            self._note_lines(hold)
            return
        labels, told, more, cached, written, reasoning = lines[0]
        if told is not charged and told != charged:
            self._note_lines(hold)
            return
        # Every call comes this way, in each of its scopes, so there is no step more than it takes.
        cost, read, wrote, total, requests, tools = charged
        number = self._numbers.get(labels)
        if number is None:
            number = self._number(labels)
        hold_id = hold.id
        if not self._first_id <= hold_id < self._end_id:
            self._begin_hour(hold.hour)
        hour = self._hour
        own_key = hour << _BITS | number
        packed = _ten(cost, read, wrote, total, requests, tools, more, cached, written, reasoning)
        added = int.from_bytes(packed, "little")
        writes: list[_Write] = []
        for counters in hold.counters:
            history = counters.history
            if history is not None:
                key = own_key
                if counters.begins:
                    key = hold.hour_in(counters, hour) << _BITS | number
                rows = history.rows
                row = rows.get(key)
                if row is None:
                    key = self._key(history, key >> _BITS, number)
                    rows = history.rows
                    row = rows.get(key, 0)
                writes.append((rows, key, row + added))
        self._write(hold, (charged, False, lines), writes)

    def _note_lines(self, hold: Hold) -> None:
        noted, steps = hold.to_note()
        rows_now: dict[tuple[int, int], int] = {}
        places: dict[tuple[int, int], dict[int, int]] = {}
        for counters, hour, line, sign in steps:
            history = counters.history
            if history is not None:
                number = self._number(line.labels)
                key = hour << _BITS | number
                if (id(history), key) not in rows_now:  # a row of the same booking is there already
                    key = self._key(history, hour, number)
                place = id(history), key
                places[place] = history.rows
                before = rows_now[place] if place in rows_now else history.rows.get(key, 0)
                rows_now[place] = before + sign * packed_row(quantities(line))
        self._write(hold, noted, [(places[place], place[1], row) for place, row in rows_now.items()])

    def _begin_hour(self, hour: int) -> None:
        self._hour = hour
        self._first_id, self._end_id = (f"{at * MS_PER_HOUR:012x}" for at in (hour, hour + 1))

    def _write(self, hold: Hold, noted: Noted, writes: Sequence[_Write]) -> None:
        self._writing = hold, noted, writes
        for rows, key, row in writes:
            rows[key] = row
        hold.noted = noted
        self._writing = None

    def mend(self, holds: Iterable[Hold]) -> None:
        """Finish what was torn, and bring the history up to date with *holds*."""
        if self._writing is not None:
            self._write(*self._writing)
        for hold in holds:
            if not hold.is_noted():
                self.note(hold)

    def answer(self, query: UsageQuery, found: Iterable[Counters]) -> list[UsageSum]:
        """What the scopes *found* have for *query*."""
        sums: dict[tuple[str | int, ...], Quantities] = {}
        for counters in found:
            if counters.history is not None:
                summed(sums, query.by, counters.scope.id, self._between(counters.history, query.since, query.until))
        return present(sums)

    def committed(self, counters: Counters) -> Amounts | None:
        """What a scope has in its present window; None where that cannot be told."""
        if counters.history is None or not counters.begins_with_an_hour:
            return None
        return total(row for _, _, row in self._between(counters.history, counters.begins, None))

    def _between(
        self, history: ScopeHistory, since: int, until: int | None
    ) -> Iterable[tuple[int, Labels, Quantities]]:
        first, end = since << _BITS, None if until is None else until << _BITS
        return [
            (key >> _BITS, self._labels[key & _MASK], unpacked_row(row))
            for key, row in history.rows.items()
            if key >= first and (end is None or key < end)
        ]

    def _key(self, history: ScopeHistory, hour: int, number: int) -> int:
        """The key of the row for labels in an hour, which is another one where there are too many already."""
        key = hour << _BITS | number
        if key in history.rows:
            return key
        if hour > history.latest:
            if hour // DAY > history.latest // DAY:
                self._roll_up(history, hour)
            history.latest, history.many = hour, 0
        if (history.many >= MOST_LABELS and hour == history.latest) or len(history.rows) >= MOST_ROWS:
            return hour << _BITS
        history.many += hour == history.latest
        return key

    def _roll_up(self, history: ScopeHistory, now: int) -> None:
        from_hours, from_days = self._kept.borders(now, history.kind)
        hours = {key >> _BITS for key in history.rows}
        merged = {hour // DAY for hour in hours if from_days <= hour < from_hours and hour % DAY}
        old = {hour for hour in hours if hour < from_days or (hour < from_hours and hour // DAY in merged)}
        found = {key: row for key, row in history.rows.items() if key >> _BITS in old}
        rows = {(key >> _BITS, self._labels[key & _MASK]): unpacked_row(row) for key, row in found.items()}
        rolled = rolled_up(rows, now, self._kept, history.kind)
        if rolled.gone or rolled.rows:
            left = {key: row for key, row in history.rows.items() if key not in found}
            for key in rolled.gone:
                rows.pop(key)
            rows.update(rolled.rows)
            for (hour, labels), row in rows.items():
                left[hour << _BITS | self._number(labels)] = packed_row(row)
            history.rows = left

    def _number(self, labels: Labels) -> int:
        number = self._numbers.get(labels)
        if number is None:
            labels = clean(labels)
            number = self._numbers.get(labels)
        if number is None:
            number = len(self._labels)
            if number >= _MOST_KNOWN:
                return 0
            self._labels.append(labels)
            self._numbers[labels] = number
        return number
