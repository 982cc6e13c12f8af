"""What a session has booked: running totals, the timeline, and whom it warned of what."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from budget_guard.clock import Clock
from budget_guard.decision import ModelCall
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
        amounts: Amounts,
        settled: Settled,
        uncertain: str | None,
        unpriced: str | None,
        violated: bool,
    ) -> None:
        """Add a model call that was committed, or the difference to the estimate that stood for it."""
        call, held, replaced = reservation.call, reservation.plan.amounts, settled.replaced
        assert isinstance(call, ModelCall)
        cost, _, _, _, _, _ = amounts
        tally = self.tally
        with self.lock:
            if replaced is None:
                first = 1
                tally.model(model, call.agent, cost, 1, amounts.input_tokens, amounts.output_tokens)
                if uncertain is not None:
                    tally.uncertain += cost
            else:
                first = 0
                input_tokens = amounts.input_tokens - replaced.input_tokens
                output_tokens = amounts.output_tokens - replaced.output_tokens
                tally.model(model, call.agent, cost - replaced.cost, 0, input_tokens, output_tokens)
                tally.uncertain -= replaced.cost
            if settled.overrun:
                tally.overrun += settled.overrun
            if unpriced is not None:
                tally.unpriced_calls += first
            if violated:
                tally.violations += 1
        timeline = self.timeline
        at_s = timeline.at()
        timeline.emit(CallCommitted(at_s, reservation.id, "model", model, cost, uncertain is not None))
        if settled.overrun:
            timeline.emit(OverrunCharged(at_s, reservation.id, model, settled.overrun))
        if violated:
            timeline.emit(BoundViolated(at_s, reservation.id, model, held.total_tokens, amounts.total_tokens))
        why = uncertain or unpriced
        if why is not None:
            _log.warning("%s: booked an estimate of %s for %s: %s", self._scope, format_usd(cost), model, why)

    def tool_call(self, reservation: Reservation, amounts: Amounts, settled: Settled | None) -> None:
        """Add a tool call that was committed, or charged without a hold."""
        tool, agent = reservation.plan.rung.model, reservation.call.agent
        replaced = settled.replaced if settled is not None else None
        overrun = settled.overrun if settled is not None else 0
        with self.lock:
            if replaced is None:
                self.tally.tool(tool, agent, amounts.cost, 1)
            else:
                self.tally.tool(tool, agent, amounts.cost - replaced.cost, 0)
            self.tally.overrun += overrun
        at_s = self.timeline.at()
        self.timeline.emit(CallCommitted(at_s, reservation.id, "tool", tool, amounts.cost, False))
        if overrun:
            self.timeline.emit(OverrunCharged(at_s, reservation.id, tool, overrun))

    def warn(self, scope: Scope, limits: Limits, committed: Amounts, at: float) -> None:
        """Send `SoftLimitReached` where a limit is spent to the fraction *at*, once for each limit."""
        for i, limit in enumerate(limits):
            if limit is None or committed[i] < limit * at or (scope, i) in self._warned:
                continue
            with self.lock:
                if (scope, i) in self._warned:
                    continue
                self._warned.add((scope, i))
            fraction = committed[i] / limit if limit else 1.0
            self.timeline.emit(SoftLimitReached(self.timeline.at(), str(scope), DIMENSIONS[i], round(fraction, 4)))
            _log.warning("%s: %s is %.0f%% spent", scope, DIMENSIONS[i], 100 * fraction)

    def limits_raised(self) -> None:
        """Start afresh with the run's own limits."""
        self.terminated_by = None
        with self.lock:
            self._warned = {(scope, i) for scope, i in self._warned if scope != self._scope}
