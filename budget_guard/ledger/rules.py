"""The rules of the verbs in Python, over counters and holds that a store keeps.

`MemoryLedger` keeps them in dictionaries, `SqliteVerbs` in the rows of one transaction; for Redis the same rules are
written in Lua. `reserve` and `commit`, which every call makes, are not here: each store has its own, the one in memory
without a step too many.

A signal may tear a verb of a ledger in memory anywhere: Ctrl-C is an exception out of the middle of it. So `_torn` is
set while a verb changes anything, and where the next one finds it set, it puts right what it finds first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Generic, TypeVar

from budget_guard.errors import ForeignRun, StaleReservation, UnknownReservation
from budget_guard.ledger.base import Balance, Refused, Revoked, Suspended
from budget_guard.ledger.checks import (
    check_limits,
    check_query,
    check_ttl,
    checked_amounts,
    checked_change,
    checked_lines,
)
from budget_guard.ledger.counters import Counters
from budget_guard.ledger.history import NO_LINES, UsageLine, UsageQuery, UsageSum
from budget_guard.ledger.hold import Hold, Origin, State
from budget_guard.units.amounts import NOTHING, Amounts, Limits, Sums
from budget_guard.units.scope import Scope, Window

H = TypeVar("H", bound=Hold)


class LedgerRules(ABC, Generic[H]):
    """The verbs of `Ledger` over a store. The store is the subclass: what it keeps and how is abstract here."""

    _lock: AbstractContextManager[object]
    """Keeps other verbs from the store."""
    _holds: dict[str, H]
    """The holds, charges and adjustments that are remembered."""
    _torn = False
    """Whether a verb is changing something, or was torn while it did."""

    # The verbs

    def set_limits(
        self, scope: Scope, limits: Limits, window: Window = "none", owner: str = "", note: str = ""
    ) -> None:
        check_limits(limits)
        with self._lock:
            self._put_right()
            counters = self._opened(scope)
            if counters.owner is not None and counters.owner != owner:
                raise ForeignRun(scope=str(scope))
            self._torn = True
            counters.roll()
            counters.set_limits(limits, window)
            if window != "none":
                self._windows_begin()
            counters.owner = owner
            counters.note = note
            self._give_room()
            self._torn = False

    def forward(self, hold_id: str) -> None:
        with self._lock:
            self._put_right()
            self._hold(hold_id).forward()

    def extend(self, hold_id: str, ttl_s: float) -> bool:
        check_ttl(ttl_s)
        with self._lock:
            self._put_right()
            hold = self._hold(hold_id)
            if not hold.open:
                return False
            self._torn = True
            self._expire_in(hold, ttl_s)
            if hold.state == "suspended":
                hold.state = "forwarded"
            self._torn = False
            return True

    def release(self, hold_id: str, scopes: Sequence[Scope]) -> bool:
        with self._lock:
            self._put_right()
            hold = self._holds.get(hold_id)
            if hold is None:
                self._settled_at_once(hold_id, scopes, NOTHING, "release")
                self._torn = False
                return False
            hold.must_be_hold(scopes)
            self._roll(hold.counters)
            if not hold.open:
                return False
            self._free(hold, "released")
            self._torn = False
            return True

    def charge(
        self, charge_id: str, scopes: Sequence[Scope], amounts: Amounts, lines: Sequence[UsageLine] = NO_LINES
    ) -> Refused | None:
        amounts, lines = checked_amounts(amounts), checked_lines(lines)
        with self._lock:
            self._put_right()
            found = self._find(scopes)
            known = self._holds.get(charge_id)
            if known is None:
                hold = self._settled_at_once(charge_id, scopes, amounts, "charge")
                hold.lines = lines
                hold.commit(amounts, uncertain=False)
                self._note(hold)
                self._torn = False
            else:
                known.must_match("charge", scopes, amounts)
            return self._refusal(found, NOTHING)

    def adjust(self, adjust_id: str, scope: Scope, change: Amounts, reason: str) -> Amounts:
        change = checked_change(change)
        with self._lock:
            self._put_right()
            counters = self._find((scope,))[0]
            known = self._holds.get(adjust_id)
            if known is not None:
                known.must_match("adjust", (scope,), change)
                return Amounts._make(counters.committed)
            self._must_be_young(adjust_id)
            then = change.plus(Amounts._make(counters.committed))
            if min(then) < 0:
                raise ValueError(f"change={change} would leave less than nothing committed in {scope}: {then}")
            hold = self._settled_at_once(adjust_id, (scope,), change, "adjust", reason)
            hold.commit(change, uncertain=False)
            self._note(hold)
            self._give_room()
            self._torn = False
            return then

    def balances(self, scopes: Sequence[Scope]) -> Sequence[Balance]:
        with self._lock:
            self._put_right()
            return [counters.balance() for counters in self._find(scopes)]

    def usage(self, query: UsageQuery) -> Sequence[UsageSum]:
        check_query(query)
        with self._lock:
            self._put_right()
            return self._answer(query)

    def names(self, kind: str, prefix: str = "") -> Sequence[str]:
        with self._lock:
            return sorted(self._names(kind, prefix))

    def revoke(self, scope: Scope, reason: str) -> None:
        with self._lock:
            self._put_right()
            counters = self._opened(scope)
            self._torn = True
            if counters.revoked is None:
                counters.revoked = Revoked(scope, reason, self._now())
            self._give_room()  # who waits shall hear of it
            self._torn = False

    def restore(self, scope: Scope) -> bool:
        with self._lock:
            counters = self._counters(scope)
            if counters is None or counters.revoked is None:
                return False
            counters.revoked = None
            return True

    def sweep(self, most: int = 1_000) -> int:
        with self._lock:
            self._put_right()
            return self._sweep(most)

    def suspended(self, most: int = 1_000) -> Sequence[Suspended]:
        with self._lock:
            self._put_right()
            return [
                Suspended(hold.id, hold.scopes, hold.amounts, hold.suspended_at)
                for hold in self._suspended(most)
                if hold.suspended_at is not None
            ]

    # What they have in common

    def _hold(self, hold_id: str) -> H:
        """The hold of that id, which must be known."""
        hold = self._holds.get(hold_id)
        if hold is None:
            self._must_be_young(hold_id)
            raise UnknownReservation(reservation_id=hold_id, detail="was never made; nothing was changed")
        hold.must_be_hold()
        return hold

    def _settled_at_once(
        self, hold_id: str, scopes: Sequence[Scope], amounts: Amounts, origin: Origin, reason: str | None = None
    ) -> H:
        """A new record of what holds nothing: a charge, an adjustment, or a hold that was never seen or lost.

        It leaves `_torn` set, for the caller has more to change.
        """
        self._must_be_young(hold_id)
        recorded = self._recorded(hold_id, scopes, amounts, origin, reason)
        self._torn = True
        hold = self._holds[hold_id] = recorded
        self._settle(hold)
        return hold

    def _free(self, hold: H, state: State) -> None:
        """Give an open hold back, unspent. It leaves `_torn` set."""
        self._torn = True
        hold.free(state)
        self._settle(hold)
        self._give_room()

    def _sweep(self, most: int) -> int:
        """Suspend or free at most *most* holds whose time is up; return how many."""
        swept = 0
        self._torn = True
        for hold in self._due(most):
            swept += 1
            if hold.state == "forwarded" and hold.suspend:
                hold.suspended_at = self._now()
                hold.state = "suspended"
            else:
                self._roll(hold.counters)
                self._free(hold, "expired")
        self._torn = False
        return swept

    def _put_right(self) -> None:
        if self._torn:
            self._mend()

    def _mend(self) -> None:
        """Put right what a verb that was torn has left, where a verb can be torn at all."""

    # What a store does in its own way

    @abstractmethod
    def _now(self) -> datetime:
        """The ledger's own time."""

    @abstractmethod
    def _counters(self, scope: Scope) -> Counters | None:
        """The counters of *scope*; None if it was never opened."""

    @abstractmethod
    def _opened(self, scope: Scope) -> Counters:
        """The counters of *scope*, which is opened if it is new."""

    @abstractmethod
    def _find(self, scopes: Sequence[Scope]) -> Sequence[Counters]:
        """The counters of *scopes*, in their present windows.

        Raises:
            KeyError: If one was never opened.
        """

    @abstractmethod
    def _recorded(
        self, hold_id: str, scopes: Sequence[Scope], amounts: Amounts, origin: Origin, reason: str | None
    ) -> H:
        """A record that is not open.

        Raises:
            KeyError: If a scope was never opened.
        """

    @abstractmethod
    def _must_be_young(self, hold_id: str) -> None:
        """Check that an id which is not known may be a new one.

        Raises:
            StaleReservation: If it is older than what is remembered.
        """

    @abstractmethod
    def _settle(self, hold: H) -> None:
        """Note that *hold* is settled now: it may be forgotten, oldest first."""

    @abstractmethod
    def _expire_in(self, hold: H, ttl_s: float) -> None:
        """Note that the time of *hold* is up in *ttl_s* seconds."""

    @abstractmethod
    def _due(self, most: int) -> Iterable[H]:
        """At most *most* holds whose time is up and which are not suspended."""

    @abstractmethod
    def _suspended(self, most: int) -> Iterable[H]:
        """At most *most* suspended holds, oldest first."""

    @abstractmethod
    def _refusal(self, found: Sequence[Counters], room: Sums) -> Refused | None:
        """The first limit in the way of *room*, as `first_refusal`: the caller may wait for room then."""

    @abstractmethod
    def _note(self, hold: H) -> None:
        """Bring the usage history up to date with what is booked for *hold*."""

    @abstractmethod
    def _answer(self, query: UsageQuery) -> Sequence[UsageSum]:
        """What the usage history has for *query*."""

    @abstractmethod
    def _names(self, kind: str, prefix: str) -> Iterable[str]:
        """The ids of the scopes of a kind that begin with *prefix*."""

    @abstractmethod
    def _give_room(self) -> None:
        """Note that something was given back, or that who waits shall look again."""

    def _roll(self, counters: Sequence[Counters]) -> None:
        """Begin the next window of each of *counters* if it has begun, where the store has not done it before."""

    def _windows_begin(self) -> None:
        """Note that a scope has a window, where that matters to the store."""


def stale(hold_id: str) -> StaleReservation:
    """The error for an id that is older than what the ledger remembers."""
    return StaleReservation(
        reservation_id=hold_id, detail="is older than what the ledger remembers; nothing was changed"
    )
