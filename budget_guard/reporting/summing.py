"""The sum of two reports: totals add up, budgets are listed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from budget_guard.reporting.course import SpentAt, thinned
from budget_guard.reporting.spend import (
    AgentSpend,
    Breakdown,
    LimitUse,
    LlmSpend,
    ModelSpend,
    RunSpend,
    SpendValues,
    TaskSpend,
    ToolSpend,
    ToolsSpend,
)
from budget_guard.reporting.view import added

T = TypeVar("T")

_MOST_EVENTS = 1_000
_MOST_POINTS = 256


def summed(first: SpendValues, second: SpendValues) -> dict[str, Any]:
    """The fields of the sum of two reports.

    Two sessions of one run, in two processes say, share its total: the later one counts, the rest adds up. Where the
    later one has what both have spent, from the ledger's usage history, its breakdown is that of both.

    Raises:
        ValueError: If both tell of the same calls: two reports of one session.
    """
    own = [_runs(report) for report in (first, second)]
    shared = {run.session_id for run in own[0]} & {run.session_id for run in own[1]}
    runs = {run.session_id: run for run in own[0]}
    for run in own[1]:
        known = runs.get(run.session_id)
        runs[run.session_id] = run if known is None or run.total_spent >= known.total_spent else known
    total = sum((run.total_spent for run in runs.values()), Decimal(0))
    one = len(runs) == 1
    later = first if first.total_spent > second.total_spent else second
    has_both = one and later.spent_here is not None
    breakdown = later.breakdown if has_both else _breakdown(first.breakdown, second.breakdown)
    if shared and breakdown.llm.total + breakdown.tools.total > total:
        raise ValueError(
            f"both reports tell of the same calls of {', '.join(sorted(shared))}: add reports of different sessions, "
            "each the last one that it makes"
        )
    remaining = [run.remaining for run in runs.values()]
    start = min((each.started_at for each in (first, second) if each.started_at is not None), default=None)
    offsets = [_offset(report, start) for report in (first, second)]
    ends = [offset + report.duration_seconds for offset, report in zip(offsets, (first, second), strict=True)]
    words = dict.fromkeys(run.terminated_by for run in runs.values() if run.terminated_by)
    return {
        "session_id": first.session_id if one else f"{len(runs)} runs",
        "budget": first.budget if one else {},
        "tags": {name: value for name, value in first.tags.items() if second.tags.get(name) == value},
        "total_spent": total,
        "reserved": max(first.reserved, second.reserved) if one else first.reserved + second.reserved,
        "remaining": None if None in remaining else sum(each for each in remaining if each is not None),
        "breakdown": breakdown,
        "spent_here": min(total, first.total_spent_here + second.total_spent_here) if has_both else None,
        "by_agent": later.by_agent if has_both else _merged(first.by_agent, second.by_agent, _agent),
        "by_child": _merged(first.by_child, second.by_child, _agent),
        "duration_seconds": max(ends),
        "terminated_by": ", ".join(words) or None,
        "unpriced_calls": first.unpriced_calls + second.unpriced_calls,
        "uncertain": later.uncertain if has_both else first.uncertain + second.uncertain,
        "from_provider": first.from_provider + second.from_provider,
        "overrun": first.overrun + second.overrun,
        "bound_violations": first.bound_violations + second.bound_violations,
        "events": _in_order(first.events, second.events, offsets)[-_MOST_EVENTS:],
        "limits": _limits(first.limits, second.limits),
        "by_task": later.by_task
        if has_both
        else _merged(first.by_task, second.by_task, lambda a, b: _task(a, b, one=one)),
        "runs": [] if one else list(runs.values()),
        "started_at": start,
        "over_time": _over_time((first.over_time, second.over_time), offsets),
        "marks": _in_order(first.marks, second.marks, offsets),
    }


def _runs(report: SpendValues) -> list[RunSpend]:
    if report.runs:
        return report.runs
    return [
        RunSpend(
            session_id=report.session_id,
            task=next(iter(report.by_task), None),
            budget=report.budget,
            total_spent=report.total_spent,
            remaining=report.remaining,
            terminated_by=report.terminated_by,
        )
    ]


def _merged(first: Mapping[str, T], second: Mapping[str, T], add: Callable[[T, T], T]) -> dict[str, T]:
    merged = dict(first)
    for name, value in second.items():
        merged[name] = add(merged[name], value) if name in merged else value
    return merged


def _models(first: ModelSpend, second: ModelSpend) -> ModelSpend:
    return added((first, second))


def _tool(first: ToolSpend, second: ToolSpend) -> ToolSpend:
    return ToolSpend(total=first.total + second.total, calls=first.calls + second.calls)


def _agent(first: AgentSpend, second: AgentSpend) -> AgentSpend:
    return AgentSpend(
        total=first.total + second.total,
        calls=first.calls + second.calls,
        with_started=first.with_started + second.with_started,
        by_model=_merged(first.by_model, second.by_model, _models),
        by_tool=_merged(first.by_tool, second.by_tool, _tool),
    )


def _task(first: TaskSpend, second: TaskSpend, *, one: bool) -> TaskSpend:
    return TaskSpend(
        total=first.total + second.total,
        calls=first.calls + second.calls,
        tool_calls=first.tool_calls + second.tool_calls,
        runs=first.runs if one else first.runs + second.runs,
    )


def _breakdown(first: Breakdown, second: Breakdown) -> Breakdown:
    return Breakdown(
        llm=LlmSpend(
            total=first.llm.total + second.llm.total,
            calls=first.llm.calls + second.llm.calls,
            by_model=_merged(first.llm.by_model, second.llm.by_model, _models),
        ),
        tools=ToolsSpend(
            total=first.tools.total + second.tools.total,
            calls=first.tools.calls + second.tools.calls,
            by_tool=_merged(first.tools.by_tool, second.tools.by_tool, _tool),
        ),
    )


def _limits(first: Sequence[LimitUse], second: Sequence[LimitUse]) -> list[LimitUse]:
    """All of them. Of one that both have, such as a user's ceiling, the one of which more is spent: the later one."""
    found = {(each.scope, each.name): each for each in first}
    for each in second:
        known = found.get((each.scope, each.name))
        if known is None or each.spent >= known.spent:
            found[each.scope, each.name] = each
    return list(found.values())


def _offset(report: SpendValues, start: datetime | None) -> float:
    """How many seconds after *start* the report's run began."""
    if start is None or report.started_at is None:
        return 0.0
    return max(0.0, (report.started_at - start) / timedelta(seconds=1))


def _in_order(
    first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]], offsets: Sequence[float]
) -> list[dict[str, Any]]:
    moved = [
        {**event, "at_s": event["at_s"] + offset}
        for events, offset in zip((first, second), offsets, strict=True)
        for event in events
    ]
    return sorted(moved, key=lambda event: event["at_s"])


def _over_time(courses: Sequence[Sequence[SpentAt]], offsets: Sequence[float]) -> list[SpentAt]:
    steps = sorted(
        (point.at_s + offset, which, point)
        for which, (points, offset) in enumerate(zip(courses, offsets, strict=True))
        for point in points
    )
    latest = [SpentAt(0.0), SpentAt(0.0)]
    points: list[SpentAt] = []
    for at_s, which, point in steps:
        latest[which] = point
        points.append(latest[0].plus(latest[1])._replace(at_s=at_s))
    return thinned(points, _MOST_POINTS)
