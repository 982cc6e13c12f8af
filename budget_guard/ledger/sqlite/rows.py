"""The rows of the file, and the counters and holds that they are while a transaction lasts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple, TypeAlias

from budget_guard.clock import Clock
from budget_guard.ledger.base import Revoked
from budget_guard.ledger.counters import Counters
from budget_guard.ledger.history import NO_LABELS, Labels, UsageLine, line_of, quantities
from budget_guard.ledger.hold import Hold, Origin, State
from budget_guard.units.amounts import Amounts, Limits, unchecked
from budget_guard.units.scope import Scope, window_end

Row: TypeAlias = tuple[Any, ...]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)


def micros(at: datetime) -> int:
    """*at* as the file keeps it."""
    return (at - _EPOCH) // _MICROSECOND


def moment(at: int) -> datetime:
    """What the file keeps as *at*."""
    return _EPOCH + at * _MICROSECOND


def _each(prefix: str) -> list[str]:
    return [f"{prefix}_{field}" for field in Amounts._fields]


def _or_none(at: datetime | None) -> int | None:
    return None if at is None else micros(at)


_COUNTS = (
    "owner",
    "note",
    '"window"',
    "began_at",
    "counted_from",
    "period",
    "revoked_for",
    "revoked_at",
    "open_holds",
    *_each("limit"),
    *_each("committed"),
    *_each("reserved"),
    *_each("archived"),
)
_MADE = ("id", "verb", "scopes", "periods", "reason", "suspend", *_each("held"))
_BECAME = ("state", "uncertain", "expires_at", "suspended_at", "settled", *_each("charged"), "lines")

SELECT_SCOPES = f"SELECT key, kind, id, {', '.join(_COUNTS)} FROM scope"
INSERT_SCOPE = f"INSERT INTO scope (kind, id, {', '.join(_COUNTS)}) VALUES (?, ?{', ?' * len(_COUNTS)})"
UPDATE_SCOPE = f"UPDATE scope SET {', '.join(f'{name} = ?' for name in _COUNTS)} WHERE key = ?"
SELECT_HOLDS = f"SELECT {', '.join((*_MADE, *_BECAME))} FROM hold"
INSERT_HOLD = f"INSERT INTO hold VALUES (?{', ?' * (len(_MADE) + len(_BECAME) - 1)})"
UPDATE_HOLD = f"UPDATE hold SET {', '.join(f'{name} = ?' for name in _BECAME)} WHERE id = ?"
_SIX = len(Amounts._fields)
_HELD = _MADE.index("held_cost")
_STATE = len(_MADE)
_CHARGED = _STATE + _BECAME.index("charged_cost")
_NO_CHARGE: Row = (None,) * _SIX


class StoredCounters(Counters):
    """The counters of one scope, and its row."""

    __slots__ = ("key", "largest", "saved")

    key: int
    largest: int
    """No sum was larger when the row was read."""
    saved: Row
    """What the file holds of it."""

    @classmethod
    def of(cls, row: Row, clock: Clock) -> StoredCounters:
        """What *row*, of `SELECT_SCOPES`, is."""
        key, kind, scope_id, owner, note, window, began_at, counted_from, period, *rest = row
        revoked_for, revoked_at, open_holds, *amounts = rest
        made = cls(Scope(kind, scope_id), clock)
        made.key = key
        made.saved = row[3:]
        made.owner = owner
        made.note = note
        made.window = window
        if began_at is not None:
            made.start = moment(began_at)
            made.ends = window_end(window, made.start)
        if counted_from is not None:
            made.count_from(moment(counted_from))
        made.period = period
        if revoked_at is not None:
            made.revoked = Revoked(made.scope, revoked_for, moment(revoked_at))
        made.open_holds = open_holds
        made.set_limits(Limits._make(amounts[:_SIX]), window)
        made.committed = Amounts._make(amounts[_SIX : 2 * _SIX])
        made.reserved = Amounts._make(amounts[2 * _SIX : 3 * _SIX])
        made.archived = Amounts._make(amounts[3 * _SIX :])
        made.largest = max(made.committed) + max(made.reserved)
        return made

    def row(self) -> Row:
        """What the file is to hold."""
        revoked = self.revoked
        return (
            self.owner,
            self.note,
            self.window,
            _or_none(self.start),
            _or_none(self.counted_from),
            self.period,
            None if revoked is None else revoked.reason,
            None if revoked is None else micros(revoked.at),
            self.open_holds,
            *self.limits,
            *self.committed,
            *self.reserved,
            *self.archived,
        )


class Group(NamedTuple):
    """The scopes of a hold, with all that the file keeps of them in a hold's row."""

    scopes: tuple[Scope, ...]
    counters: Sequence[StoredCounters]
    keys: str
    """As the file keeps them."""
    periods: tuple[int, ...]
    """As a hold keeps them."""

    @classmethod
    def of(cls, counters: Sequence[StoredCounters]) -> Group:
        """The scopes of *counters*, in their present windows."""
        periods = tuple(each.period for each in counters)
        return cls(
            tuple(each.scope for each in counters),
            counters,
            json.dumps([each.key for each in counters]),
            periods if any(periods) else (),
        )


class StoredHold(Hold):
    """One hold, and its row."""

    __slots__ = ("group", "reason", "saved", "settled")

    group: Group
    reason: str | None
    saved: Row | None
    """What the file holds of what may change; None before it is there."""
    settled: int | None
    """Its number among the settled holds."""

    @classmethod
    def new(cls, hold_id: str, group: Group, amounts: Amounts, origin: Origin, state: State = "released") -> StoredHold:
        """A hold that the file does not know."""
        made = cls(hold_id, group.scopes, group.counters, amounts, origin, state)
        made.group = group
        made.periods = group.periods
        made.reason = None
        made.saved = None
        made.settled = None
        return made

    @classmethod
    def of(cls, row: Row, group: Group) -> StoredHold:
        """What *row*, of `SELECT_HOLDS`, is, in the scopes of *group*."""
        hold_id, origin, _, periods, reason, suspend = row[:_HELD]
        state, uncertain, expires_at, suspended_at, settled = row[_STATE:_CHARGED]
        made = cls(hold_id, group.scopes, group.counters, unchecked(Amounts, row[_HELD:_STATE]), origin, state)
        made.group = group
        made.reason = reason
        made.saved = row[_STATE:]
        if group.periods:
            made.periods = (0,) * len(group.periods) if periods is None else tuple(json.loads(periods))
        made.suspend = bool(suspend)
        made.uncertain = bool(uncertain)
        made.expires = expires_at
        made.suspended_at = None if suspended_at is None else moment(suspended_at)
        made.settled = settled
        *charged, lines = row[_CHARGED:]
        if charged[0] is not None:
            made.charged = Amounts._make(charged)
            if uncertain:  # of a file that had no history yet there are no lines
                its = [UsageLine(NO_LABELS, made.charged)] if lines is None else lines_of(lines)
                made.noted = (made.charged, True, its)
        return made

    def made(self) -> Row:
        """What the file is to hold of what never changes."""
        return (
            self.id,
            self.origin,
            self.group.keys,
            json.dumps(self.periods) if self.periods else None,
            self.reason,
            self.suspend,
            *self.amounts,
        )

    def became(self) -> Row:
        """What the file is to hold of what may change."""
        return (
            self.state,
            self.uncertain,
            self.expires,
            _or_none(self.suspended_at),
            self.settled,
            *(_NO_CHARGE if self.charged is None else self.charged),
            text_of(self.noted[2]) if self.uncertain and self.noted is not None else None,
        )


def keys_of(hold: Row) -> str:
    """The keys of the scopes of a row of `SELECT_HOLDS`, as the file keeps them."""
    keys: str = hold[2]
    return keys


def text_of(lines: Sequence[UsageLine]) -> str:
    """*lines* as the file keeps them with a hold."""
    return json.dumps([[line.labels, quantities(line)] for line in lines], separators=(",", ":"))


def lines_of(text: str) -> list[UsageLine]:
    """The lines that the file keeps as *text*."""
    return [line_of(Labels._make(labels), row) for labels, row in json.loads(text)]
