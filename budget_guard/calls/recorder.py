"""The records of one session: running totals, the timeline, and the warnings that were given."""

from __future__ import annotations

import logging
import threading

from budget_guard.calls.held import HeldCall
from budget_guard.clock import Clock
from budget_guard.events.model import BoundViolated, OverrunCharged, SoftLimitReached
from budget_guard.events.timeline import Timeline
from budget_guard.reporting.posting import Posting
from budget_guard.reporting.totals import Totals
from budget_guard.units.amounts import DIMENSIONS, Amounts, Limits, Sums
from budget_guard.units.money import format_usd
from budget_guard.units.scope import Scope

_log = logging.getLogger("budget_guard")


class Recorder:
    """The records of one run, beside the ledger's counters. Safe to use from any thread."""

    __slots__ = ("_scope", "_warned", "agent", "lock", "terminated_by", "timeline", "totals")

    def __init__(self, scope: Scope, clock: Clock, agent: str | None = None) -> None:
        self._scope = scope
        self.agent = agent
        """Whom calls are attributed to that name nobody."""
        self._warned: set[tuple[Scope, int]] = set()
        self.lock = threading.Lock()
        self.totals = Totals()
        self.timeline = Timeline(clock)
        self.terminated_by: str | None = None
        """What stopped the run; None while nothing did, or where it has gone on with another call since."""

    def record(self, held: HeldCall, posting: Posting, why: str | None) -> bool:
        """Record *posting* in the place of what is recorded for the call so far; return whether that changed anything.

        Args:
            held: The call.
            posting: What the ledger has for it now.
            why: Why it is no exact cost, if it is none.
        """
        call, agent = held.call, posting.agent
        with self.lock:
            before = held.posting
            if before is not None:
                same = before.amounts == posting.amounts and before.uncertain == posting.uncertain
                if same or (posting.uncertain and not before.uncertain):  # an older answer, late
                    return False
                self.totals.add(before.negative(), agent, -1, call.started_by)
            held.posting = posting
            self.totals.add(posting, agent, 1, call.started_by)
        emit = self.timeline.emit
        emit(posting)
        if posting.overrun:
            emit(OverrunCharged(posting.at_s, posting.id, posting.name, posting.overrun))
        if posting.violation:
            bound, actual = held.amounts.total_tokens, posting.amounts.total_tokens
            emit(BoundViolated(posting.at_s, posting.id, posting.name, bound, actual))
        if why is not None:
            cost = format_usd(posting.amounts.cost)
            _log.warning("budget_guard %s: booked an estimate of %s for %s: %s", self._scope, cost, posting.name, why)
        return True

    def warn(self, scope: Scope, limits: Limits, committed: Sums, at: float) -> None:
        """Send `SoftLimitReached` where a limit is spent to the fraction *at*, once for each limit."""
        for i, limit in enumerate(limits):
            if limit and committed[i] >= limit * at and (scope, i) not in self._warned:
                self._warn_once(scope, i, committed[i] / limit)

    def _warn_once(self, scope: Scope, i: int, fraction: float) -> None:
        with self.lock:
            if (scope, i) in self._warned:
                return
            self._warned.add((scope, i))
        self.timeline.mark(SoftLimitReached(self.timeline.at(), str(scope), DIMENSIONS[i], round(fraction, 4)))
        _log.warning("budget_guard %s: %s is %.0f%% spent", scope, DIMENSIONS[i], 100 * fraction)

    def total(self) -> Amounts:
        """All that this session knows of."""
        with self.lock:
            return self.totals.total()

    def goes_on(self) -> None:
        """Note that nothing has stopped the run after all, but if it was cut off."""
        if self.terminated_by != "revoked":
            self.terminated_by = None

    def limits_raised(self) -> None:
        """Start afresh with the run's own limits."""
        self.goes_on()
        with self.lock:
            self._warned = {(scope, i) for scope, i in self._warned if scope != self._scope}
