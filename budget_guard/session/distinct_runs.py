"""How many runs a principal may begin in a window: each run id counts once, whichever process opens it, however often.

Beside the scope that counts the runs of a principal in one window, each run has a scope of its own there, which takes
one. A run is counted by a hold in both, so it is counted once, or it is refused: in one step, in every ledger.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from typing import NamedTuple

from budget_guard.clock import Clock
from budget_guard.errors import BudgetExceeded, LedgerUnavailable
from budget_guard.ledger.base import HELD, Balance, ReserveOutcome
from budget_guard.ledger.flow import Flow
from budget_guard.ledger.hold_id import hold_id
from budget_guard.session.ceiling import Ceiling
from budget_guard.session.plans import look
from budget_guard.units.amounts import Amounts, Limits
from budget_guard.units.scope import Scope, Window

_log = logging.getLogger("budget_guard")

_ONE = Amounts(requests=1)
_MOST_TRIES = 16
"""How often others may come in between."""
_COUNTED_IN_S = 60.0
"""Seconds after which a run that was not counted to its end may be counted anew."""


class RunLimit(NamedTuple):
    """How many runs one principal may begin in one window."""

    scope: Scope
    """The principal, in that window."""
    most: int
    window: Window
    refuses: bool
    """Whether the run after the last one is refused, and not only told of."""

    @property
    def counter(self) -> Scope:
        """The scope that counts them."""
        return runs_of(self.scope)

    def mark(self, run_id: str) -> Scope:
        """The scope that says that a run is counted."""
        return Scope("ran", f"{self.scope}/{run_id}")


def runs_of(scope: Scope) -> Scope:
    """The scope that counts the runs of a principal in one window."""
    return Scope("runs", str(scope))


def run_limits(scopes: Sequence[Scope], ceilings: Sequence[Ceiling]) -> list[RunLimit]:
    """The limits of runs that *ceilings* say, one for each of *scopes*."""
    return [
        RunLimit(scope, ceiling.max_runs, ceiling.window, ceiling.mode == "hard_gate")
        for scope, ceiling in zip(scopes, ceilings, strict=True)
        if ceiling.max_runs is not None
    ]


def uncounted(limits: Sequence[RunLimit], run_id: str, clock: Clock, refuses: bool) -> Flow[list[RunLimit]]:
    """Those of *limits* in which a run is not counted yet.

    Args:
        limits: The limits.
        run_id: The run.
        clock: Where time comes from.
        refuses: Whether anything is refused at all.

    Raises:
        BudgetExceeded: If one of them has no room for it.
    """
    left: list[RunLimit] = []
    for limit in limits:
        mark = yield from look(limit.mark(run_id))
        if mark is not None and (mark.committed.requests or mark.reserved.requests):
            continue
        counter = yield from look(limit.counter)
        if counter is not None and refuses and limit.refuses and _begun(counter) >= limit.most:
            raise _too_many(limit, counter, clock)
        left.append(limit)
    return left


def count_run(limits: Sequence[RunLimit], run_id: str, clock: Clock, refuses: bool) -> Flow[None]:
    """Count a run in each of *limits*, once in each window.

    Args:
        limits: The limits.
        run_id: The run.
        clock: Where time comes from.
        refuses: Whether anything is refused at all.

    Raises:
        BudgetExceeded: If one of them has no room for it. It is counted in none of them then.
        LedgerUnavailable: If others, who go by other ceilings, change the same limits all the time.
    """
    for _ in range(_MOST_TRIES):
        left = yield from uncounted(limits, run_id, clock, refuses)
        if not left:
            return
        for limit in left:
            most = Limits(requests=limit.most) if limit.refuses else Limits()
            counter = yield from look(limit.counter)
            if counter is None or (counter.limits, counter.window) != (most, limit.window):
                yield "set_limits", (limit.counter, most, limit.window)
            yield "set_limits", (limit.mark(run_id), Limits(requests=1), limit.window)
        scopes = (*(limit.mark(run_id) for limit in left), *(limit.counter for limit in left))
        taken = hold_id(clock.now_ms(), f"run-{uuid.uuid4().hex[:12]}")
        room = _ONE if refuses else None
        outcome: ReserveOutcome = yield "reserve", (taken, scopes, _ONE, room, _COUNTED_IN_S)
        if outcome == HELD:
            yield "commit", (taken, scopes, _ONE)
            for limit in left:
                if not (refuses and limit.refuses):
                    yield from _tell(limit, run_id, clock)
            return
        # Somebody else has counted this run meanwhile, or the last one that there was room for: the next look tells.
    raise LedgerUnavailable(detail=f"others change the ceilings of {limits[0].scope} again and again: try once more")


def _tell(limit: RunLimit, run_id: str, clock: Clock) -> Flow[None]:
    """Warn of a run that is one too many, where nothing is refused."""
    counter = yield from look(limit.counter)
    if counter is not None and _begun(counter) > limit.most:
        _log.warning("budget_guard: run %s begins all the same: %s", run_id, _too_many(limit, counter, clock))


def _begun(counter: Balance) -> int:
    return counter.committed.requests + counter.reserved.requests


def _too_many(limit: RunLimit, counter: Balance, clock: Clock) -> BudgetExceeded:
    ends = counter.ends
    anew = "" if ends is None else f", or wait until {ends:%Y-%m-%d %H:%M} UTC"
    error = BudgetExceeded(
        dimension="max_runs",
        limit=limit.most,
        actual=_begun(counter),
        scope=limit.scope.principal,
        detail="as many runs were begun",
        remedy=f"Go on with one of them by its run id{anew}. An operator can raise it in the ceiling: "
        "Budget(..., max_runs=...).",
    )
    error.resets_at = ends
    if ends is not None:
        error.retry_after_s = max(0.0, (ends - clock.now()).total_seconds())
        error.user_message = f"No more can be begun for now. It begins anew at {ends:%Y-%m-%d %H:%M} UTC."
    return error
