"""What a session has booked: running totals, the timeline, and whom it warned of what."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from budget_guard.clock import Clock
from budget_guard.dimension import DIMENSIONS, Amounts, Limits
from budget_guard.events import BoundViolated, CallCommitted, OverrunCharged, SoftLimitReached
from budget_guard.ledger.base import Settled
from budget_guard.money import format_usd
from budget_guard.scope import Scope
from budget_guard.tally import Tally
from budget_guard.timeline import Timeline

if TYPE_CHECKING:
    from budget_guard.reservation import Reservation

_log = logging.getLogger("budget_guard")


class Books:
    """The records of one run, beside the ledger's counters. Safe to use from any thread."""

    __slots__ = ("_scope", "_warned", "lock", "tally", "terminated_by", "timeline")

    def __init__(self, scope: Scope, clock: Clock) -> None:
        self._scope = scope
        self._warned: set[tuple[Scope, int]] = set()
        self.lock = threading.Lock()
        self.tally = Tally()
        self.timeline = Timeline(clock)
        self.terminated_by: str | None = None
        """What stopped the run last; None while nothing did."""

    def model_call(
        self,
        reservation: Reservation,
        model: str,
        settled: Settled,
        uncertain: str | None,
        unpriced: str | None,
        violated: bool,
    ) -> None:
        """Add a model call that was committed, in the place of the estimate that stood for it."""
        call, charged, estimate = reservation.call, settled.charged, settled.replaced
        tally = self.tally
        with self.lock:
            if estimate is not None:
                tally.model(reservation.plan.rung.model, call.agent, estimate, -1)
                tally.uncertain -= estimate.cost
                tally.unpriced_calls -= reservation.unpriced
            tally.model(model, call.agent, charged, 1)
            if uncertain is not None:
                tally.uncertain += charged.cost
            reservation.unpriced = unpriced is not None
            tally.unpriced_calls += reservation.unpriced
            tally.overrun += settled.overrun
            tally.violations += violated
        timeline = self.timeline
        at_s = timeline.at()
        timeline.emit(CallCommitted(at_s, reservation.id, "model", model, charged.cost, uncertain is not None))
        if settled.overrun:
            timeline.emit(OverrunCharged(at_s, reservation.id, model, settled.overrun))
        if violated:
            held = reservation.plan.amounts.total_tokens
            timeline.emit(BoundViolated(at_s, reservation.id, model, held, charged.total_tokens))
        why = uncertain or unpriced
        if why is not None:
            _log.warning("%s: booked an estimate of %s for %s: %s", self._scope, format_usd(charged.cost), model, why)

    def tool_call(self, reservation: Reservation, charged: Amounts, overrun: int) -> None:
        """Add a tool call that was committed, or charged without a hold."""
        tool = reservation.plan.rung.model
        with self.lock:
            self.tally.tool(tool, reservation.call.agent, charged)
            self.tally.overrun += overrun
        at_s = self.timeline.at()
        self.timeline.emit(CallCommitted(at_s, reservation.id, "tool", tool, charged.cost, False))
        if overrun:
            self.timeline.emit(OverrunCharged(at_s, reservation.id, tool, overrun))

    def warn(self, scope: Scope, limits: Limits, committed: Amounts, at: float) -> None:
        """Send `SoftLimitReached` where a limit is spent to the fraction *at*, once for each limit."""
        for i, limit in enumerate(limits):
            if not limit or committed[i] < limit * at or (scope, i) in self._warned:
                continue
            with self.lock:
                if (scope, i) in self._warned:
                    continue
                self._warned.add((scope, i))
            fraction = committed[i] / limit
            self.timeline.emit(SoftLimitReached(self.timeline.at(), str(scope), DIMENSIONS[i], round(fraction, 4)))
            _log.warning("%s: %s is %.0f%% spent", scope, DIMENSIONS[i], 100 * fraction)

    def limits_raised(self) -> None:
        """Start afresh with the run's own limits."""
        if self.terminated_by != "revoked":
            self.terminated_by = None
        with self.lock:
            self._warned = {(scope, i) for scope, i in self._warned if scope != self._scope}
