"""The hold that a child session has on its parent's money while it is open."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from budget_guard.calls.enclosing import OpenHold, enter
from budget_guard.calls.refusals import exceeded, revoked
from budget_guard.calls.run import Run
from budget_guard.errors import BudgetRevoked, ReservationConflict, StaleReservation
from budget_guard.events.model import ChildClosed, ChildOpened
from budget_guard.ledger.base import Balance, Refused, Revoked
from budget_guard.ledger.counters import least_left
from budget_guard.ledger.flow import Flow
from budget_guard.ledger.history import LABELS, Labels, UsageLine, UsageQuery, UsageSum, line_of
from budget_guard.policy.budget import BudgetPolicy
from budget_guard.session.keepalive import RenewedHold
from budget_guard.units.amounts import DIMENSIONS, Amounts, Limits
from budget_guard.units.scope import Scope

_log = logging.getLogger("budget_guard")

CLOSED = "its session is closed"
"""Why nothing can be spent from a child's budget any more."""


class _ChildsHold(OpenHold):
    """What a child session holds of its parent's money."""

    __slots__ = ("_parent",)

    def __init__(self, parent: Run, amounts: Amounts) -> None:
        self.amounts = amounts
        self.settled = False
        self._parent = parent

    @property
    def scopes(self) -> Sequence[Scope]:
        return self._parent.scopes

    @property
    def outer(self) -> Sequence[OpenHold]:
        return self._parent.around

    @property
    def is_call(self) -> bool:
        return False


class ParentHold:
    """The hold on the parent's money. The child's calls prolong it, closing the child books what it spent.

    Args:
        parent: The run whose money it is.
        budget: What the child may spend.
        ttl_s: Seconds without a call of the child after which the hold is suspended.
    """

    def __init__(self, parent: Run, budget: BudgetPolicy, ttl_s: float) -> None:
        if parent.budget.mode == "hard_gate" != budget.mode:
            raise ValueError(f"mode={budget.mode!r} would let the child pass its parent's hard limits: use 'hard_gate'")
        self._parent = parent
        self._budget = budget
        self._hold = RenewedHold(parent.clock, ttl_s)
        self._child: Run
        self._open: _ChildsHold
        self._opened = False
        self._settled = False

    def open(self, child: Run, owner: str) -> Flow[None]:
        """Take the parent's money, and let *child* spend it.

        Raises:
            BudgetExceeded: If the parent has not that much left.
            BudgetRevoked: If the parent, or one of its principals, was cut off.
            ValueError: If the child's budget leaves a limit out that its parent has.
        """
        parent = self._parent
        self._child = child
        yield from self._look_after_parent()
        balances: list[Balance] = yield "balances", (parent.scopes,)
        amounts = _amounts(self._budget, least_left(balances), parent)
        kept = parent.budget.kept_back
        room = None if parent.budget.mode == "advisory_estimate" else amounts.plus(kept)
        outcome = yield from self._hold.take("child", parent.scopes, amounts, room)
        if isinstance(outcome, Revoked):
            raise revoked(outcome)
        if isinstance(outcome, Refused):
            refused = exceeded(outcome, amounts, kept, now=parent.clock.now())
            refused.report = parent.report_for_error()
            raise refused
        try:
            yield "forward", (self._hold.id,)  # from now on it may be spent, whatever becomes of this process
            yield "set_limits", (child.scope, self._budget.limits, "none", owner)
        except BaseException:
            yield "release", (self._hold.id, parent.scopes)
            raise
        self._opened = True
        self._open = _ChildsHold(parent, amounts)
        child.around = (self._open, *parent.around)
        enter(self._open)
        timeline = parent.recorder.timeline
        timeline.start()
        timeline.emit(ChildOpened(timeline.at(), child.scope.id, amounts.cost))

    def due(self) -> bool:
        return True  # the parent may have been cut off, and the child's own hold does not tell

    def keep(self) -> Flow[None]:
        parent, scope = self._parent, str(self._child.scope)
        if not self._opened:
            raise BudgetRevoked(scope=scope, reason="it was never opened", at=parent.clock.now())
        yield from self._look_after_parent()
        # Its calls hold nothing in these scopes, so no other verb would tell that they were cut off.
        balances: list[Balance] = yield "balances", (parent.scopes,)
        for balance in balances:
            if balance.revoked is not None:
                raise revoked(balance.revoked)
        if not self._settled and not (yield from self._hold.prolong()):
            raise BudgetRevoked(
                scope=scope, reason="the hold on its parent's money was settled by somebody else", at=parent.clock.now()
            )

    def _look_after_parent(self) -> Flow[None]:
        late = self._parent.too_late(self._parent.recorder.timeline.at())
        if late is not None and self._parent.budget.mode != "advisory_estimate":
            raise late
        for each in self._parent.keepalives:
            yield from each.keep()

    def drop(self) -> Flow[None]:
        if not self._opened or self._settled:
            return
        parent, child = self._parent, self._child
        yield "revoke", (child.scope, CLOSED)  # first, so that nothing new is spent after the look
        balances: list[Balance] = yield "balances", ((child.scope,),)
        balance = balances[0]
        in_flight = balance.open_holds > 0
        spent = balance.committed.plus(balance.reserved) if in_flight else balance.committed
        lines: Sequence[UsageLine] = ()
        if parent.keeps_history:  # what it was spent on is in the history of the child's own run
            query = UsageQuery(child.scope.kind, child.scope.id, 0, None, LABELS)
            rows: Sequence[UsageSum] = yield "usage", (query,)
            lines = [line_of(Labels._make(map(str, names)), row) for names, row in rows]
        try:
            yield "commit", (self._hold.id, parent.scopes, spent, in_flight, lines)
        except (ReservationConflict, StaleReservation) as error:
            _log.error("budget_guard %s: what it spent is not booked in %s: %s", child.scope, parent.scope, error)
        self._open.settled = True
        timeline = parent.recorder.timeline
        timeline.emit(ChildClosed(timeline.at(), child.scope.id, spent.cost, in_flight))
        if in_flight:
            _log.warning(
                "budget_guard %s: closed with %s calls in flight, which are booked as estimates in %s: close it again "
                "when they are settled",
                *(child.scope, balance.open_holds, parent.scope),
            )
            return
        with child.recorder.lock, parent.recorder.lock:
            if not self._settled:
                self._settled = True
                parent.recorder.totals.merge(child.scope.id, child.recorder.totals, timeline.at())


def _amounts(budget: BudgetPolicy, left: Limits, parent: Run) -> Amounts:
    """All that *budget* allows. What a ceiling above limits, it must limit too: else there is nothing to hold."""
    limits = budget.limits
    for i, name in enumerate(DIMENSIONS):
        if limits[i] is None and left[i] is not None:
            above = ", ".join(dict.fromkeys(scope.principal for scope in parent.scopes))
            raise ValueError(
                f"{name}=None leaves open what the child may take of a limit that one of {above} has: "
                f"set Budget(..., {name}=...)"
            )
    return Amounts._make(0 if limit is None else limit for limit in limits)
