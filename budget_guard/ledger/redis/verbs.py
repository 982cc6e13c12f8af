"""The verbs of a ledger as calls of the Lua scripts, which decide."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from budget_guard.errors import (
    ForeignRun,
    LedgerUnavailable,
    ReservationConflict,
)
from budget_guard.ledger.base import (
    HELD,
    Balance,
    Refused,
    ReserveOutcome,
    Settled,
    Suspended,
)
from budget_guard.ledger.checks import (
    check_limits,
    check_place,
    check_query,
    checked_amounts,
    checked_change,
    checked_lines,
    checked_room,
)
from budget_guard.ledger.flow import Steps
from budget_guard.ledger.history import (
    Kept,
    Labels,
    Quantities,
    UsageLine,
    UsageQuery,
    UsageSum,
    completed,
    keeps_history,
    present,
    summed,
)
from budget_guard.ledger.hold_id import made_ms
from budget_guard.ledger.redis.audit import differences, history_differences
from budget_guard.ledger.redis.codec import (
    HoldRecord,
    amounts_of,
    another,
    balance_of,
    counted,
    elsewhere,
    lines_text,
    listed,
    problem,
    refused_of,
    revoked_of,
    spend_of,
    time_of,
    ttl_of,
    usage_row,
)
from budget_guard.ledger.redis.keys import Keys, Named, decode, encode, name_pattern, scopes_of
from budget_guard.ledger.redis.script_runner import ScriptRunner
from budget_guard.ledger.waiters import Waiters
from budget_guard.units.amounts import NOTHING, Amounts, Limits, Sums
from budget_guard.units.scope import Scope, Window

_SWEPT_AT_ONCE = 8
"""Expired holds that a reserve clears away by itself."""
_AT_ONCE = 100
"""Holds that one script expires or forgets at most: others wait for it."""
_HISTORIES = 20
"""Scopes whose histories one script reads: others wait for it."""
_LOOKED_AT = 1_000
"""Names of scopes that one script looks at, about."""
_AUDITS = 50
"""How often an audit begins anew because a hold came in between."""
_FIRST_PAUSE_S = 1 / 64
_LONGEST_PAUSE_S = 1.0
_WINDOWS: tuple[Window, ...] = ("none", "minute", "hour", "day", "week", "month")


class RedisVerbs:
    """Every verb as `Steps` over `Connections` or `AsyncConnections`.

    Args:
        keys: The tenant's keys.
        runner: What runs the scripts.
        waiters: What waits for room in this process.
        hold_ttl_s: Seconds after which a hold expires if its reserve does not say.
        retain: How many settled holds to remember.
        kept: For how long to keep the rows of the usage history.
    """

    def __init__(
        self, keys: Keys, runner: ScriptRunner, waiters: Waiters, hold_ttl_s: float, retain: int, kept: Kept
    ) -> None:
        self._keys = keys
        self._call = runner.call
        self._waiters = waiters
        self._ttl_s = hold_ttl_s
        self._retain = retain
        self._kept = kept
        self._days = lru_cache(maxsize=4_096)(self._days_of)
        self._gather = max(1, min(_AT_ONCE, retain // 10))

    def set_limits(self, scope: Scope, limits: Limits, window: Window, owner: str, note: str) -> Steps[None]:
        check_limits(limits)
        if window not in _WINDOWS:
            raise ValueError(f"window={window!r} of {scope} must be one of {', '.join(_WINDOWS)}")
        limited = "".join("0" if limit is None else "1" for limit in limits)
        status, *rest = yield from self._call(
            "limits",
            (self._keys.scopes, *self._named((scope,)).keys),
            self._named((scope,)).text,
            encode(owner),
            window.encode(),
            limited.encode(),
            listed([limit or 0 for limit in limits]),
            encode(note),
        )
        if status == b"foreign":
            raise ForeignRun(scope=str(scope))
        if status != b"set":
            raise problem(status, rest, scopes=(scope,))
        self._waiters.give()

    def reserve(
        self,
        hold_id: str,
        scopes: Sequence[Scope],
        amounts: Amounts,
        room: Sums | None,
        ttl_s: float | None,
        suspend: bool,
        sent: bool,
    ) -> Steps[ReserveOutcome]:
        amounts = checked_amounts(amounts)
        if room is not None:
            room = checked_room(room)
        ttl = ttl_of(self._ttl_s if ttl_s is None else ttl_s)
        made_ms(hold_id)
        named, sweep = self._named(scopes), _SWEPT_AT_ONCE
        while True:
            status, *rest = yield from self._call(
                "reserve",
                (self._keys.open, self._keys.hold(hold_id), *named.keys),
                encode(hold_id),
                named.text,
                listed(amounts),
                b"" if room is None else listed(room),
                ttl,
                b"1" if suspend else b"0",
                b"%d" % sweep,
                b"forwarded" if sent else b"reserved",
            )
            if status == b"held":
                return HELD
            if status != b"due":
                break
            sweep = 0  # as few by itself
            (due,) = rest
            yield from self._expire(due)
        if status == b"refused":
            version, about = rest
            refused = refused_of(scopes, version, about, room or NOTHING)
            if refused is not None:
                return refused
        if status == b"revoked":
            which, (reason, at) = rest
            return revoked_of(scopes[int(which) - 1], reason, at)
        if status == b"known":
            origin, its_scopes, held = rest
            if origin != b"reserve":
                raise another(hold_id, origin)
            if its_scopes != named.text:
                raise elsewhere(hold_id, its_scopes, scopes)
            if held != listed(amounts):
                raise ReservationConflict(
                    reservation_id=hold_id, detail=f"holds {amounts_of(held)} and was asked to hold {amounts}"
                )
            return HELD
        raise (yield from self._problem(status, rest, hold_id, scopes))

    def forward(self, hold_id: str) -> Steps[None]:
        made_ms(hold_id)
        status, *rest = yield from self._call("forward", (self._keys.hold(hold_id),), encode(hold_id))
        if status != b"forwarded":
            raise problem(status, rest, hold_id)

    def extend(self, hold_id: str, ttl_s: float) -> Steps[bool]:
        made_ms(hold_id)
        status, *rest = yield from self._call(
            "extend",
            (self._keys.open, self._keys.suspended, self._keys.hold(hold_id)),
            encode(hold_id),
            ttl_of(ttl_s),
        )
        if status != b"extended":
            raise problem(status, rest, hold_id)
        (open,) = rest
        return bool(open == 1)

    def commit(
        self, hold_id: str, scopes: Sequence[Scope], amounts: Amounts, uncertain: bool, lines: Sequence[UsageLine]
    ) -> Steps[Settled]:
        amounts = checked_amounts(amounts)
        told = lines_text(completed(amounts, uncertain, checked_lines(lines)))
        committed, charged, estimate, above, left, overdue = yield from self._settle(
            "commit", b"settled", hold_id, scopes, listed(amounts), told, b"1" if uncertain else b"0"
        )
        yield from self._forget(overdue)
        return Settled(
            counted(committed),
            amounts_of(charged),
            estimate == b"1",
            tuple(map(spend_of, above)),
            min(map(int, left), default=None),
        )

    def release(self, hold_id: str, scopes: Sequence[Scope]) -> Steps[bool]:
        released, overdue = yield from self._settle("release", b"released", hold_id, scopes, b"", b"")
        yield from self._forget(overdue)
        return bool(released == 1)

    def charge(
        self, charge_id: str, scopes: Sequence[Scope], amounts: Amounts, lines: Sequence[UsageLine]
    ) -> Steps[Refused | None]:
        amounts = checked_amounts(amounts)
        told = lines_text(completed(amounts, False, checked_lines(lines)))
        version, about, overdue = yield from self._settle("charge", b"booked", charge_id, scopes, listed(amounts), told)
        yield from self._forget(overdue)
        return refused_of(scopes, version, about, NOTHING)

    def adjust(self, adjust_id: str, scope: Scope, change: Amounts, reason: str) -> Steps[Amounts]:
        change = checked_change(change)
        told = lines_text(completed(change, False, ()))
        committed, overdue = yield from self._settle("adjust", b"adjusted", adjust_id, (scope,), listed(change), told)
        yield from self._forget(overdue)
        return counted(committed)

    def await_room(self, version: int, timeout: float) -> Steps[bool]:
        return self._waiters.poll(self._version, version, timeout, _FIRST_PAUSE_S, _LONGEST_PAUSE_S)

    def _version(self) -> Steps[int]:
        _, version = yield from self._call("version", (), changes=False)
        return int(version)

    def balances(self, scopes: Sequence[Scope]) -> Steps[list[Balance]]:
        if not scopes:
            return []
        status, *rest = yield from self._call("balances", self._named(scopes).keys, changes=False)
        if status != b"balances":
            raise (yield from self._problem(status, rest, scopes=scopes))
        (about,) = rest
        return list(map(balance_of, scopes, about))

    def usage(self, query: UsageQuery) -> Steps[list[UsageSum]]:
        check_query(query)
        ids = [query.id] if query.id is not None else (yield from self.names(query.kind, ""))
        sums: dict[tuple[str | int, ...], Quantities] = {}
        by = query.by
        time = b"hour" if "hour" in by else b"day" if "day" in by else b""
        mask = "".join("1" if name in by else "0" for name in Labels._fields).encode()
        until = b"" if query.until is None else b"%d" % query.until
        for first in range(0, len(ids), _HISTORIES):
            some = ids[first : first + _HISTORIES]
            keys = [self._keys.scope(Scope(query.kind, id)) for id in some]
            _, answers = yield from self._call("usage", keys, b"%d" % query.since, until, time, mask, changes=False)
            for id, rows in zip(some, answers, strict=True):
                summed(sums, by, id, (usage_row(row, query.by) for row in rows))
        return present(sums)

    def names(self, kind: str, prefix: str) -> Steps[list[str]]:
        found: set[str] = set()
        cursor = b"0"
        while True:
            _, cursor, names = yield from self._call(
                "find", (self._keys.scopes,), cursor, name_pattern(kind, prefix), b"%d" % _LOOKED_AT, changes=False
            )
            found.update(scope.id for name in names for scope in scopes_of(name))
            if cursor == b"0":
                return sorted(found)

    def revoke(self, scope: Scope, reason: str) -> Steps[None]:
        named = self._named((scope,))
        status, *rest = yield from self._call("revoke", (self._keys.scopes, *named.keys), named.text, encode(reason))
        if status != b"revoked":
            raise problem(status, rest, scopes=(scope,))
        self._waiters.give()

    def restore(self, scope: Scope) -> Steps[bool]:
        _, restored = yield from self._call("restore", self._named((scope,)).keys)
        return bool(restored == 1)

    def swap(self, name: str, expected: str | None, text: str | None, ttl_s: float) -> Steps[str | None]:
        check_place(name)
        there, shall = (b"" if each is None else b"+" + encode(each) for each in (expected, text))
        _, kept = yield from self._call("swap", (self._keys.text(name),), there, shall, ttl_of(ttl_s))
        return decode(kept[1:]) if kept else None

    def sweep(self, most: int) -> Steps[int]:
        swept = 0
        while swept < most:
            many = min(_AT_ONCE, most - swept)
            _, due = yield from self._call("due", (self._keys.open,), b"%d" % many, changes=False)
            if not due:
                break
            swept += yield from self._expire(due)
        return swept

    def suspended(self, most: int) -> Steps[list[Suspended]]:
        _, flat = yield from self._call("waiting", (self._keys.suspended,), b"%d" % most, changes=False)
        ids, since = flat[::2], flat[1::2]
        records = yield from self._records(ids)
        return [
            Suspended(decode(id), scopes_of(record.scopes), amounts_of(record.amounts), time_of(at))
            for id, at, record in zip(ids, since, records, strict=True)
            if record.state == b"suspended" and record.scopes is not None and record.amounts is not None
        ]

    def audit(self) -> Steps[list[str]]:
        for _ in range(_AUDITS):
            _, names, *ids_by_state = yield from self._call(
                "names",
                (self._keys.scopes, self._keys.open, self._keys.suspended, self._keys.settled),
                changes=False,
            )
            scopes = sorted(scope for each in names for scope in scopes_of(each))
            ids = [id for each in ids_by_state for id in each]
            status, *rest = yield from self._call(
                "audit",
                (
                    *(self._keys.scopes, self._keys.open, self._keys.suspended, self._keys.settled),
                    *(self._keys.scope(scope) for scope in scopes),
                    *(self._keys.hold(decode(id)) for id in ids),
                ),
                b"%d" % len(scopes),
                *ids,
                changes=False,
            )
            if status == b"audit":
                counted_now, holds = rest
                return [*differences(scopes, counted_now, holds), *(yield from self._recount(scopes))]
        raise LedgerUnavailable(
            detail=f"holds came and went {_AUDITS} times while they were listed: audit in quieter hours"
        )

    def _recount(self, scopes: Sequence[Scope]) -> Steps[list[str]]:
        """Compare what is committed with the usage history, of a few scopes at once: others wait for it."""
        wrong: list[str] = []
        scopes = [scope for scope in scopes if keeps_history(scope.kind)]
        for first in range(0, len(scopes), _HISTORIES):
            some = scopes[first : first + _HISTORIES]
            _, answers = yield from self._call("recount", [self._keys.scope(scope) for scope in some], changes=False)
            wrong += history_differences(some, answers)
        return wrong

    def reopen(self) -> Steps[None]:
        keys = self._keys
        _, named, *_ = yield from self._call(
            "names", (keys.scopes, keys.open, keys.suspended, keys.settled), changes=False
        )
        for first in range(0, len(named), _AT_ONCE):
            some = named[first : first + _AT_ONCE]
            yield from self._call(
                "drop", (keys.scopes, *(self._named(scopes_of(each)).keys[0] for each in some)), *some
            )
        yield from self._call("reopen", (keys.scopes,))

    def _settle(
        self, name: str, done: bytes, hold_id: str, scopes: Sequence[Scope], amounts: bytes, lines: bytes, *more: bytes
    ) -> Steps[list[Any]]:
        made_ms(hold_id)
        keys, named = self._keys, self._named(scopes)
        status, *rest = yield from self._call(
            name,
            (keys.open, keys.suspended, keys.settled, keys.hold(hold_id), *named.keys),
            encode(hold_id),
            named.text,
            amounts,
            b"%d" % self._retain,
            b"%d" % self._gather,
            lines,
            b"%d" % self._kept.hours,
            self._days(named),
            *more,
        )
        if status != done:
            raise (yield from self._problem(status, rest, hold_id, scopes, amounts, named.text))
        self._waiters.give()
        return rest

    def _days_of(self, named: Named) -> bytes:
        """For how many days each scope keeps the rows of its history; a hyphen for one that has none."""
        return b",".join(
            b"%d" % self._kept.days_of(scope.kind) if keeps_history(scope.kind) else b"-"
            for scope in scopes_of(named.text)
        )

    def _problem(
        self,
        status: bytes,
        rest: Sequence[Any],
        hold_id: str = "",
        scopes: Sequence[Scope] = (),
        amounts: bytes = b"",
        named: bytes = b"",
    ) -> Steps[Exception]:
        """As `problem`; a scope that is missing is looked up first, for it may be one that was known."""
        if status == b"missing":
            scopes = (scopes[int(rest[0]) - 1],)
            scope = self._named(scopes)
            status, *rest = yield from self._call("known", (self._keys.scopes, *scope.keys), scope.text)
        return problem(status, rest, hold_id, scopes, amounts, named)

    def _expire(self, ids: Sequence[bytes]) -> Steps[int]:
        """Expire the holds *ids*, whose time is up; return how many still were there to expire."""
        keys, args = yield from self._with_scopes(ids)
        _, expired = yield from self._call(
            "expire", (self._keys.open, self._keys.suspended, self._keys.settled, *keys), *args
        )
        self._waiters.give()
        return int(expired)

    def _forget(self, ids: Sequence[bytes]) -> Steps[None]:
        for first in range(0, len(ids), _AT_ONCE):
            keys, args = yield from self._with_scopes(ids[first : first + _AT_ONCE])
            yield from self._call("forget", (self._keys.settled, *keys), *args)

    def _with_scopes(self, ids: Sequence[bytes]) -> Steps[tuple[list[bytes], list[bytes]]]:
        """The keys of holds and of their scopes, and for each hold its id and the number of its scopes."""
        keys: list[bytes] = []
        args: list[bytes] = []
        for id, record in zip(ids, (yield from self._records(ids)), strict=True):
            scopes = self._named(scopes_of(record.scopes) if record.scopes else ()).keys
            keys += [self._keys.hold(decode(id)), *scopes]
            args += [id, b"%d" % len(scopes)]
        return keys, args

    def _records(self, ids: Sequence[bytes]) -> Steps[list[HoldRecord]]:
        _, records = yield from self._call("holds", [self._keys.hold(decode(id)) for id in ids], changes=False)
        return list(map(HoldRecord._make, records))

    def _named(self, scopes: Sequence[Scope]) -> Named:
        return self._keys.named(tuple(scopes))
