"""Keepalives of a session: holds that its calls prolong, and that closing it settles.

A process that dies leaves such holds behind, and their time runs out: a place among the live runs is free again then,
and the money of a child session is suspended, because it may be spent.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence

from budget_guard.calls.refusals import revoked
from budget_guard.clock import Clock
from budget_guard.errors import BudgetExceeded, LedgerUnavailable, StaleReservation, UnknownReservation
from budget_guard.ledger.base import Refused, ReserveOutcome, Revoked
from budget_guard.ledger.flow import Flow
from budget_guard.ledger.hold_id import hold_id
from budget_guard.units.amounts import Amounts, Sums
from budget_guard.units.scope import Scope

_log = logging.getLogger("budget_guard")

RUN_TTL_S = 3_600.0
"""Seconds without a call after which a session is taken for dead, if nothing else is said."""


class RenewedHold:
    """One hold, prolonged as soon as a third of its time has passed. Safe to use from any thread."""

    def __init__(self, clock: Clock, ttl_s: float) -> None:
        self._clock = clock
        self._ttl_s = ttl_s
        self._due: float
        self.id = ""
        """The hold's id."""
        self.held = False
        """Whether there is one, as far as is known."""

    def take(self, what: str, scopes: Sequence[Scope], amounts: Amounts, room: Sums | None) -> Flow[ReserveOutcome]:
        """Hold *amounts* under a new id that has *what* in it."""
        taken = hold_id(self._clock.now_ms(), f"{what}-{uuid.uuid4().hex[:12]}")
        due = self._clock.monotonic() + self._ttl_s / 3
        outcome: ReserveOutcome = yield "reserve", (taken, scopes, amounts, room, self._ttl_s)
        if not isinstance(outcome, (Refused, Revoked)):
            self.id, self._due, self.held = taken, due, True
        return outcome

    def due(self) -> bool:
        """Whether `prolong` has anything to ask of the ledger, or there is nothing to prolong."""
        return not self.held or self._clock.monotonic() >= self._due

    def prolong(self) -> Flow[bool]:
        """Prolong it where it is time to; return whether it is still there."""
        now = self._clock.monotonic()
        if not self.held or now < self._due:
            return self.held
        self._due = now + self._ttl_s / 3  # set first, so that calls at the same time do it once
        try:
            self.held = yield "extend", (self.id, self._ttl_s)
        except (UnknownReservation, StaleReservation):
            self.held = False
        except BaseException:
            self._due = now
            raise
        return self.held


class ConcurrencySlot:
    """A place among the live runs that its principals may have: a hold of one request in scopes that count them."""

    def __init__(self, clock: Clock, ttl_s: float, scopes: Sequence[Scope]) -> None:
        self._scopes = tuple(scopes)
        self._hold = RenewedHold(clock, ttl_s)

    def due(self) -> bool:
        return self._hold.due()

    def keep(self) -> Flow[None]:
        if (yield from self._hold.prolong()):
            return
        one = Amounts(requests=1)
        outcome = yield from self._hold.take("live", self._scopes, one, one)
        if isinstance(outcome, Revoked):
            raise revoked(outcome)
        if isinstance(outcome, Refused):
            raise BudgetExceeded(
                dimension="max_live_runs",
                limit=outcome.limit,
                actual=outcome.committed + outcome.reserved,
                scope=outcome.scope.id,
                detail="as many sessions are open",
                remedy="Close a session that is not needed, or raise max_live_runs.",
            )

    def drop(self) -> Flow[None]:
        if not self._hold.held:
            return
        self._hold.held = False
        try:
            yield "release", (self._hold.id, self._scopes)
        except LedgerUnavailable as error:
            _log.info("budget_guard: a live run's place is free once its time is up: %s", error)


class DeferredOpening:
    """The opening of a session's scopes, done once: at the start, or later where the ledger was not to be reached."""

    def __init__(self, open: Callable[[], Flow[None]]) -> None:
        self._open = open
        self._done = False

    def due(self) -> bool:
        return not self._done

    def keep(self) -> Flow[None]:
        if not self._done:
            yield from self._open()
            self._done = True

    def drop(self) -> Flow[None]:
        return
        yield  # makes it a flow: what is opened stays open
