"""The report of a run as its ledger tells it, whichever processes have spent from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from budget_guard.calls.run import remaining_usd
from budget_guard.ledger.base import Balance
from budget_guard.ledger.flow import Flow
from budget_guard.ledger.history import NO_LABELS, UsageQuery, UsageSum, line_of
from budget_guard.reporting.report import BudgetReport
from budget_guard.reporting.spend import LimitUse, TaskSpend
from budget_guard.reporting.totals import Totals
from budget_guard.session.plans import look
from budget_guard.units.amounts import DIMENSIONS, NOTHING, Amounts, in_unit
from budget_guard.units.money import to_usd
from budget_guard.units.scope import Scope


def report_of(run_id: str) -> Flow[BudgetReport]:
    """What the ledger knows of a run: how much it took, and by its usage history what for.

    Raises:
        KeyError: If there is no such run.
    """
    balance = yield from look(Scope("run", run_id))
    if balance is None:
        raise KeyError(f"no run {run_id!r} is known: sessions have it as session.id")
    totals, tasks = yield from _spent_on(run_id)
    return BudgetReport(
        session_id=run_id,
        budget={},
        tags={},
        total_spent=to_usd(balance.committed.cost),
        reserved=to_usd(balance.reserved.cost),
        remaining=remaining_usd(balance),
        breakdown=totals.breakdown(),
        by_agent=totals.by_agent(),
        duration_seconds=0,
        terminated_by="revoked" if balance.revoked is not None else None,
        unpriced_calls=0,
        uncertain=to_usd(totals.uncertain),
        overrun=Decimal(0),
        bound_violations=0,
        events=[],
        limits=_limits(balance),
        by_task={
            name: TaskSpend(total=to_usd(each.cost), calls=each.requests, tool_calls=each.tool_calls)
            for name, each in tasks.items()
        },
    )


def _spent_on(run_id: str) -> Flow[tuple[Totals, Mapping[str, Amounts]]]:
    """What the usage history has of a run, by model, tool and agent, and by kind of work; nothing where it has none."""
    totals, tasks = Totals(), dict[str, Amounts]()
    try:
        rows: Sequence[UsageSum] = yield (
            "usage",
            (UsageQuery("run", run_id, 0, None, ("model", "tool", "agent", "task")),),
        )
    except ValueError:  # it keeps none
        return totals, tasks
    for (model, tool, agent, task), row in rows:
        _, amounts, *rest = line_of(NO_LABELS, row)
        is_model = bool(model) or amounts.requests > 0
        totals.add_many(str(model or tool or "(unknown)"), str(agent) or None, is_model, amounts, *rest)
        if task:
            tasks[str(task)] = tasks.get(str(task), NOTHING).plus(amounts)
    return totals, tasks


def _limits(balance: Balance) -> list[LimitUse]:
    return [
        LimitUse(
            scope=str(balance.scope),
            name=DIMENSIONS[i],
            limit=Decimal(in_unit(i, limit)),
            spent=Decimal(in_unit(i, balance.committed[i])),
            held=Decimal(in_unit(i, balance.reserved[i])),
            resets_at=balance.ends,
        )
        for i, limit in balance.limited
    ]
