"""What a session tells by itself: callbacks at a threshold, and a record of the run when it ends."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from budget_guard.events.model import CallBlocked, Event, LimitsRaised, LoopNoticed, ModelDowngraded, SoftLimitReached
from budget_guard.events.subscribing import called_with
from budget_guard.reporting.report import BudgetReport
from budget_guard.reporting.spend import Outcome
from budget_guard.units.money import cost_nano

if TYPE_CHECKING:
    from budget_guard.calls.run import Run
    from budget_guard.reporting.records import RunRecord, RunStore

_log = logging.getLogger("budget_guard")

OnThreshold: TypeAlias = "Callable[[BudgetReport], object] | Callable[[BudgetReport], Awaitable[object]]"
"""A function of the report, plain or async."""


class Told(NamedTuple):
    """Who is told what by a session itself."""

    run_log: RunStore | None = None
    """Where the record of the run goes when the session is closed."""
    on_soft_limit: OnThreshold | None = None
    """Called once for each limit that is nearly used up."""
    on_hard_limit: OnThreshold | None = None
    """Called once for each limit that has refused a call."""
    on_loop_detected: OnThreshold | None = None
    """Called for each loop that is noticed, and again when it is stopped."""
    on_downgrade: OnThreshold | None = None
    """Called once for each model that another one stands in for."""

    def check(self) -> None:
        """Check that each of them can be told.

        Raises:
            TypeError: If one of them cannot.
        """
        for name, given in self._asdict().items():
            wanted = getattr(given, "add", None) if name == "run_log" else given
            if given is not None and (isinstance(given, type) or not callable(wanted)):
                needed = "budget_guard.reporting.RunLog('runs.db')" if name == "run_log" else "a function of the report"
                raise TypeError(f"{name}={given!r} cannot be told anything: give {needed}")

    def listener(self, report: Callable[[], BudgetReport]) -> Callable[[Event], None] | None:
        """The subscriber that calls the callbacks with what *report* makes; None where there is none to call."""
        callbacks = {name: called_with(given) for name, given in self._asdict().items() if given and name != "run_log"}
        if not callbacks:
            return None
        told: set[tuple[str, ...]] = set()

        def hear(event: Event) -> None:
            if isinstance(event, LimitsRaised):
                told.difference_update([each for each in told if each[0] == "on_hard_limit"])
            which = _threshold(event)
            if which is None or which in told or which[0] not in callbacks:
                return
            if which[0] != "on_loop_detected":
                told.add(which)
            callbacks[which[0]](report())

        return hear

    def keep(self, run: Run, report: BudgetReport, outcome: Outcome | None) -> None:
        """Add the record of a run that has ended. Never raises: what it cost is booked elsewhere."""
        if self.run_log is None:
            return
        try:
            self.run_log.add(_record(run, report, outcome))
        except Exception:
            _log.exception("budget_guard %s: the record of the run could not be kept", run.scope)


def is_given_up(error: BaseException) -> bool:
    """Whether *error* says that a caller gave up, rather than that something failed."""
    import asyncio  # as `SystemClock.wait_async` does

    return isinstance(error, (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit))


NOBODY = Told()
"""Nobody is told anything."""


def _threshold(event: Event) -> tuple[str, ...] | None:
    """The callback for *event*, and what it is called about."""
    if isinstance(event, SoftLimitReached):
        return "on_soft_limit", event.scope, event.dimension
    if isinstance(event, CallBlocked):
        return "on_hard_limit", event.limit
    if isinstance(event, LoopNoticed):
        return ("on_loop_detected",)
    if isinstance(event, ModelDowngraded):
        return "on_downgrade", event.model, event.target
    return None


def _record(run: Run, report: BudgetReport, outcome: Outcome | None) -> RunRecord:
    from budget_guard.reporting.records import RunRecord  # few programs keep records

    llm, tools = report.breakdown.llm, report.breakdown.tools
    models = llm.by_model.values()
    fields: dict[str, Any] = {
        "id": report.session_id,
        "task": run.budget.task,
        "started_at": run.clock.now() - timedelta(seconds=report.duration_seconds),
        "seconds": report.duration_seconds,
        "outcome": outcome or ("stopped" if report.terminated_by else "ok"),
        "cost": cost_nano(llm.total) + cost_nano(tools.total),  # of this session: another one may go on with the run
        "uncertain": cost_nano(report.uncertain),
        "input_tokens": sum(model.input_tokens for model in models),
        "output_tokens": sum(model.output_tokens for model in models),
        "calls": llm.calls,
        "tool_calls": tools.calls,
        "limit": run.limits.cost,
        "terminated_by": report.terminated_by,
        "by_model": {name: cost_nano(model.total) for name, model in llm.by_model.items()},
        "by_tool": {name: cost_nano(tool.total) for name, tool in tools.by_tool.items()},
        "price_version": run.planner.ladder.prices.basis,
    }
    return RunRecord(**fields)
