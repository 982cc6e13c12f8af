"""Who watches a ledger in the simulation: an accountant with a notebook of its own, and the invariants.

The invariants I1 to I12 are those of the research on ledgers; `Violation` names the one that broke.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from budget_guard.clock import Clock
from budget_guard.errors import BudgetError, ReservationConflict, StaleReservation, UnknownReservation
from budget_guard.ledger import Balance, Held, Ledger, Refused, Revoked, Settled
from budget_guard.ledger.base import MOST_LIMIT
from budget_guard.ledger.history import LABELS, UsageQuery
from budget_guard.units.amounts import NOTHING, Amounts, Limits
from budget_guard.units.scope import Scope, Window, window_start
from tests.ledger.call import Call


class Violation(AssertionError):
    """An invariant does not hold."""


class Observer:
    """Performs every verb, and compares what the ledger says with what it must say.

    Args:
        ledger: The ledger.
        clock: Its time.
        forgets: Whether it may forget what is settled.
    """

    def __init__(self, ledger: Ledger, clock: Clock, *, forgets: bool) -> None:
        self.ledger = ledger
        self.clock = clock
        self.forgets = forgets
        self.verbs = 0
        self.turned_s = 0.0
        """By how much the clock was turned, back and forth: so much earlier a hold may expire."""
        self.windows: dict[Scope, Window] = {}
        self.since: dict[Scope, datetime | None] = {}
        self.most: dict[Scope, Amounts] = {}
        """The highest limits that there ever were."""
        self.revoked: set[Scope] = set()
        self.in_flight: dict[Scope, Amounts] = {}
        """What is held for calls that are at the provider and were not settled: it must be counted all the time."""

    def set_limits(self, scope: Scope, limits: Limits, window: Window) -> None:
        self.ledger.set_limits(scope, limits, window)
        self.windows[scope] = window
        self.since.setdefault(scope, None)
        self.in_flight.setdefault(scope, NOTHING)
        most = self.most.get(scope, NOTHING)
        self.most[scope] = Amounts._make(
            max(a, MOST_LIMIT if b is None else b) for a, b in zip(most, limits, strict=True)
        )
        self.balances()

    def revoke_or_restore(self, scope: Scope) -> None:
        if scope in self.revoked:
            self.must(self.ledger.restore(scope) is True, "a revocation was lost")
        else:
            self.ledger.revoke(scope, "cut off")
        self.revoked ^= {scope}

    def sweep(self) -> None:
        for _ in iter(lambda: self.ledger.sweep(5), 0):
            self.verbs += 1
        self.check_counters(self.balances())

    def perform(self, call: Call, verb: str, arguments: tuple[Any, ...]) -> Any:
        before = self.balances()
        self.verbs += 1
        try:
            answer = getattr(self.ledger, verb)(*arguments)
        except (ReservationConflict, StaleReservation, UnknownReservation) as error:
            answer = error
        except ValueError as error:
            self.must(verb == "adjust", f"{verb} raised {error!r}")
            call.unrecorded, answer = True, error  # less than nothing would be left
        after = self.balances()
        getattr(self, f"saw_{verb}")(call, answer, after)
        self.check_step(call, verb, before, after)
        self.check_counters(after)
        if self.verbs % 16 == 0:
            self.check_books()
        return answer

    def saw_dispatch(self, call: Call) -> None:
        """I7: a call reaches the provider."""
        self.must(call.admitted or call.fails_open, "I7: a call was sent that was never admitted")
        call.sent = True
        if call.forwarded and call.suspend and not call.settled:
            self.count(call, True)

    def saw_reserve(self, call: Call, answer: Any, balances: dict[Scope, Balance]) -> None:
        if isinstance(answer, Held):
            if call.admitted:
                return
            self.must(call.windows is None, "I6: a call was admitted after it was settled")
            self.must(not self.revoked & set(call.scopes), "a revoked scope let a call pass")
            call.admitted, call.expires = True, self.clock.monotonic() + call.ttl_s
            self.begin(call, balances)
            for scope in call.scopes:
                for limit, committed, reserved in zip(*balances[scope][1:4], strict=True):
                    if limit is not None and committed + reserved > limit:
                        raise Violation(f"I3: {scope} let {committed + reserved} in, above {limit}")
        elif isinstance(answer, Refused):
            self.must(not call.admitted, "I6: an admitted call was refused")
            balance, i = balances[answer.scope], answer.dimension
            full = balance.committed[i] + balance.reserved[i] + call.held[i]
            self.must(balance.limits[i] == answer.limit < full, "I3: refused for no reason")
        elif isinstance(answer, Revoked):
            self.must(answer.scope in self.revoked and not call.admitted, "I6: refused for no reason")
        elif isinstance(answer, StaleReservation):
            self.must(self.forgets, "the ledger forgot too early")
        else:
            self.must(call.windows is not None and not call.admitted, "I6: another answer than before")

    def saw_forward(self, call: Call, answer: Any, _: dict[Scope, Balance]) -> None:
        if isinstance(answer, ReservationConflict):
            early = self.clock.monotonic() + self.turned_s < call.expires
            self.must(call.freed or not early, "a hold expired before its time")
        elif answer is None:
            call.forwarded = True
        else:
            self.must(isinstance(answer, StaleReservation) and self.forgets, "a known hold could not be forwarded")

    def saw_extend(self, call: Call, answer: Any, _: dict[Scope, Balance]) -> None:
        if answer is True:
            self.must(not call.settled, "what is settled was extended")
            call.expires = self.clock.monotonic() + call.ttl_s

    def saw_release(self, call: Call, answer: Any, balances: dict[Scope, Balance]) -> None:
        if isinstance(answer, BudgetError):
            self.must(isinstance(answer, StaleReservation) and self.forgets, "a release was turned away")
            return
        self.begin(call, balances)
        if answer:
            self.must(not call.settled, "a hold was given back twice")
            call.freed = True
        self.note_settled(call)

    def saw_commit(self, call: Call, answer: Any, balances: dict[Scope, Balance]) -> None:
        if isinstance(answer, Settled):
            self.begin(call, balances)
            self.must(answer.charged in (call.billed, call.held), "I4: something else was booked")
            self.must(answer.charged == call.billed or answer.uncertain, "I4: the estimate stands for certain")
            call.booked = answer.charged
            self.note_settled(call)
        else:
            self.saw_booking(call, answer)

    def saw_charge(self, call: Call, answer: Any, balances: dict[Scope, Balance]) -> None:
        if answer is None or isinstance(answer, Refused):
            self.begin(call, balances)
            call.booked = call.billed
        else:
            self.saw_booking(call, answer)

    def saw_adjust(self, call: Call, answer: Any, balances: dict[Scope, Balance]) -> None:
        if isinstance(answer, Amounts):
            self.begin(call, balances)
            call.unrecorded, call.booked = False, call.billed
        elif not isinstance(answer, ValueError) or isinstance(answer, BudgetError):
            self.saw_booking(call, answer)

    def saw_booking(self, call: Call, answer: BudgetError) -> None:
        """A charge was turned away: only what is forgotten may be."""
        self.must(isinstance(answer, StaleReservation) and self.forgets, "I4: a charge was turned away")
        if call.booked is None:
            call.unrecorded = True
        else:
            call.billed = call.booked  # an estimate stands, perhaps

    def begin(self, call: Call, balances: dict[Scope, Balance]) -> None:
        """The ledger heard of it for the first time: it belongs to the windows of that moment."""
        if call.windows is None:
            call.windows = {scope: balances[scope].since for scope in call.scopes}

    def note_settled(self, call: Call) -> None:
        if call.in_flight:
            self.count(call, False)
        call.settled = True

    def count(self, call: Call, in_flight: bool) -> None:
        call.in_flight = in_flight
        for scope in call.scopes:
            change = self.in_flight[scope].plus if in_flight else self.in_flight[scope].minus
            self.in_flight[scope] = change(call.held)

    def must(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise Violation(otherwise)

    def balances(self) -> dict[Scope, Balance]:
        found = {balance.scope: balance for balance in self.ledger.balances(tuple(self.windows))}
        now = self.clock.now()
        for scope, window in self.windows.items():
            start, before = window_start(window, now), self.since[scope]
            self.since[scope] = start if start is None or before is None else max(start, before)
        for scope, balance in found.items():
            if balance.since != self.since[scope]:
                raise Violation(f"{scope} is in the window of {balance.since}, not of {self.since[scope]}")
        return found

    def check_counters(self, balances: dict[Scope, Balance]) -> None:
        for scope, balance in balances.items():
            if min(balance.reserved) < 0 or balance.open_holds < 0:
                raise Violation(f"I2: {balance}")
            if (balance.revoked is not None) != (scope in self.revoked):
                raise Violation(f"{scope}: a revocation was lost, or made up")
            if balance.window == "none" and min(balance.reserved.minus(self.in_flight[scope])) < 0:
                raise Violation(f"{scope} does not count calls that are at the provider")

    def check_step(
        self,
        call: Call,
        verb: str,
        before: dict[Scope, Balance],
        after: dict[Scope, Balance],
    ) -> None:
        """I10, I11: what is spent never falls, but by a correction; and no other scope is touched."""
        for scope, then in before.items():
            now = after[scope]
            if then == now or then.since != now.since:
                continue
            if scope not in call.scopes:
                if then.committed != now.committed or min(then.reserved.minus(now.reserved)) < 0:
                    raise Violation(f"I10: {verb} in {call.scopes} was counted in {scope}")
            elif verb not in ("commit", "adjust") and min(now.committed.minus(then.committed)) < 0:
                raise Violation(f"I11: {verb} lowered {scope}")

    def check_leaks(self, gone: Sequence[Call]) -> None:
        """I5: nothing is held but for clients that vanished."""
        for scope, balance in self.balances().items():
            held = NOTHING
            for call in gone:
                if scope in call.scopes and call.admitted and not call.settled:
                    held = held.plus(call.held)
            self.must(min(held.minus(balance.reserved)) >= 0, f"I5: a hold is left in {scope}")

    def check_invoice(self, calls: Sequence[Call]) -> None:
        """I4, I8: what is committed is what was billed, and above the limit only where that cannot be helped."""
        for scope, balance in self.balances().items():
            billed = allowed = NOTHING
            for call in calls:
                if scope not in call.scopes or call.windows is None or call.unrecorded:
                    continue
                if call.windows[scope] != balance.since:
                    continue
                billed = billed.plus(call.billed)
                gated = call.forwarded and call.suspend and not call.freed
                allowed = allowed.plus(_above(call.billed, call.held if gated else NOTHING))
            self.must(balance.committed == billed, f"I4: {scope} has {balance.committed}, and {billed} was billed")
            most = self.most[scope].plus(allowed)
            above = max(_above(billed, most))
            self.must(above == 0, f"I8: {scope} has {billed}, and at most {most} can be explained")

    def check_history(self, calls: Sequence[Call]) -> None:
        """The usage history has every bill, whatever the window, under what it was for."""
        for scope in self.windows:
            billed: dict[tuple[str, ...], Amounts] = {}
            for call in calls:
                if scope in call.scopes and call.windows is not None and not call.unrecorded:
                    billed[call.labels] = billed.get(call.labels, NOTHING).plus(call.billed)
            rows = self.ledger.usage(UsageQuery(scope.kind, scope.id, 0, None, LABELS))
            found = {each.names: Amounts._make(each.quantities[: len(NOTHING)]) for each in rows}
            expected = {labels: amounts for labels, amounts in billed.items() if amounts != NOTHING}
            self.must(found == expected, f"the history of {scope} has {found}, and {expected} was billed")

    def check_books(self) -> None:
        """I1: the ledger's own recount finds nothing."""
        self.must(not self.ledger.audit(), "I1: the counters are not the sums of the records")


def _above(amounts: Amounts, held: Amounts) -> Amounts:
    return Amounts._make(max(0, n) for n in amounts.minus(held))
