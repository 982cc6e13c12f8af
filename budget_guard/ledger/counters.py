"""The counters of one scope in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Protocol

from budget_guard.clock import Clock
from budget_guard.ledger.base import Balance, Refused, Revoked
from budget_guard.ledger.history import ScopeHistory
from budget_guard.units.amounts import DIMENSIONS, NOTHING, Amounts, Limits, Sums, unchecked
from budget_guard.units.scope import Scope, Window, window_end, window_start


class Counters:
    """What is committed and reserved in one scope, in its present window. Not thread-safe."""

    __slots__ = (
        "_clock",
        "archived",
        "begins",
        "committed",
        "counted_from",
        "ends",
        "history",
        "limited",
        "limits",
        "note",
        "open_holds",
        "owner",
        "period",
        "reserved",
        "revoked",
        "scope",
        "start",
        "window",
    )

    def __init__(self, scope: Scope, clock: Clock) -> None:
        self._clock = clock
        self.scope = scope
        self.owner: str | None = None
        """Who opened it; None before that."""
        self.note = ""
        self.limits = Limits()
        self.limited: tuple[tuple[int, int], ...] = ()
        """The dimensions that have a limit, each with it."""
        self.window: Window = "none"
        self.start: datetime | None = None
        """When the present window began."""
        self.ends: datetime | None = None
        """When it ends."""
        self.counted_from: datetime | None = None
        """From when on it counts what is committed now; None where it has always done so. It may be before `start`,
        where the window was another one meanwhile."""
        self.begins = 0
        """The hour of that, since 1970 began; 0 also where it is not at the beginning of one."""
        self.period = 0
        """How many windows have ended. A hold belongs to the one in which it was made."""
        self.committed: Sums = NOTHING
        self.reserved: Sums = NOTHING
        self.archived: Sums = NOTHING
        """The part of what is committed whose holds are forgotten."""
        self.open_holds = 0
        self.revoked: Revoked | None = None
        self.history: ScopeHistory | None = None
        """Its usage history, where that is kept here."""

    def set_limits(self, limits: Limits, window: Window) -> None:
        """Replace the ceilings. What is counted so far stays counted, in a new kind of window too."""
        self.limited = tuple((i, limit) for i, limit in enumerate(limits) if limit is not None)
        self.limits = limits  # last: where it does not say so, the limits are set again
        if window != self.window:
            self._begin(window)
            self.window = window

    def roll(self) -> None:
        """Count from nothing again if the next window has begun. Never back, whatever the clock does."""
        if self.ends is not None and self._clock.now() >= self.ends:
            self.period += 1  # first: what belongs to another period is counted in none
            self.committed = self.reserved = self.archived = NOTHING
            self.open_holds = 0
            self.count_from(window_start(self.window, self._clock.now()))
            self._begin(self.window)  # last: a roll that is torn before is done once more

    def count_from(self, at: datetime | None) -> None:
        """Note that what is committed is counted since *at*."""
        self.begins = 0 if at is None or at.minute else int(at.timestamp()) // 3_600
        self.counted_from = at

    def _begin(self, window: Window) -> None:
        self.start = window_start(window, self._clock.now())
        self.ends = None if self.start is None else window_end(window, self.start)

    def balance(self) -> Balance:
        """The counters as they are."""
        return Balance(
            self.scope,
            self.limits,
            unchecked(Amounts, self.committed),
            unchecked(Amounts, self.reserved),
            self.open_holds,
            self.revoked,
            self.window,
            self.start,
            self.note,
        )

    def hold(self, amounts: Amounts) -> None:
        """Hold *amounts*."""
        a, b, c, d, e, f = self.reserved
        u, v, w, x, y, z = amounts
        self.reserved = (a + u, b + v, c + w, d + x, e + y, f + z)
        self.open_holds += 1

    def settle(self, held: Amounts, spent: Amounts) -> None:
        """Give *held* back and book *spent*."""
        a, b, c, d, e, f = self.reserved
        u, v, w, x, y, z = held
        self.reserved = (a - u, b - v, c - w, d - x, e - y, f - z)
        self.open_holds -= 1
        if spent is not NOTHING:
            a, b, c, d, e, f = self.committed
            u, v, w, x, y, z = spent
            self.committed = (a + u, b + v, c + w, d + x, e + y, f + z)

    def book(self, spent: Amounts, replaced: Amounts = NOTHING) -> None:
        """Book *spent* in the place of *replaced*."""
        a, b, c, d, e, f = self.committed
        u, v, w, x, y, z = spent.minus(replaced)
        self.committed = (a + u, b + v, c + w, d + x, e + y, f + z)

    def archive(self, charges: Sequence[Amounts]) -> None:
        """Note that the holds for which *charges* are committed are forgotten."""
        self.archived = Amounts._make(map(sum, zip(self.archived, *charges, strict=True)))

    def recount(self) -> Counters:
        """Counters of the same scope that know of the forgotten holds alone."""
        fresh = Counters(self.scope, self._clock)
        fresh.committed = self.archived
        return fresh

    @property
    def begins_with_an_hour(self) -> bool:
        """Whether its history can tell what is committed: not in the middle of an hour, for that has rows of hours."""
        return self.counted_from is None or self.begins > 0


class Counted(Protocol):
    """The counters of one scope to look at: `Counters`, or a `Balance` of them."""

    @property
    def scope(self) -> Scope: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def limited(self) -> tuple[tuple[int, int], ...]: ...
    @property
    def committed(self) -> Sums: ...
    @property
    def reserved(self) -> Sums: ...
    @property
    def ends(self) -> datetime | None: ...


def first_refusal(found: Sequence[Counted], room: Sums, version: int) -> Refused | None:
    """What stands in the way of *room* in the first of the scopes that has no room for it; None if it fits in all."""
    for counters in found:
        committed, reserved = counters.committed, counters.reserved
        for i, limit in counters.limited:
            if committed[i] + reserved[i] + room[i] > limit:
                waiting_helps = all(c.committed[j] + room[j] <= most for c in found for j, most in c.limited)
                left = least_left(found)
                was, held = committed[i], reserved[i]
                return Refused(counters.scope, i, limit, was, held, waiting_helps, version, left, counters.ends)
    return None


def least_left(counters: Iterable[Counted]) -> Limits:
    """limit - committed - reserved in every dimension, in the scope that has least of it."""
    scopes = tuple(counters)
    return Limits._make([_least(i, scopes) for i in range(len(DIMENSIONS))])


def least_cost_left(counters: Iterable[Counted]) -> int | None:
    """As `least_left`, of the cost alone, in nano-dollars."""
    return _least(0, counters)


def _least(i: int, counters: Iterable[Counted]) -> int | None:
    least: int | None = None
    for scope in counters:
        limit = scope.limits[i]
        if limit is not None:
            left = limit - scope.committed[i] - scope.reserved[i]
            least = left if least is None or left < least else least
    return least
