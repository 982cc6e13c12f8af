"""The verbs of a ledger in a file: what they read and change within one transaction.

A batch of verbs shares one `Books`. It reads each row that a verb needs once, applies the rules of `Counters` and
`Hold` to it, and writes what became of it at the end: under the file's write lock nobody else changes it meanwhile.
A verb checks everything before it changes anything, so that one which fails leaves the rest of its batch alone.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import datetime

from budget_guard.clock import SystemClock
from budget_guard.dimension import NOTHING, Amounts, Limits
from budget_guard.errors import ForeignRun, StaleReservation, UnknownReservation
from budget_guard.hold_id import made_ms
from budget_guard.ledger.base import HELD, MOST, Balance, Refused, ReserveOutcome, Revoked, Settled, Suspended
from budget_guard.ledger.checks import check_limits, check_text, check_ttl, checked_amounts
from budget_guard.ledger.counters import least_left
from budget_guard.ledger.hold import State, Verb, differences
from budget_guard.ledger.sqlite_rows import (
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
from budget_guard.scope import Scope
from budget_guard.window import Window

MOST_VERBS = 256
"""How many verbs may share one `Books`."""
_SWEPT_AT_ONCE = 8
"""Expired holds that the first reserve of a batch clears away by itself."""
_FORGOTTEN_AT_ONCE = 1_000
"""Settled holds that a batch forgets at most."""
_LARGEST = 2**63 - 1
"""The largest integer that a row can keep."""
_FULL = _LARGEST - MOST_VERBS * MOST
"""A sum up to here cannot pass `_LARGEST` within one batch."""
_MOST_AHEAD_MS = 300_000
"""How far an id may be ahead of the ledger's time. Forgotten, it would make every id before it a stale one."""


class _Time(SystemClock):
    """The ledger's own time, which stands still during a transaction."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now


class Books:
    """What the verbs of one transaction see.

    Args:
        db: The file, in a transaction.
        now: The time by the clock.
        hold_ttl_s: Seconds after which a hold expires if nothing else was asked for.
        retain: How many settled holds to remember.
    """

    def __init__(self, db: sqlite3.Connection, now: datetime, hold_ttl_s: float, retain: int) -> None:
        self._db = db
        self._hold_ttl_s = hold_ttl_s
        self._retain = retain
        self._saved: Row = db.execute(
            "SELECT version, seen_at, settled, forgotten, forgotten_ms FROM ledger"
        ).fetchone()
        self._version: int
        self._version, seen_at, self._settled, self._forgotten, self._forgotten_ms = self._saved
        self._now: int = max(micros(now), seen_at)
        self._time = _Time(moment(self._now))
        self._by_scope: dict[Scope, StoredCounters] = {}
        self._by_key: dict[int, StoredCounters] = {}
        self._groups: dict[tuple[Scope, ...] | str, Group] = {}
        """By the scopes, and by their keys."""
        self._holds: dict[str, StoredHold] = {}
        self._nearly_full = False
        """Whether a sum is so large that it might become too large for its row."""
        self._swept = False

    # the verbs

    def version(self) -> int:
        """A number that changes whenever room is given."""
        return self._version

    def set_limits(self, scope: Scope, limits: Limits, window: Window, owner: str) -> None:
        check_limits(limits)
        check_text("owner", owner)
        counters = self._opened(scope)
        if counters.owner is not None and counters.owner != owner:
            raise ForeignRun(scope=str(scope))
        counters.owner = owner
        counters.roll()
        counters.set_limits(limits, window)
        self._version += 1

    def reserve(
        self,
        hold_id: str,
        scopes: Sequence[Scope],
        amounts: Amounts,
        room: Amounts | None,
        ttl_s: float | None,
        suspend: bool,
    ) -> ReserveOutcome:
        amounts = checked_amounts(amounts)
        if room is not None and room is not amounts:
            room = checked_amounts(room)
        expires_at = self._in(self._hold_ttl_s if ttl_s is None else ttl_s)
        known = self._holds.get(hold_id)
        if known is not None:
            known.must_match("reserve", scopes, amounts)
            return HELD
        self._must_be_young(hold_id)
        if not self._swept:
            self._swept = True
            self.sweep(_SWEPT_AT_ONCE)
        group = self._find(scopes)
        found = group.counters
        for counters in found:
            if counters.revoked is not None:
                return counters.revoked
        if room is not None:
            for counters in found:
                blocking = counters.blocking(room)
                if blocking is not None:
                    return self._refused(counters, blocking, found, room)
        self._must_fit(found, amounts)
        hold = self._holds[hold_id] = StoredHold.new(hold_id, group, amounts, "reserve")
        for counters in found:
            counters.hold(amounts)
        hold.suspend = suspend
        hold.expires = expires_at
        return HELD

    def forward(self, hold_id: str) -> None:
        self._hold(hold_id).forward()

    def extend(self, hold_id: str, ttl_s: float) -> bool:
        expires_at = self._in(ttl_s)
        hold = self._hold(hold_id)
        if not hold.open:
            return False
        hold.expires = expires_at
        if hold.state == "suspended":
            hold.state = "forwarded"
        return True

    def commit(self, hold_id: str, scopes: Sequence[Scope], amounts: Amounts, uncertain: bool) -> Settled:
        amounts = checked_amounts(amounts)
        hold = self._holds.get(hold_id)
        if hold is None:
            hold = self._lost(hold_id, self._find(scopes), amounts, "commit")
        else:
            hold.must_be_hold(scopes)
            self._must_fit(hold.group.counters, amounts)
        was_open = hold.open
        if hold.commit(amounts, uncertain):
            if was_open:
                self._number(hold)
            self._version += 1
        return Settled(Amounts._make(hold.counters[0].committed), hold.charged or NOTHING, hold.uncertain)

    def release(self, hold_id: str, scopes: Sequence[Scope]) -> bool:
        hold = self._holds.get(hold_id)
        if hold is None:
            self._lost(hold_id, self._find(scopes), NOTHING, "release")
            return False
        hold.must_be_hold(scopes)
        if not hold.open:
            return False
        self._free(hold, "released")
        return True

    def charge(self, charge_id: str, scopes: Sequence[Scope], amounts: Amounts) -> Refused | None:
        amounts = checked_amounts(amounts)
        group = self._find(scopes)
        found = group.counters
        known = self._holds.get(charge_id)
        if known is None:
            self._lost(charge_id, group, amounts, "charge").commit(amounts, uncertain=False)
        else:
            known.must_match("charge", scopes, amounts)
        for counters in found:
            blocking = counters.blocking(NOTHING)
            if blocking is not None:
                return self._refused(counters, blocking, found, NOTHING)
        return None

    def adjust(self, adjust_id: str, scope: Scope, change: Amounts, reason: str) -> Amounts:
        change = checked_amounts(change, -MOST)
        check_text("reason", reason)
        group = self._find((scope,))
        counters = group.counters[0]
        known = self._holds.get(adjust_id)
        if known is not None:
            known.must_match("adjust", (scope,), change)
            return Amounts._make(counters.committed)
        then = change.plus(Amounts._make(counters.committed))
        if min(then) < 0:
            raise ValueError(f"change={change} would leave less than nothing committed in {scope}: {then}")
        self._lost(adjust_id, group, change, "adjust", reason).commit(change, uncertain=False)
        self._version += 1
        return then

    def balances(self, scopes: Sequence[Scope]) -> Sequence[Balance]:
        return [counters.balance() for counters in self._find(scopes).counters]

    def revoke(self, scope: Scope, reason: str) -> None:
        check_text("reason", reason)
        counters = self._opened(scope)
        if counters.revoked is None:
            counters.revoked = Revoked(scope, reason, self._time.now())
        self._version += 1  # whoever waits shall hear of it

    def restore(self, scope: Scope) -> bool:
        counters = self._counters(scope)
        if counters is None or counters.revoked is None:
            return False
        counters.revoked = None
        return True

    def sweep(self, most: int) -> int:
        due = self._db.execute(
            "SELECT id FROM hold"
            " WHERE state IN ('reserved', 'forwarded') AND expires_at <= ? ORDER BY expires_at LIMIT ?",
            (self._now, most),
        ).fetchall()
        self.load([hold_id for (hold_id,) in due])
        swept = 0
        for (hold_id,) in due:
            hold = self._holds[hold_id]
            if hold.state not in ("reserved", "forwarded") or hold.expires is None or hold.expires > self._now:
                continue  # settled or extended in this very batch
            swept += 1
            if hold.state == "forwarded" and hold.suspend:
                hold.state = "suspended"
                hold.suspended_at = self._time.now()
            else:
                self._free(hold, "expired")
        return swept

    def suspended(self, most: int) -> Sequence[Suspended]:
        self.save()
        return [
            Suspended(hold.id, hold.scopes, hold.amounts, hold.suspended_at)
            for hold in self._select("WHERE state = 'suspended' ORDER BY suspended_at LIMIT ?", (most,))
            if hold.suspended_at is not None
        ]

    def audit(self) -> Sequence[str]:
        wrong = [str(row[0]) for row in self._db.execute("PRAGMA quick_check") if row[0] != "ok"]
        for row in self._db.execute(SELECT_SCOPES):
            self._keep(row)
        return [*wrong, *differences(self._by_scope.values(), self._select("", ()))]

    # the transaction

    def load(self, hold_ids: Sequence[str]) -> None:
        """Read those of *hold_ids* that the file knows."""
        missing = tuple({hold_id for hold_id in hold_ids if hold_id not in self._holds})
        if missing:
            for hold in self._select(f"WHERE id IN (?{', ?' * (len(missing) - 1)})", missing):
                self._holds[hold.id] = hold

    def forget(self) -> None:
        """Forget the oldest settled holds beyond those to be retained, a slice of them at most."""
        excess = min(self._settled - self._forgotten - self._retain, _FORGOTTEN_AT_ONCE)
        if excess <= 0:
            return
        last = self._forgotten + excess
        for hold in self._select("WHERE settled <= ?", (last,)):
            self._forgotten_ms = max(self._forgotten_ms, made_ms(hold.id))
            if hold.charged is not None:
                for counters in hold.counted_in():
                    counters.archive(hold.charged)
        self._db.execute("DELETE FROM hold WHERE settled <= ?", (last,))
        self._forgotten = last

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
        for hold in self._holds.values():
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
        ledger = (self._version, self._now, self._settled, self._forgotten, self._forgotten_ms)
        if changed or made or became or self._version != self._saved[0]:
            self._db.execute(
                "UPDATE ledger SET version = ?, seen_at = ?, settled = ?, forgotten = ?, forgotten_ms = ?", ledger
            )
            self._saved = ledger

    def _counters(self, scope: Scope) -> StoredCounters | None:
        counters = self._by_scope.get(scope)
        if counters is None:
            row = self._db.execute(f"{SELECT_SCOPES} WHERE kind = ? AND id = ?", tuple(scope)).fetchone()
            if row is not None:
                counters = self._keep(row)
        return counters

    def _opened(self, scope: Scope) -> StoredCounters:
        counters = self._counters(scope)
        if counters is None:
            row = (None, "none", None, 0, None, None, 0, *Limits(), *NOTHING * 3)
            key = self._db.execute(INSERT_SCOPE, (*scope, *row)).lastrowid
            counters = self._keep((key, *scope, *row))
        return counters

    def _keep(self, row: Row) -> StoredCounters:
        counters = StoredCounters.of(row, self._time)
        counters.roll()  # once is enough: the time stands still
        self._nearly_full = self._nearly_full or counters.largest > _FULL
        self._by_scope[counters.scope] = self._by_key[counters.key] = counters
        return counters

    def _find(self, scopes: Sequence[Scope]) -> Group:
        scopes = tuple(scopes)
        group = self._groups.get(scopes)
        if group is None:
            found = [self._counters(scope) for scope in scopes]
            if None in found:
                raise KeyError(scopes[found.index(None)])
            group = self._groups[scopes] = Group.of([each for each in found if each is not None])
        return group

    def _group(self, keys: str) -> Group:
        group = self._groups.get(keys)
        if group is None:
            found = [self._by_key.get(key) or self._load(key) for key in json.loads(keys)]
            group = self._groups[keys] = self._find([each.scope for each in found])
        return group

    def _load(self, key: int) -> StoredCounters:
        return self._keep(self._db.execute(f"{SELECT_SCOPES} WHERE key = ?", (key,)).fetchone())

    def _select(self, where: str, parameters: Sequence[int | str]) -> Iterator[StoredHold]:
        for row in self._db.execute(f"{SELECT_HOLDS} {where}", parameters):
            yield StoredHold.of(row, self._group(keys_of(row)))

    def _hold(self, hold_id: str) -> StoredHold:
        hold = self._holds.get(hold_id)
        if hold is None:
            self._must_be_young(hold_id)
            raise UnknownReservation(reservation_id=hold_id, detail="was never made; nothing was changed")
        hold.must_be_hold()
        return hold

    def _must_be_young(self, hold_id: str) -> None:
        made = made_ms(hold_id)
        if made <= self._forgotten_ms:
            raise StaleReservation(
                reservation_id=hold_id, detail="is older than what the ledger remembers; nothing was changed"
            )
        ahead = made - self._now // 1_000
        if ahead > _MOST_AHEAD_MS:
            raise ValueError(
                f"hold_id={hold_id[:40]!r} was made {ahead // 1_000} s ahead of the ledger's time: set this machine's "
                "clock, and give the session and the ledger the same one"
            )

    def _lost(self, hold_id: str, group: Group, amounts: Amounts, verb: Verb, reason: str | None = None) -> StoredHold:
        """A record for what the ledger hears of for the first time, and holds nothing for."""
        self._must_be_young(hold_id)
        self._must_fit(group.counters, amounts)
        hold = self._holds[hold_id] = StoredHold.new(hold_id, group, amounts, verb, reason)
        self._number(hold)
        return hold

    def _must_fit(self, found: Sequence[StoredCounters], amounts: Amounts) -> None:
        """Check that no sum passes what a row can keep, before the first one is changed."""
        if self._nearly_full:
            for counters in found:
                for committed, reserved, amount in zip(counters.committed, counters.reserved, amounts, strict=True):
                    if committed + reserved + amount > _LARGEST:
                        raise OverflowError(f"{counters.scope} would pass {_LARGEST}, the most that the file can keep")

    def _free(self, hold: StoredHold, state: State) -> None:
        hold.free(state)
        self._number(hold)
        self._version += 1

    def _number(self, hold: StoredHold) -> None:
        self._settled += 1
        hold.settled = self._settled

    def _in(self, ttl_s: float) -> int:
        check_ttl(ttl_s)
        return min(self._now + round(ttl_s * 1_000_000), _LARGEST)

    def _refused(self, counters: StoredCounters, i: int, found: Sequence[StoredCounters], room: Amounts) -> Refused:
        return Refused(
            counters.scope,
            i,
            dict(counters.limited)[i],
            counters.committed[i],
            counters.reserved[i],
            all(c.committed[j] + room[j] <= limit for c in found for j, limit in c.limited),
            self._version,
            least_left(found),
        )
