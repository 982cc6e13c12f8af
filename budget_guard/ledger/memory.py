"""The default ledger: counters in this process, behind one lock."""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter

from budget_guard.clock import SYSTEM_CLOCK, Clock
from budget_guard.errors import ForeignRun, StaleReservation, UnknownReservation
from budget_guard.ledger.base import (
    HELD,
    AsyncLedger,
    Balance,
    Refused,
    ReserveOutcome,
    Revoked,
    Settled,
    Suspended,
)
from budget_guard.ledger.checks import check_limits, check_ttl, checked_amounts, checked_change
from budget_guard.ledger.counters import Counters, first_refusal
from budget_guard.ledger.hold import Hold, Term, Verb, differences
from budget_guard.ledger.inline import InlineLedger
from budget_guard.ledger.waiters import Waiters
from budget_guard.units.amounts import NOTHING, Amounts, Checked, Limits, Sums, unchecked
from budget_guard.units.scope import Scope, Window

_SWEPT_AT_ONCE = 8
"""Expired holds that a reserve clears away by itself."""


class MemoryLedger:
    """Counters in this process. Every verb is one step under one lock, and none of them blocks for long.

    Args:
        clock: Where `await_room` waits, windows begin, holds expire, and revocations get their time.
        retain: How many settled holds to remember, so that a repeated verb gets the same answer. Up to a hundredth
            more are remembered.
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK, retain: int = 10_000) -> None:
        self._clock = clock
        self._retain = retain
        self._most_settled = retain + retain // 100 + 1
        self._lock = threading.Lock()
        self._room = Waiters(clock)
        self._refused = False
        """Whether somebody was refused, and may wait, since room was given last."""
        self._scopes: dict[Scope, Counters] = {}
        self._groups: dict[tuple[Scope, ...], Sequence[Counters]] = {}
        """The counters of scopes that were asked for together, found once: the calls of a run ask for the same ones."""
        self._windowed = False
        """Whether a scope has had a window."""
        self._revoked = False
        """Whether a scope was ever revoked."""
        self._holds: dict[str, Hold] = {}
        self._settled: deque[Hold] = deque()
        self._expiries: list[tuple[float, str]] = []
        self._forgotten = ""
        """What sorts right behind every id that was made in the same millisecond as the youngest forgotten one."""
        self.aio: AsyncLedger = InlineLedger(self, self._room.wait_async)

    def set_limits(self, scope: Scope, limits: Limits, window: Window = "none", owner: str = "") -> None:
        check_limits(limits)
        with self._lock:
            counters = self._opened(scope)
            if counters.owner is not None and counters.owner != owner:
                raise ForeignRun(scope=str(scope))
            counters.owner = owner
            counters.roll()
            counters.set_limits(limits, window)
            if window != "none" and not self._windowed:
                self._windowed = True
                for hold in self._holds.values():
                    hold.periods = (0,) * len(hold.counters)
            self._give_room()

    def reserve(
        self,
        hold_id: str,
        scopes: Sequence[Scope],
        amounts: Amounts,
        room: Sums | None,
        ttl_s: float | None = None,
        suspend: bool = True,
        sent: bool = False,
    ) -> ReserveOutcome:
        if type(amounts) is not Checked:
            amounts = checked_amounts(amounts)
            room = None if room is None else checked_amounts(room)
        if ttl_s is not None:
            check_ttl(ttl_s)
        with self._lock:
            holds = self._holds
            if hold_id in holds:
                holds[hold_id].must_match("reserve", scopes, amounts)
                return HELD
            if hold_id < self._forgotten:
                raise _stale(hold_id)
            if self._expiries and self._expiries[0][0] <= self._clock.monotonic():
                self._sweep(_SWEPT_AT_ONCE)
            asked = tuple(scopes)
            found = self._groups.get(asked)
            if found is None or self._windowed:
                found = self._find(asked)
            if self._revoked:
                for counters in found:
                    if counters.revoked is not None:
                        return counters.revoked
            if room is not None:
                refused = first_refusal(found, room, self._room.times)
                if refused is not None:
                    self._refused = True
                    return refused
            hold = holds[hold_id] = Hold(hold_id, asked, found, amounts, "reserve", "forwarded" if sent else "reserved")
            for counters in found:
                counters.hold(amounts)
            if self._windowed:
                hold.periods = tuple([counters.period for counters in found])
            if ttl_s is not None or not suspend:
                hold.term = Term(suspend)
                if ttl_s is not None:
                    self._expire_in(hold, ttl_s)
            return HELD

    def forward(self, hold_id: str) -> None:
        with self._lock:
            hold = self._hold(hold_id)
            hold.forward()

    def extend(self, hold_id: str, ttl_s: float) -> bool:
        check_ttl(ttl_s)
        with self._lock:
            hold = self._hold(hold_id)
            if not hold.open:
                return False
            self._expire_in(hold, ttl_s)
            if hold.state == "suspended":
                hold.state = "forwarded"
            return True

    def commit(self, hold_id: str, scopes: Sequence[Scope], amounts: Amounts, uncertain: bool = False) -> Settled:
        if type(amounts) is not Checked:
            amounts = checked_amounts(amounts)
        with self._lock:
            hold = self._holds.get(hold_id)
            if hold is None:
                hold = self._lost(hold_id, scopes, amounts, "commit")
            elif hold.scopes is not scopes or hold.verb != "reserve":
                hold.must_be_hold(scopes)
            if self._windowed:
                _roll(hold.counters)
            was_open = hold.open
            if hold.commit(amounts, uncertain):
                if was_open:
                    self._settle(hold)
                if self._refused:
                    self._give_room()
            return unchecked(Settled, (hold.counters[0].committed, hold.charged or NOTHING, hold.uncertain))

    def release(self, hold_id: str, scopes: Sequence[Scope]) -> bool:
        with self._lock:
            hold = self._holds.get(hold_id)
            if hold is None:
                self._lost(hold_id, scopes, NOTHING, "release")
                return False
            hold.must_be_hold(scopes)
            if self._windowed:
                _roll(hold.counters)
            if not hold.open:
                return False
            hold.free("released")
            self._settle(hold)
            self._give_room()
            return True

    def charge(self, charge_id: str, scopes: Sequence[Scope], amounts: Amounts) -> Refused | None:
        amounts = checked_amounts(amounts)
        with self._lock:
            found = self._find(scopes)
            known = self._holds.get(charge_id)
            if known is None:
                self._lost(charge_id, scopes, amounts, "charge").commit(amounts, uncertain=False)
            else:
                known.must_match("charge", scopes, amounts)
            self._refused = True
            return first_refusal(found, NOTHING, self._room.times)

    def adjust(self, adjust_id: str, scope: Scope, change: Amounts, reason: str) -> Amounts:
        change = checked_change(change)
        with self._lock:
            counters = self._find((scope,))[0]
            known = self._holds.get(adjust_id)
            if known is not None:
                known.must_match("adjust", (scope,), change)
                return Amounts._make(counters.committed)
            self._must_be_young(adjust_id)
            then = change.plus(Amounts._make(counters.committed))
            if min(then) < 0:
                raise ValueError(f"change={change} would leave less than nothing committed in {scope}: {then}")
            self._lost(adjust_id, (scope,), change, "adjust").commit(change, uncertain=False)
            self._give_room()
            return then

    def await_room(self, version: int, timeout: float) -> bool:
        return self._room.wait(version, timeout)

    def balances(self, scopes: Sequence[Scope]) -> Sequence[Balance]:
        with self._lock:
            return [counters.balance() for counters in self._find(scopes)]

    def revoke(self, scope: Scope, reason: str) -> None:
        at = self._clock.now()
        with self._lock:
            counters = self._opened(scope)
            if counters.revoked is None:
                counters.revoked = Revoked(scope, reason, at)
                self._revoked = True
            self._give_room()  # whoever waits shall hear of it

    def restore(self, scope: Scope) -> bool:
        with self._lock:
            counters = self._scopes.get(scope)
            if counters is None or counters.revoked is None:
                return False
            counters.revoked = None
            return True

    def sweep(self, most: int = 1_000) -> int:
        with self._lock:
            return self._sweep(most)

    def suspended(self, most: int = 1_000) -> Sequence[Suspended]:
        with self._lock:
            found = [
                Suspended(hold.id, hold.scopes, hold.amounts, hold.term.suspended_at)
                for hold in self._holds.values()
                if hold.state == "suspended" and hold.term is not None and hold.term.suspended_at is not None
            ]
        return sorted(found, key=lambda each: each.since)[:most]

    def audit(self) -> Sequence[str]:
        with self._lock:
            _roll(list(self._scopes.values()))
            return differences(self._scopes.values(), self._holds.values())

    def close(self) -> None:
        """Does nothing: there is nothing to let go of."""

    def _give_room(self) -> None:
        self._refused = False
        self._room.give()

    def _opened(self, scope: Scope) -> Counters:
        counters = self._scopes.get(scope)
        if counters is None:
            counters = self._scopes[scope] = Counters(scope, self._clock)
        return counters

    def _find(self, scopes: Sequence[Scope]) -> Sequence[Counters]:
        asked = tuple(scopes)
        found = self._groups.get(asked)
        if found is None:
            found = self._groups[asked] = [self._scopes[scope] for scope in asked]
        if self._windowed:
            _roll(found)
        return found

    def _hold(self, hold_id: str) -> Hold:
        hold = self._holds.get(hold_id)
        if hold is None:
            self._must_be_young(hold_id)
            raise UnknownReservation(reservation_id=hold_id, detail="was never made; nothing was changed")
        hold.must_be_hold()
        return hold

    def _must_be_young(self, hold_id: str) -> None:
        if hold_id < self._forgotten:
            raise _stale(hold_id)

    def _lost(self, hold_id: str, scopes: Sequence[Scope], amounts: Amounts, verb: Verb) -> Hold:
        """A record for what the ledger hears of for the first time, and holds nothing for."""
        self._must_be_young(hold_id)
        found = self._find(scopes)
        hold = self._holds[hold_id] = Hold(hold_id, tuple(scopes), found, amounts, verb)
        if self._windowed:
            hold.periods = tuple([counters.period for counters in found])
        self._settle(hold)
        return hold

    def _settle(self, hold: Hold) -> None:
        self._settled.append(hold)
        if len(self._settled) >= self._most_settled:
            self._forget()

    def _forget(self) -> None:
        """Forget the oldest settled holds, many at once: one by one would take twice as long."""
        oldest = [self._settled.popleft() for _ in range(len(self._settled) - self._retain)]
        for hold in oldest:
            del self._holds[hold.id]
        youngest = max(hold.id for hold in oldest)
        self._forgotten = max(self._forgotten, f"{youngest[:12]}.")  # a dot sorts behind the hyphen in an id
        if self._windowed:
            for hold in oldest:
                if hold.charged is not None:
                    for counters in hold.counted_in():
                        counters.archive([hold.charged])
            return
        for found, holds in groupby(oldest, attrgetter("counters")):
            charges = [hold.charged for hold in holds if hold.charged is not None]
            for counters in found:
                counters.archive(charges)

    def _expire_in(self, hold: Hold, ttl_s: float) -> None:
        term = hold.term = hold.term or Term(True)
        term.expires = self._clock.monotonic() + ttl_s
        heapq.heappush(self._expiries, (term.expires, hold.id))
        if len(self._expiries) > 2 * len(self._holds) + 1_000:  # settled holds leave their entry behind
            self._expiries = [
                (each.term.expires, each.id)
                for each in self._holds.values()
                if each.open and each.term is not None and each.term.expires is not None
            ]
            heapq.heapify(self._expiries)

    def _sweep(self, most: int) -> int:
        now, swept = self._clock.monotonic(), 0
        while swept < most and self._expiries and self._expiries[0][0] <= now:
            expires, hold_id = heapq.heappop(self._expiries)
            hold = self._holds.get(hold_id)
            term = None if hold is None else hold.term
            if hold is None or term is None or not hold.open or term.expires != expires or hold.state == "suspended":
                continue
            swept += 1
            if hold.state == "forwarded" and term.suspend:
                hold.state = "suspended"
                term.suspended_at = self._clock.now()
            else:
                if self._windowed:
                    _roll(hold.counters)
                hold.free("expired")
                self._settle(hold)
                self._give_room()
        return swept


def _stale(hold_id: str) -> StaleReservation:
    return StaleReservation(
        reservation_id=hold_id, detail="is older than what the ledger remembers; nothing was changed"
    )


def _roll(counters: Sequence[Counters]) -> None:
    for each in counters:
        each.roll()
