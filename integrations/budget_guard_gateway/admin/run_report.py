"""The report of a run for operators: the ledger says what it took, and records of decisions when it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from budget_guard import BudgetReport
from budget_guard.reporting.course import SpentAt, thinned
from budget_guard.units.money import cost_nano
from budget_guard_gateway.decisions import Wanted
from budget_guard_gateway.state import GatewayState

_MOST_CALLS = 1_000
"""The latest decisions of a run that are looked at."""
_MOST_POINTS = 256


async def report_of_run(gateway: GatewayState, run_id: str) -> BudgetReport:
    """The report of a run, whichever processes have spent from it.

    Raises:
        KeyError: If there is no such run.
    """
    for run in gateway.runs.all():
        if run.session.id == run_id:
            own = await run.session.areport()
            if not own.spent_elsewhere:  # so it knows of every call, and more of each than its record says
                return own
    told = await gateway.authority.areport(run_id)
    listed = await gateway.decisions.latest(Wanted(_MOST_CALLS, kind="run", id=run_id))
    if not listed.records:
        return told
    return told.model_copy(update=_course_of(listed.records[::-1]))


def _course_of(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The fields of a report that the records of a run's decisions tell, the oldest first."""
    start = datetime.fromisoformat(records[0]["time"])
    spent = SpentAt(0.0)
    points: list[SpentAt] = []
    events: list[dict[str, Any]] = []
    marks: list[dict[str, Any]] = []
    marked: set[str] = set()
    end_s = 0.0
    for record in records:
        end_s = (datetime.fromisoformat(record["time"]) - start).total_seconds()
        if record["cost_usd"] is not None:
            is_model = record["kind"] == "model"
            cost = cost_nano(Decimal(record["cost_usd"]))
            spent = SpentAt(end_s, cost, calls=int(is_model), tool_calls=int(not is_model)).plus(spent)
            points.append(spent)
            events.append(_committed(record, end_s))
        mark = _mark(record, end_s)
        if mark is not None:
            events.append(mark)
            kind = f"{mark['event']} {record['code'] or record['selected']}"
            if kind not in marked:
                marked.add(kind)
                marks.append(mark)
    last, first = records[-1], records[0]
    told: dict[str, Any] = {
        "tags": {**first["principals"], **({"feature": first["feature"]} if first["feature"] else {})},
        "duration_seconds": end_s,
        "started_at": start,
        "over_time": thinned(points, _MOST_POINTS),
        "events": events,
        "marks": marks,
    }
    if last["decision"] == "block":
        told["terminated_by"] = last["code"]
    return told


def _committed(record: Mapping[str, Any], at_s: float) -> dict[str, Any]:
    return {
        "event": "CallCommitted",
        "at_s": at_s,
        "decision_id": record["decision_id"],
        "kind": record["kind"],
        "name": record["selected"],
        "cost_usd": record["cost_usd"],
        "uncertain": record["uncertain"],
    }


def _mark(record: Mapping[str, Any], at_s: float) -> dict[str, Any] | None:
    """What a picture marks of a decision; None for nothing."""
    where = {"at_s": at_s, "decision_id": record["decision_id"]}
    if record["decision"] == "block":
        said = {"name": record["requested"], "reason": record["reason"], "limit": record["code"]}
        return {"event": "CallBlocked", **where, **said}
    if record["decision"] == "downgrade":
        said = {"model": record["requested"], "target": record["selected"], "reason": record["reason"]}
        return {"event": "ModelDowngraded", **where, **said}
    return None
