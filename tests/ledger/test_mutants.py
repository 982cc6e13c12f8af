"""The simulation finds what it is for: each of these broken ledgers is caught within a few histories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

from budget_guard.errors import UnknownReservation
from budget_guard.ledger import MemoryLedger, Refused, ReserveOutcome, Settled, memory
from budget_guard.ledger.base import HELD
from budget_guard.ledger.counters import Counters, first_refusal, least_left
from budget_guard.ledger.hold import Hold, Origin
from budget_guard.ledger.memory_history import MemoryHistory
from budget_guard.units.amounts import NOTHING, Amounts, Limits, Sums
from budget_guard.units.scope import Scope, Window
from tests.ledger.observer import Violation
from tests.ledger.simulation import Simulation
from tests.ledger.test_simulation import forgetful, remembering

HISTORIES = 60
Mutant = tuple[type | ModuleType, str, Callable[..., Any]]
MUTANTS: dict[str, Mutant] = {}


def mutant(owner: type | ModuleType, function: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Break *function* of a class or a module in the way that the decorated one does."""

    def note(broken: Callable[..., Any]) -> Callable[..., Any]:
        MUTANTS[broken.__name__] = (owner, function, broken)
        return broken

    return note


def refusal_where(blocks: Callable[[Counters, int, int, Amounts], bool]) -> Callable[..., Refused | None]:
    """As `first_refusal`, by another rule for what a limit of a scope blocks."""

    def first(found: Sequence[Counters], room: Amounts, version: int) -> Refused | None:
        for counters in found:
            for i, limit in counters.limited:
                if blocks(counters, i, limit, room):
                    then = counters.committed[i], counters.reserved[i], False, version, least_left(found)
                    return Refused(counters.scope, i, limit, *then)
        return None

    return first


RULES: dict[str, Callable[[Counters, int, int, Amounts], bool]] = {
    "ignores_what_is_reserved": lambda c, i, limit, room: c.committed[i] + room[i] > limit,
    "ignores_what_is_committed": lambda c, i, limit, room: c.reserved[i] + room[i] > limit,
    "lets_one_more_in": lambda c, i, limit, room: c.committed[i] + c.reserved[i] + room[i] > limit + 1,
    "refuses_the_last_one": lambda c, i, limit, room: c.committed[i] + c.reserved[i] + room[i] >= limit,
}
MUTANTS |= {name: (memory, "first_refusal", refusal_where(rule)) for name, rule in RULES.items()}


def plus(sums: Sums, more: Sums) -> Sums:
    return Amounts._make(sums).plus(Amounts._make(more))


@mutant(Counters, "hold")
def counts_no_holds(self: Counters, amounts: Amounts) -> None:
    self.reserved = plus(self.reserved, amounts)


settle = Counters.settle


@mutant(Counters, "settle")
def keeps_the_rest_of_a_hold(self: Counters, held: Amounts, spent: Amounts) -> None:
    settle(self, spent if spent is not NOTHING else held, spent)


@mutant(Counters, "settle")
def caps_the_charge_at_the_hold(self: Counters, held: Amounts, spent: Amounts) -> None:
    settle(self, held, Amounts._make(map(min, held, spent)))


@mutant(Counters, "book")
def adds_the_actual_to_the_estimate(self: Counters, spent: Amounts, replaced: Amounts = NOTHING) -> None:
    self.committed = plus(self.committed, spent)


@mutant(Counters, "roll")
def takes_holds_along_into_the_next_window(self: Counters) -> None:
    before = self.period
    roll(self)
    self.period = before


@mutant(Counters, "roll")
def forgets_holds_without_a_window(self: Counters) -> None:
    roll(self)
    self.period += self.window == "none"


@mutant(Counters, "roll")
def goes_back_with_the_clock(self: Counters) -> None:
    roll(self)
    if self.start is not None and self._clock.now() < self.start:
        self._begin(self.window)


roll = Counters.roll


@mutant(Hold, "commit")
def drops_what_comes_late(self: Hold, amounts: Amounts, uncertain: bool) -> bool:
    if self.state in ("released", "expired") and self.origin == "reserve":
        return False
    return commit_hold(self, amounts, uncertain)


@mutant(Hold, "commit")
def gives_back_twice(self: Hold, amounts: Amounts, uncertain: bool) -> bool:
    self.open = self.open or self.state in ("released", "expired")
    return commit_hold(self, amounts, uncertain)


@mutant(Hold, "commit")
def charges_again(self: Hold, amounts: Amounts, uncertain: bool) -> bool:
    if self.charged == amounts:
        for counters in self.counters:
            counters.book(amounts)
    return commit_hold(self, amounts, uncertain)


@mutant(Hold, "commit")
def puts_the_estimate_back(self: Hold, amounts: Amounts, uncertain: bool) -> bool:
    self.uncertain = self.uncertain or uncertain
    return commit_hold(self, amounts, uncertain and self.charged is None)


@mutant(Hold, "commit")
def charges_the_first_scope_alone(self: Hold, amounts: Amounts, uncertain: bool) -> bool:
    changed = commit_hold(self, amounts, uncertain)
    for counters in self.counters[1:] if changed else ():
        counters.book(NOTHING, amounts)
    return changed


commit_hold = Hold.commit


@mutant(Hold, "free")
def frees_the_first_scope_alone(self: Hold, state: Any) -> None:
    self.counters[0].settle(self.amounts, NOTHING)
    self.state, self.open = state, False


@mutant(Hold, "forward")
def sends_what_has_expired(self: Hold) -> None:
    if self.state == "reserved":
        self.state = "forwarded"


@mutant(MemoryLedger, "reserve")
def holds_again(
    self: MemoryLedger, hold_id: str, scopes: Sequence[Scope], amounts: Amounts, *more: Any
) -> ReserveOutcome:
    known = self._holds.get(hold_id)
    if known is not None and known.open:
        for counters in known.counters:
            counters.hold(amounts)
        return HELD
    return reserve(self, hold_id, scopes, amounts, *more)


@mutant(MemoryLedger, "reserve")
def decides_anew_when_asked_again(
    self: MemoryLedger, hold_id: str, scopes: Sequence[Scope], amounts: Amounts, *more: Any
) -> ReserveOutcome:
    if hold_id in self._holds:
        return first_refusal(self._find(scopes), amounts, self._waiters.times) or HELD
    return reserve(self, hold_id, scopes, amounts, *more)


@mutant(MemoryLedger, "reserve")
def lets_the_revoked_in(self: MemoryLedger, hold_id: str, scopes: Sequence[Scope], *more: Any) -> ReserveOutcome:
    revoked = {scope: self._scopes[scope].revoked for scope in scopes}
    for scope in scopes:
        self._scopes[scope].revoked = None
    outcome = reserve(self, hold_id, scopes, *more)
    for scope in scopes:
        self._scopes[scope].revoked = revoked[scope]
    return outcome


reserve = MemoryLedger.reserve


@mutant(memory, "first_refusal")
def keeps_what_it_held_before_it_refused(found: Sequence[Counters], room: Amounts, version: int) -> Refused | None:
    refused = first_refusal(found, room, version)
    for counters in found:
        if refused is None or counters.scope == refused.scope:
            break
        counters.hold(room)
    return refused


@mutant(MemoryLedger, "commit")
def does_not_charge_what_it_lost(self: MemoryLedger, hold_id: str, *more: Any) -> Settled:
    if hold_id not in self._holds:
        raise UnknownReservation(reservation_id=hold_id, detail="was never made")
    return commit(self, hold_id, *more)


commit = MemoryLedger.commit


@mutant(MemoryLedger, "release")
def keeps_no_tombstone(self: MemoryLedger, hold_id: str, scopes: Sequence[Scope]) -> bool:
    return hold_id in self._holds and release(self, hold_id, scopes)


@mutant(MemoryLedger, "release")
def refunds_what_is_committed(self: MemoryLedger, hold_id: str, scopes: Sequence[Scope]) -> bool:
    known = self._holds.get(hold_id)
    if known is not None and known.charged is not None:
        for counters in known.counters:
            counters.book(NOTHING, known.charged)
        known.charged, known.state = None, "released"
    return release(self, hold_id, scopes)


release = MemoryLedger.release


@mutant(MemoryLedger, "charge")
def charges_twice(self: MemoryLedger, charge_id: str, scopes: Sequence[Scope], amounts: Amounts, *lines: Any) -> Any:
    self._holds.pop(charge_id, None)
    return charge(self, charge_id, scopes, amounts, *lines)


charge = MemoryLedger.charge


@mutant(MemoryLedger, "adjust")
def adjusts_twice(self: MemoryLedger, adjust_id: str, scope: Scope, change: Amounts, reason: str) -> Amounts:
    self._holds.pop(adjust_id, None)
    return adjust(self, adjust_id, scope, change, reason)


adjust = MemoryLedger.adjust


@mutant(MemoryLedger, "set_limits")
def adds_when_it_is_opened_again(self: MemoryLedger, scope: Scope, limits: Limits, window: Window = "none") -> None:
    set_limits(self, scope, limits, window)
    self._scopes[scope].committed = plus(self._scopes[scope].committed, self._scopes[scope].committed)


@mutant(MemoryLedger, "set_limits")
def restores_when_it_is_opened_again(self: MemoryLedger, scope: Scope, limits: Limits, window: Window = "none") -> None:
    set_limits(self, scope, limits, window)
    self._scopes[scope].revoked = None


set_limits = MemoryLedger.set_limits


@mutant(MemoryLedger, "_sweep")
def frees_what_was_sent(self: MemoryLedger, most: int) -> int:
    for hold in self._holds.values():
        hold.suspend = False
    return sweep(self, most)


@mutant(MemoryLedger, "_sweep")
def suspends_what_was_never_sent(self: MemoryLedger, most: int) -> int:
    for hold in self._holds.values():
        if hold.state == "reserved" and hold.expires is not None and hold.expires <= self._clock.monotonic():
            hold.state, hold.suspend = "forwarded", True
    return sweep(self, most)


@mutant(MemoryLedger, "_sweep")
def expires_what_was_extended(self: MemoryLedger, most: int) -> int:
    for expires, hold_id in self._expiries:
        hold = self._holds.get(hold_id)
        if hold is not None and hold.expires is not None:
            hold.expires = min(expires, hold.expires)
    return sweep(self, most)


sweep = MemoryLedger._sweep


@mutant(MemoryLedger, "_must_be_young")
def takes_what_it_forgot_for_new(self: MemoryLedger, hold_id: str) -> None:
    return None


@mutant(MemoryLedger, "_forget")
def does_not_archive_what_it_forgets(self: MemoryLedger) -> None:
    while len(self._settled) > self._retain:
        oldest = self._settled.popleft()
        del self._holds[oldest.id]
        self._forgotten = max(self._forgotten, f"{oldest.id[:12]}.")


@mutant(MemoryLedger, "_forget")
def forgets_what_is_open(self: MemoryLedger) -> None:
    forget(self)
    if len(self._holds) > self._retain:
        oldest = self._holds.pop(next(iter(self._holds)))
        self._forgotten = max(self._forgotten, f"{oldest.id[:12]}.")


forget = MemoryLedger._forget


@mutant(MemoryLedger, "_settled_at_once")
def gives_every_charge_to_the_first_scope(
    self: MemoryLedger, hold_id: str, scopes: Sequence[Scope], amounts: Amounts, origin: Origin, *more: Any
) -> Hold:
    return settled_at_once(self, hold_id, scopes[:1] if origin == "charge" else scopes, amounts, origin, *more)


settled_at_once = MemoryLedger._settled_at_once


@mutant(MemoryHistory, "note")
def leaves_an_estimate_in_the_history(self: MemoryHistory, hold: Hold) -> None:
    hold.noted = None
    note(self, hold)


@mutant(MemoryHistory, "note")
def has_what_is_booked_late_in_the_present_window(self: MemoryHistory, hold: Hold) -> None:
    before, hold.periods = hold.periods, ()
    note(self, hold)
    hold.periods = before


@mutant(MemoryHistory, "note")
def forgets_what_it_was_for(self: MemoryHistory, hold: Hold) -> None:
    hold.lines = ()
    note(self, hold)


@mutant(MemoryHistory, "note")
def has_the_first_scope_alone(self: MemoryHistory, hold: Hold) -> None:
    before, hold.counters = hold.counters, hold.counters[:1]
    note(self, hold)
    hold.counters = before


note = MemoryHistory.note


@pytest.mark.parametrize("name", MUTANTS)
def test_every_broken_ledger_is_caught(name: str) -> None:
    with mock.patch.object(*MUTANTS[name]):
        for seed in range(HISTORIES):
            forgets = seed % 2 == 1
            try:
                Simulation(forgetful if forgets else remembering, seed, forgets=forgets).run()
            except (Violation, KeyError) as caught:
                print(f"seed {seed}: {caught}")
                return
    pytest.fail(f"none of {HISTORIES} histories noticed")
