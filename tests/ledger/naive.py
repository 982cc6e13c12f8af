"""A ledger as simple as it can be: a list of records that every question sums up anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from budget_guard.clock import Clock
from budget_guard.ledger.hold_id import made_ms
from budget_guard.units.amounts import NOTHING, Amounts, Limits
from budget_guard.units.scope import Scope, Window, window_end, window_start

OPEN = ("reserved", "forwarded", "suspended")


class Conflict(Exception):
    """The same id with other parameters."""


class Unknown(Exception):
    """An id that was never held."""


class Stale(Exception):
    """An id that is forgotten."""


@dataclass
class Record:
    """A hold, a charge or an adjustment."""

    verb: str
    scopes: tuple[Scope, ...]
    held: Amounts
    state: str
    periods: dict[Scope, int]
    charged: Amounts | None = None
    certain: bool = False
    expires: float | None = None
    suspend: bool = True
    forgotten: bool = False
    model: str = ""
    """What was spent on."""


@dataclass
class Ceiling:
    """One scope."""

    limits: Limits = field(default_factory=Limits)
    window: Window = "none"
    since: datetime | None = None
    period: int = 0
    revoked: bool = False


class NaiveLedger:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.ceilings: dict[Scope, Ceiling] = {}
        self.records: dict[str, Record] = {}
        self.stale_until = -1

    def set_limits(self, scope: Scope, limits: Limits, window: Window = "none") -> None:
        ceiling = self.ceilings.setdefault(scope, Ceiling())
        self.roll(scope)
        ceiling.limits = limits
        if ceiling.window != window:
            ceiling.window, ceiling.since = window, window_start(window, self.clock.now())

    def roll(self, scope: Scope) -> Ceiling:
        """The ceiling of *scope* in its present window."""
        ceiling = self.ceilings[scope]
        if ceiling.since is not None and self.clock.now() >= window_end(ceiling.window, ceiling.since):
            ceiling.period += 1
            ceiling.since = window_start(ceiling.window, self.clock.now())
        return ceiling

    def counted(self, scope: Scope) -> Iterator[Record]:
        """What counts in the present window of *scope*."""
        period = self.roll(scope).period
        return (record for record in self.records.values() if record.periods.get(scope) == period)

    def committed(self, scope: Scope) -> Amounts:
        return _sum([record.charged for record in self.counted(scope) if record.charged is not None])

    def history(self, scope: Scope, by_model: bool) -> dict[tuple[str, ...], tuple[int, ...]]:
        """All that was ever booked in *scope*, and how much of it is an estimate, by model if that is asked for."""
        sums: dict[tuple[str, ...], list[int]] = {}
        for record in self.records.values():
            if scope in record.periods and record.charged is not None:
                row = sums.setdefault((record.model,) if by_model else (), [0] * 10)
                for i, amount in enumerate((*record.charged, 0 if record.certain else record.charged.cost)):
                    row[i] += amount
        return {names: tuple(row) for names, row in sums.items() if any(row)}

    def reserved(self, scope: Scope) -> Amounts:
        return _sum([record.held for record in self.counted(scope) if record.state in OPEN])

    def open_holds(self, scope: Scope) -> int:
        return sum(record.state in OPEN for record in self.counted(scope))

    def cost_left(self, scopes: Sequence[Scope]) -> int | None:
        return min(
            (
                limit - self.committed(scope).cost - self.reserved(scope).cost
                for scope in scopes
                if (limit := self.ceilings[scope].limits.cost) is not None
            ),
            default=None,
        )

    def fits(self, scopes: Sequence[Scope], room: Amounts) -> bool:
        return all(
            limit is None or committed + reserved + amount <= limit
            for scope in scopes
            for committed, reserved, amount, limit in zip(
                self.committed(scope), self.reserved(scope), room, self.ceilings[scope].limits, strict=True
            )
        )

    def reserve(
        self,
        hold_id: str,
        scopes: tuple[Scope, ...],
        amounts: Amounts,
        room: Amounts | None,
        ttl_s: float,
        suspend: bool,
        sent: bool = False,
    ) -> str:
        known = self.find(hold_id)
        if known is not None:
            _must_match(known, "reserve", scopes, amounts)
            return "held"
        if any(self.ceilings[scope].revoked for scope in scopes):
            return "revoked"
        if room is not None and not self.fits(scopes, room):
            return "refused"
        made = self._record(hold_id, "reserve", scopes, amounts, "forwarded" if sent else "reserved")
        made.expires, made.suspend = self.clock.monotonic() + ttl_s, suspend
        return "held"

    def forward(self, hold_id: str) -> None:
        record = self._hold(hold_id)
        if record.state in ("released", "expired"):
            raise Conflict
        if record.state == "reserved":
            record.state = "forwarded"

    def extend(self, hold_id: str, ttl_s: float) -> bool:
        record = self._hold(hold_id)
        if record.state not in OPEN:
            return False
        record.expires = self.clock.monotonic() + ttl_s
        if record.state == "suspended":
            record.state = "forwarded"
        return True

    def commit(
        self, hold_id: str, scopes: tuple[Scope, ...], amounts: Amounts, uncertain: bool, model: str = ""
    ) -> Record:
        record = self.find(hold_id) or self._record(hold_id, "commit", scopes, amounts, "released")
        _must_be_hold(record)
        if record.scopes != scopes or (record.certain and not uncertain and record.charged != amounts):
            raise Conflict
        if record.charged is None or not (uncertain or record.certain):
            record.state, record.charged, record.certain = "committed", amounts, not uncertain
            record.model = model
        return record

    def release(self, hold_id: str, scopes: tuple[Scope, ...]) -> bool:
        record = self.find(hold_id) or self._record(hold_id, "release", scopes, NOTHING, "released")
        _must_be_hold(record)
        if record.scopes != scopes:
            raise Conflict
        if record.state not in OPEN:
            return False
        record.state = "released"
        return True

    def book(self, verb: str, book_id: str, scopes: tuple[Scope, ...], amounts: Amounts, model: str = "") -> None:
        """A charge, or an adjustment."""
        known = self.find(book_id)
        if known is not None:
            _must_match(known, verb, scopes, amounts)
        else:
            made = self._record(book_id, verb, scopes, amounts, "committed")
            made.charged, made.certain, made.model = amounts, True, model

    def sweep(self) -> int:
        """Expire every hold whose time is up; return how many were."""
        now = self.clock.monotonic()
        up = [
            record
            for record in self.records.values()
            if record.state in ("reserved", "forwarded") and record.expires is not None and record.expires <= now
        ]
        for record in up:
            record.state = "suspended" if record.state == "forwarded" and record.suspend else "expired"
        return len(up)

    def suspended(self) -> set[str]:
        return {hold_id for hold_id, record in self.records.items() if record.state == "suspended"}

    def forget(self) -> None:
        """Forget what is settled, and take no id that was made before this moment for a new one."""
        for record in self.records.values():
            record.forgotten = record.state not in OPEN
        self.stale_until = self.clock.now_ms()

    def find(self, hold_id: str) -> Record | None:
        """The record of that id, None if there never was one."""
        record = self.records.get(hold_id)
        if (record is None and made_ms(hold_id) <= self.stale_until) or (record is not None and record.forgotten):
            raise Stale
        return record

    def _hold(self, hold_id: str) -> Record:
        record = self.find(hold_id)
        if record is None:
            raise Unknown
        _must_be_hold(record)
        return record

    def _record(self, hold_id: str, verb: str, scopes: tuple[Scope, ...], held: Amounts, state: str) -> Record:
        periods = {scope: self.roll(scope).period for scope in scopes}
        record = self.records[hold_id] = Record(verb, scopes, held, state, periods)
        return record


def _must_match(known: Record, verb: str, scopes: tuple[Scope, ...], amounts: Amounts) -> None:
    if (known.verb, known.scopes, known.held) != (verb, scopes, amounts):
        raise Conflict


def _must_be_hold(record: Record) -> None:
    if record.verb in ("charge", "adjust"):
        raise Conflict


def _sum(amounts: Sequence[Amounts]) -> Amounts:
    return Amounts(*map(sum, zip(*amounts, strict=True))) if amounts else NOTHING
