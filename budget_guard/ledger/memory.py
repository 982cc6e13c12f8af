"""The default ledger: counters in this process, behind one lock."""

from __future__ import annotations

import heapq
import os
import threading
import warnings
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from itertools import groupby, islice
from operator import attrgetter
from typing import Any, NamedTuple

from budget_guard.clock import SYSTEM_CLOCK, Clock
from budget_guard.errors import ReservationConflict
from budget_guard.ledger.base import HELD, AsyncLedger, Refused, ReserveOutcome, ScopeSpend, Settled
from budget_guard.ledger.checks import check_place, check_ttl, checked_amounts, checked_lines, checked_room
from budget_guard.ledger.counters import Counters, first_refusal, least_cost_left
from budget_guard.ledger.history import (
    NO_LINES,
    CheckedLines,
    Kept,
    ScopeHistory,
    UsageLine,
    UsageQuery,
    UsageSum,
    keeps_history,
)
from budget_guard.ledger.hold import Hold, Origin, differences
from budget_guard.ledger.hold_id import right_behind
from budget_guard.ledger.memory_history import MemoryHistory
from budget_guard.ledger.rules import LedgerRules, stale
from budget_guard.ledger.verbs import InlineVerbs
from budget_guard.ledger.waiters import Waiters
from budget_guard.units.amounts import NOTHING, Amounts, Checked, Sums, unchecked
from budget_guard.units.scope import Scope

RETAINED_RUNS = 4_000
"""How many ended runs are remembered, if nothing else is said."""
KEPT_IN_MEMORY = Kept(days=62)
"""For how long the usage history of a ledger in memory is kept, if nothing else is said: last month is in it."""
_SWEPT_AT_ONCE = 8
"""Expired holds that a reserve clears away by itself."""
_FORGOTTEN_AT_ONCE = 12
"""Settled holds that a commit forgets by itself, once so many are too many. One by one would take twice as long, and
a hundred at once make one call in a hundred ten times as slow as the others."""

_MOST_TEXTS = 10_000
"""Texts that are kept with `swap`."""


class MemoryLedger(LedgerRules[Hold]):
    """Counters in this process. Every verb is one step under one lock, and none of them blocks for long.

    Args:
        clock: Where `await_room` waits, windows begin, holds expire, and revocations get their time.
        retain: How many settled holds to remember, so that a repeated verb gets the same answer. A few more are
            remembered.
        retain_runs: How many runs to remember whose sessions are gone, the latest ones, for a session that goes on
            with one. Up to an eighth more are remembered, and all that were revoked. See `keep_while`.
        history: For how long to keep what the usage history has; None to keep none.

    Raises:
        ValueError: If *history* makes no sense.
    """

    def __init__(
        self,
        *,
        clock: Clock = SYSTEM_CLOCK,
        retain: int = 10_000,
        retain_runs: int = RETAINED_RUNS,
        history: Kept | None = KEPT_IN_MEMORY,
    ) -> None:
        self._clock = clock
        self._history = None if history is None else MemoryHistory(history.check())
        self._retain = retain
        self._most_settled = retain + min(retain // 100 + 1, _FORGOTTEN_AT_ONCE)
        self.tells_cost_left = False
        """True if a commit tells `Settled.cost_left`. Set it where that is asked for after every call."""
        self._lock = threading.Lock()
        self._waiters = Waiters(clock)
        self._refused = False
        """Whether a caller was refused, and may wait, since room was given last."""
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
        self._retain_runs = retain_runs
        self._most_ended = retain_runs + retain_runs // 8 + 1
        self._users: dict[Scope, int] = {}
        """How many sessions each run has."""
        self._ended: dict[Scope, None] = {}
        """The runs that have none any more, the one that ended first at the front."""
        self._gone: deque[Scope] = deque()
        """Runs that have lost a session, noted wherever the garbage is collected: there no lock can be taken."""
        self._single_use: set[Scope] = set()
        self._forgetting: _Forgetting | None = None
        self._forgotten = ""
        """What sorts right behind every id that was made in the same millisecond as the youngest forgotten one."""
        self._texts: OrderedDict[str, tuple[str, float]] = OrderedDict()
        """What is kept with `swap`, and until when, the latest at the end."""
        self.aio: AsyncLedger = InlineVerbs(self, self._waiters.wait_async)
        _all_ledgers.add(self)

    def forked(self) -> None:
        """Go on in a child process, in which no other thread is left to give the lock back."""
        self._lock = threading.Lock()
        if type(self) is MemoryLedger:
            self.__class__ = _Copied

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
            room = None if room is None else checked_room(room)
        if ttl_s is not None:
            check_ttl(ttl_s)
        with self._lock:
            if self._torn:
                self._mend()
            holds = self._holds
            if hold_id in holds:
                holds[hold_id].must_match("reserve", scopes, amounts)
                return HELD
            if hold_id < self._forgotten:
                raise stale(hold_id)
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
                refused = first_refusal(found, room, self._waiters.times)
                if refused is not None:
                    self._refused = True
                    return refused
            hold = Hold(hold_id, asked, found, amounts, "reserve", "forwarded" if sent else "reserved")
            if self._windowed:
                hold.periods = tuple([counters.period for counters in found])
            if not suspend:
                hold.suspend = False
            self._torn = True
            for counters in found:
                counters.hold(amounts)
            holds[hold_id] = hold
            if ttl_s is not None:
                self._expire_in(hold, ttl_s)
            self._torn = False
            return HELD

    @property
    def keeps_history(self) -> bool:
        """Whether it keeps a usage history."""
        return self._history is not None

    def commit(
        self,
        hold_id: str,
        scopes: Sequence[Scope],
        amounts: Amounts,
        uncertain: bool = False,
        lines: Sequence[UsageLine] = NO_LINES,
    ) -> Settled:
        if type(amounts) is not Checked:
            amounts = checked_amounts(amounts)
        if type(lines) is not CheckedLines:
            lines = checked_lines(lines)
        with self._lock:
            if self._torn:
                self._mend()
            hold = self._holds.get(hold_id)
            if hold is None:
                hold = self._settled_at_once(hold_id, scopes, amounts, "commit")
            elif hold.scopes is not scopes or hold.origin != "reserve":
                hold.must_be_hold(scopes)
            if self._windowed:
                self._roll(hold.counters)
            was_open = hold.open
            self._torn = True
            hold.lines = lines
            try:
                changed = hold.commit(amounts, uncertain)
            except ReservationConflict:
                self._torn = False  # it changes nothing
                raise
            if changed:
                if self._history is not None:
                    self._history.note(hold)
                if was_open:
                    self._settle(hold)
                if self._refused:
                    self._give_room()
            self._torn = False
            found = hold.counters
            above: tuple[ScopeSpend, ...] = ()
            if len(found) > 1:
                above = tuple([unchecked(ScopeSpend, (each.committed, each.limits)) for each in found[1:]])
            left = least_cost_left(found) if self.tells_cost_left else None
            return unchecked(Settled, (found[0].committed, hold.charged or NOTHING, hold.uncertain, above, left))

    def keep_while(self, scope: Scope, user: object, single_use: bool = False) -> None:
        """Remember *scope* for as long as *user* lives, and then until `retain_runs` others have ended since.

        A run that is forgotten is a new one when it is opened again. What it spent stays counted in the scopes above
        it. A scope that was never given here is never forgotten, nor one that has a hold, or was revoked.

        Args:
            scope: The scope of a run.
            user: What spends from it.
            single_use: Whether it is never opened again, so that its revocation can be forgotten as well.
        """
        with self._lock:
            self._put_right()
            self._users[scope] = self._users.get(scope, 0) + 1
            self._ended.pop(scope, None)
            if single_use:
                self._single_use.add(scope)
            while self._gone:
                gone = self._gone.popleft()
                left = self._users.get(gone, 1) - 1
                if left:
                    self._users[gone] = left
                else:
                    self._users.pop(gone, None)
                    self._ended[gone] = None
            if len(self._ended) > self._most_ended:
                self._forget_runs()
        weakref.finalize(user, self._gone.append, scope).atexit = False

    def revoke(self, scope: Scope, reason: str) -> None:
        self._revoked = True
        super().revoke(scope, reason)

    def swap(self, name: str, expected: str | None, text: str | None, ttl_s: float) -> str | None:
        check_place(name)
        check_ttl(ttl_s)
        now = self._clock.monotonic()
        with self._lock:
            kept, until = self._texts.get(name, (None, 0.0))
            if kept is not None and until <= now:
                kept = None
            if kept != expected:
                return kept
            if text is None:
                self._texts.pop(name, None)
            else:
                self._texts[name] = (text, now + ttl_s)
                self._texts.move_to_end(name)
                if len(self._texts) > _MOST_TEXTS:
                    self._texts.popitem(last=False)
            return text

    def await_room(self, version: int, timeout: float) -> bool:
        return self._waiters.wait(version, timeout)

    def audit(self) -> Sequence[str]:
        with self._lock:
            self._put_right()
            found = list(self._scopes.values())
            self._roll(found)
            return differences(found, self._holds.values(), self._in_history)

    def close(self) -> None:
        """Does nothing: there is nothing to let go of."""

    # The store

    def _now(self) -> datetime:
        return self._clock.now()

    def _counters(self, scope: Scope) -> Counters | None:
        return self._scopes.get(scope)

    def _opened(self, scope: Scope) -> Counters:
        counters = self._scopes.get(scope)
        if counters is None:
            counters = Counters(scope, self._clock)
            if self._history is not None and keeps_history(scope.kind):
                counters.history = ScopeHistory(scope.kind)
            self._scopes[scope] = counters
        return counters

    def _find(self, scopes: Sequence[Scope]) -> Sequence[Counters]:
        asked = tuple(scopes)
        found = self._groups.get(asked)
        if found is None:
            found = self._groups[asked] = [self._scopes[scope] for scope in asked]
        self._roll(found)
        return found

    def _recorded(
        self, hold_id: str, scopes: Sequence[Scope], amounts: Amounts, origin: Origin, reason: str | None
    ) -> Hold:
        found = self._find(scopes)
        hold = Hold(hold_id, tuple(scopes), found, amounts, origin)
        if self._windowed:
            hold.periods = tuple([counters.period for counters in found])
        return hold

    def _note(self, hold: Hold) -> None:
        if self._history is not None:
            self._history.note(hold)

    def _in_history(self, counters: Counters) -> Amounts | None:
        return None if self._history is None else self._history.committed(counters)

    def _answer(self, query: UsageQuery) -> Sequence[UsageSum]:
        if self._history is None:
            raise ValueError("this ledger keeps no history: make it with MemoryLedger(history=Kept())")
        if query.id is None:
            return self._history.answer(
                query, [each for each in self._scopes.values() if each.scope.kind == query.kind]
            )
        found = self._scopes.get(Scope(query.kind, query.id))
        return [] if found is None else self._history.answer(query, (found,))

    def _names(self, kind: str, prefix: str) -> Iterable[str]:
        return [scope.id for scope in self._scopes if scope.kind == kind and scope.id.startswith(prefix)]

    def _must_be_young(self, hold_id: str) -> None:
        if hold_id < self._forgotten:
            raise stale(hold_id)

    def _settle(self, hold: Hold) -> None:
        self._settled.append(hold)
        if len(self._settled) >= self._most_settled:
            self._forget()

    def _forget(self) -> None:
        """Forget the oldest settled holds, several at once."""
        oldest = list(islice(self._settled, len(self._settled) - self._retain))
        forgetting = _Forgetting.of(oldest, self._windowed)
        self._forgotten = max(self._forgotten, right_behind(max(forgetting.ids)))
        self._forgetting = forgetting
        self._finish_forgetting()

    def _forget_runs(self) -> None:
        """Forget the runs that ended first, with their holds: one by one would take a search for each."""
        forgotten: set[Scope] = set()
        for scope in list(islice(self._ended, len(self._ended) - self._retain_runs)):
            counters = self._scopes.get(scope)
            if counters is None or (
                (counters.revoked is None or scope in self._single_use) and not counters.open_holds
            ):
                forgotten.add(scope)
                continue
            del self._ended[scope]  # revoked: it stays
            if counters.open_holds:
                self._ended[scope] = None  # its turn comes again
        holds = [hold for hold in self._settled if not forgotten.isdisjoint(hold.scopes)]
        self._torn = True
        self._forgetting = _Forgetting.of(holds, self._windowed, forgotten)
        self._finish_forgetting()
        self._torn = False

    def _finish_forgetting(self) -> None:
        forgetting = self._forgetting
        if forgetting is None:
            return
        for scope in forgetting.runs:
            self._scopes.pop(scope, None)
            self._single_use.discard(scope)
            self._ended.pop(scope, None)
        if forgetting.runs:
            self._groups = {asked: found for asked, found in self._groups.items() if forgetting.runs.isdisjoint(asked)}
            self._settled = deque(hold for hold in self._settled if hold.id not in forgetting.ids)
        for counters, archived in forgetting.archived:
            counters.archived = archived
        for hold_id in forgetting.ids:
            self._holds.pop(hold_id, None)
        while self._settled and self._settled[0].id in forgetting.ids:
            self._settled.popleft()
        self._forgetting = None

    def _mend(self) -> None:
        """Put right what a verb that was torn has left: recount everything from the records, which say it all."""
        self._finish_forgetting()
        if any(counters.window != "none" for counters in self._scopes.values()):
            self._windows_begin()
        for counters in self._scopes.values():
            counters.committed, counters.reserved, counters.open_holds = counters.archived, NOTHING, 0
        for hold in self._holds.values():
            hold.mend()
            for counters in hold.counted_in():
                if hold.open:
                    counters.hold(hold.amounts)
                elif hold.charged is not None:
                    counters.book(hold.charged)
        if self._history is not None:
            self._history.mend(self._holds.values())
        listed = {hold.id for hold in self._settled}
        lost = [hold for hold in self._holds.values() if not hold.open and hold.id not in listed]
        self._settled.extendleft(reversed(lost))
        self._expiries = self._expiries_anew()
        self._give_room()
        self._torn = False

    def _expire_in(self, hold: Hold, ttl_s: float) -> None:
        hold.expires = self._clock.monotonic() + ttl_s
        heapq.heappush(self._expiries, (hold.expires, hold.id))
        if len(self._expiries) > 2 * len(self._holds) + 1_000:  # settled holds leave their entry behind
            self._expiries = self._expiries_anew()

    def _expiries_anew(self) -> list[tuple[float, str]]:
        """The times at which open holds expire, as a heap."""
        expiries = [(each.expires, each.id) for each in self._holds.values() if each.open and each.expires is not None]
        heapq.heapify(expiries)
        return expiries

    def _due(self, most: int) -> Iterable[Hold]:
        now = self._clock.monotonic()
        while most > 0 and self._expiries and self._expiries[0][0] <= now:
            expires, hold_id = heapq.heappop(self._expiries)
            hold = self._holds.get(hold_id)
            if hold is not None and hold.open and hold.expires == expires and hold.state != "suspended":
                most -= 1
                yield hold

    def _suspended(self, most: int) -> Iterable[Hold]:
        suspended = [hold for hold in self._holds.values() if hold.state == "suspended"]
        return sorted(suspended, key=attrgetter("suspended_at"))[:most]

    def _refusal(self, found: Sequence[Counters], room: Sums) -> Refused | None:
        self._refused = True
        return first_refusal(found, room, self._waiters.times)

    def _give_room(self) -> None:
        self._waiters.give()
        self._refused = False

    def _roll(self, counters: Sequence[Counters]) -> None:
        if self._windowed:
            for each in counters:
                each.roll()

    def _windows_begin(self) -> None:
        if not self._windowed:
            for hold in self._holds.values():
                hold.periods = (0,) * len(hold.counters)
            self._windowed = True


class _Forgetting(NamedTuple):
    """Settled holds that are being forgotten. Once it is noted it can be finished, however often it is torn."""

    ids: frozenset[str]
    archived: Sequence[tuple[Counters, Sums]]
    """What is archived in each scope then."""
    runs: AbstractSet[Scope]
    """The runs that are forgotten with them."""

    @classmethod
    def of(cls, holds: Sequence[Hold], windowed: bool, runs: AbstractSet[Scope] = frozenset()) -> _Forgetting:
        groups: Iterable[tuple[Iterable[Counters], Iterable[Hold]]] = groupby(holds, attrgetter("counters"))
        if windowed:
            groups = [(hold.counted_in(), (hold,)) for hold in holds]
        archived: dict[Counters, Sums] = {}
        for found, group in groups:
            charges = [hold.charged for hold in group if hold.charged is not None]
            spent = Amounts._make(map(sum, zip(NOTHING, *charges, strict=True)))
            for counters in found:
                archived[counters] = spent.plus(archived.get(counters, counters.archived))
        return cls(frozenset([hold.id for hold in holds]), list(archived.items()), runs)


class _Copied(MemoryLedger):
    """A ledger that a fork has copied, until it is asked for room: both processes give out what was left of it."""

    def reserve(self, *args: Any, **kwargs: Any) -> ReserveOutcome:
        object.__setattr__(self, "__class__", MemoryLedger)
        warnings.warn(
            "a budget in memory was copied by a fork, and what this process spends counts in this process alone: each "
            'copy may spend all that was left. To share the counters, use ledger="sqlite:///budget.db" with a run_id, '
            'or BudgetAuthority(ledger=open_ledger("sqlite:///budget.db"))',
            RuntimeWarning,
            stacklevel=2,
        )
        return self.reserve(*args, **kwargs)


_all_ledgers: weakref.WeakSet[MemoryLedger] = weakref.WeakSet()


def _forked() -> None:
    for ledger in list(_all_ledgers):
        ledger.forked()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forked)
