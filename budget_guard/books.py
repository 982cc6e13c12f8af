"""What a session has booked: running totals, the timeline, and whom it warned of what."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from budget_guard.clock import Clock
from budget_guard.dimension import DIMENSIONS, Amounts, Limits
from budget_guard.events import BoundViolated, OverrunCharged, SoftLimitReached
from budget_guard.money import format_usd
from budget_guard.scope import Scope
from budget_guard.tally import Tally
from budget_guard.timeline import Timeline

if TYPE_CHECKING:
    from budget_guard.booked import Booked
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

    def record(self, reservation: Reservation, booked: Booked, why: str | None) -> bool:
        """Put *booked* in the place of what stood for the hold so far; return whether that changed anything.

        Args:
            reservation: The hold.
            booked: What the ledger has for it now.
            why: Why it is no exact cost, if it is none.
        """
        at_s, _, name, amounts, uncertain, _, violation = booked
        held, agent = reservation.plan.amounts, reservation.call.agent
        held_cost = held.cost
        with self.lock:
            before = reservation.booked
            if before is not None:
                if (before.amounts == amounts and before.uncertain == uncertain) or (
                    uncertain and not before.uncertain  # an older answer of the ledger that comes late
                ):
                    return False
                self.tally.add(before, agent, held_cost, -1)
            reservation.booked = booked
            self.tally.add(booked, agent, held_cost)
        timeline, over = self.timeline, amounts.cost - held_cost
        timeline.committed(booked)
        if over > 0:
            timeline.emit(OverrunCharged(at_s, reservation.id, name, over))
        if violation:
            timeline.emit(BoundViolated(at_s, reservation.id, name, held.total_tokens, amounts.total_tokens))
        if why is not None:
            _log.warning(
                "budget_guard %s: booked an estimate of %s for %s: %s", self._scope, format_usd(amounts.cost), name, why
            )
        return True

    def warn(self, scope: Scope, limits: Limits, committed: Amounts, at: float) -> None:
        """Send `SoftLimitReached` where a limit is spent to the fraction *at*, once for each limit."""
        for i, limit in enumerate(limits):
            if limit and committed[i] >= limit * at and (scope, i) not in self._warned:
                self._warn_once(scope, i, committed[i] / limit)

    def _warn_once(self, scope: Scope, i: int, fraction: float) -> None:
        with self.lock:
            if (scope, i) in self._warned:
                return
            self._warned.add((scope, i))
        self.timeline.emit(SoftLimitReached(self.timeline.at(), str(scope), DIMENSIONS[i], round(fraction, 4)))
        _log.warning("budget_guard %s: %s is %.0f%% spent", scope, DIMENSIONS[i], 100 * fraction)

    def limits_raised(self) -> None:
        """Start afresh with the run's own limits."""
        if self.terminated_by != "revoked":
            self.terminated_by = None
        with self.lock:
            self._warned = {(scope, i) for scope, i in self._warned if scope != self._scope}
