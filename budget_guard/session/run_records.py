"""Records of the runs that share one session: each run of a guard or a handler leaves one, with what it took itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from contextvars import ContextVar, Token
from datetime import datetime
from typing import TYPE_CHECKING, Any

from budget_guard.errors import BudgetError, BudgetExceeded
from budget_guard.events.model import CallAdmitted, CallBlocked, CallReleased, Event, Subscriber, UsageEvent
from budget_guard.events.origin import Origin
from budget_guard.session.told import is_given_up

if TYPE_CHECKING:
    from budget_guard.calls.run import Run
    from budget_guard.reporting.records import RunStore
    from budget_guard.reporting.spend import Outcome

_log = logging.getLogger("budget_guard")

_MOST_RUNS = 10_000
"""Runs under way that are remembered, of which no end may ever be told. The oldest is recorded as abandoned then."""


class RunTally:
    """What one run has taken so far."""

    __slots__ = (
        *("blocked", "by_model", "by_tool", "calls", "cost", "error", "held", "id", "input_tokens", "limit"),
        *("output_tokens", "over", "started_at", "started_s", "tool_calls", "uncertain"),
    )

    def __init__(self, id: str, limit: int | None, started_at: datetime, started_s: float) -> None:
        self.id = id
        self.limit = limit
        """Nano-dollars that were left when it began."""
        self.started_at = started_at
        self.started_s = started_s
        self.cost = self.uncertain = self.input_tokens = self.output_tokens = self.calls = self.tool_calls = 0
        self.by_model: dict[str, int] = {}
        self.by_tool: dict[str, int] = {}
        self.held: set[str] = set()
        """The holds whose final booking is to come."""
        self.blocked: str | None = None
        """What has refused a call, where nothing was called since."""
        self.error: BaseException | None = None
        """What a call raised, where nothing else tells how the run ended."""
        self.over = False

    def add(self, event: UsageEvent) -> None:
        """Add one booking."""
        before = event.cost_before
        self.cost += event.cost - before
        self.uncertain += (event.cost if event.uncertain else 0) - (before if event.is_correction else 0)
        if event.kind == "model":
            self.calls += not event.is_correction
            self.input_tokens += event.tokens.input - event.tokens_before.input
            self.output_tokens += event.tokens.output - event.tokens_before.output
        else:
            self.tool_calls += not event.is_correction
        names = self.by_model if event.kind == "model" else self.by_tool
        names[event.name] = names.get(event.name, 0) + event.cost - before


class RunRecords:
    """Keeps a record of each run of one guard or handler. It subscribes to the session that the runs share.

    A call belongs to the run that is under way where it is admitted; what was not admitted, such as a charge, to that
    which is under way where it is booked. Where none is known there, and one alone is under way at all, to that.

    Args:
        store: Where the records go.
        run: What the session is.
    """

    def __init__(self, store: RunStore, run: Run) -> None:
        self._store = store
        self._run = run
        self._lock = threading.Lock()
        self._open: dict[RunTally, None] = {}
        self._of_hold: dict[str, RunTally] = {}
        self._begun = 0

    def of_run(self, origin: Origin) -> Subscriber:
        return self._hear

    def begin(self) -> RunTally:
        """A run begins."""
        run = self._run
        limit = run.limits.cost
        with run.recorder.lock:
            spent = run.recorder.totals.total().cost
        with self._lock:
            self._begun += 1
            id = run.scope.id if self._begun == 1 else f"{run.scope.id}#{self._begun}"
            left = None if limit is None else max(0, limit - spent)
            tally = RunTally(id, left, run.clock.now(), run.clock.monotonic())
            self._open[tally] = None
            oldest = next(iter(self._open)) if len(self._open) > _MOST_RUNS else None
        if oldest is not None:
            self.end(oldest, outcome="abandoned")
        return tally

    def end(self, tally: RunTally, error: BaseException | None = None, *, outcome: Outcome | None = None) -> None:
        """The run is over: keep its record, once. Never raises: what it cost is booked elsewhere.

        Args:
            tally: What it took.
            error: What it raised.
            outcome: How it ended, where that is known.
        """
        with self._lock:
            if tally.over:
                return
            tally.over = True
            self._open.pop(tally, None)
            for hold_id in tally.held:
                self._of_hold.pop(hold_id, None)
        try:
            self._store.add(self._record(tally, error, outcome))
        except Exception:
            _log.exception("budget_guard %s: the record of a run could not be kept", self._run.scope)

    def end_all(self) -> None:
        """The session is closed: what is under way still has no other end."""
        for tally in list(self._open):
            self.end(tally, tally.error, outcome=None if tally.error is not None else "abandoned")

    def end_failed(self) -> None:
        """Keep the records of runs of which nothing was heard since a call of theirs raised."""
        for tally in list(self._open):
            if tally.error is not None:
                self.end(tally, tally.error)

    def here(self) -> RunTally | None:
        """The run that is under way here; None if none is."""
        for records, tally in reversed(_under_way.get()):
            if records is self and not tally.over:
                return tally
        return None

    def _hear(self, event: Event) -> None:
        if isinstance(event, UsageEvent):
            tally = self._of_hold.get(event.decision_id) or self._likely()
            if tally is not None:
                with self._lock:
                    if not tally.over:
                        tally.add(event)
                        if not event.uncertain:
                            self._forget(event.decision_id)
        elif isinstance(event, CallAdmitted):
            tally = self._likely()
            if tally is not None:
                with self._lock:
                    if not tally.over:
                        tally.blocked = tally.error = None
                        tally.held.add(event.decision_id)
                        self._of_hold[event.decision_id] = tally
        elif isinstance(event, CallReleased):
            with self._lock:
                self._forget(event.decision_id)
        elif isinstance(event, CallBlocked):
            tally = self._likely()
            if tally is not None:
                tally.blocked = event.limit

    def _likely(self) -> RunTally | None:
        here = self.here()
        if here is None and len(self._open) == 1:
            with self._lock:
                return next(iter(self._open)) if len(self._open) == 1 else None
        return here

    def _forget(self, hold_id: str) -> None:
        tally = self._of_hold.pop(hold_id, None)
        if tally is not None:
            tally.held.discard(hold_id)

    def _record(self, tally: RunTally, error: BaseException | None, outcome: Outcome | None) -> Any:
        from budget_guard.reporting.records import RunRecord  # few programs keep records

        run = self._run
        stopped_by = tally.blocked
        if stopped_by is None and isinstance(error, BudgetExceeded):
            stopped_by = error.dimension
        return RunRecord(
            id=tally.id,
            task=run.budget.task,
            started_at=tally.started_at,
            seconds=max(0.0, run.clock.monotonic() - tally.started_s),
            outcome=outcome or _outcome(error, stopped_by),
            cost=max(0, tally.cost),
            uncertain=max(0, tally.uncertain),
            input_tokens=max(0, tally.input_tokens),
            output_tokens=max(0, tally.output_tokens),
            calls=tally.calls,
            tool_calls=tally.tool_calls,
            limit=tally.limit,
            terminated_by=stopped_by,
            by_model={name: max(0, cost) for name, cost in tally.by_model.items()},
            by_tool={name: max(0, cost) for name, cost in tally.by_tool.items()},
            price_version=run.planner.ladder.prices.basis,
        )


_under_way: ContextVar[tuple[tuple[RunRecords, RunTally], ...]] = ContextVar("budget_guard_records", default=())


class Recording:
    """One run, for all the records that it begins in: not for those in which a run is under way around it.

    As a ``with`` block it says that what follows belongs to it, in the tasks too that are started there; `end` says
    that the run is over.
    """

    __slots__ = ("_begun", "_token")

    def __init__(self, records: Iterable[RunRecords | None]) -> None:
        self._begun = [
            (each, each.begin())
            for each in dict.fromkeys(each for each in records if each is not None)
            if each.here() is None
        ]
        self._token: Token[Any] | None = None

    def __enter__(self) -> Recording:
        self._token = _under_way.set((*_under_way.get(), *self._begun)) if self._begun else None
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _under_way.reset(self._token)

    def end(self, error: BaseException | None = None) -> None:
        """The run is over; with *error*, if it raised."""
        for records, tally in self._begun:
            records.end(tally, error)


class within:
    """Says that what the block admits belongs to a run that was begun before."""

    __slots__ = ("_of", "_token")

    def __init__(self, records: RunRecords, tally: RunTally) -> None:
        self._of = (records, tally)

    def __enter__(self) -> None:
        self._token = _under_way.set((*_under_way.get(), self._of))

    def __exit__(self, *_: object) -> None:
        _under_way.reset(self._token)


def _outcome(error: BaseException | None, stopped_by: str | None) -> Outcome:
    if error is not None and is_given_up(error):
        return "abandoned"
    if stopped_by is not None or isinstance(error, BudgetError):  # a framework may put an error of its own around it
        return "stopped"
    return "ok" if error is None else "failed"
