"""A run's spend as the ledger tells it: how much of its limits is used, and what the money went on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from budget_guard.ledger.base import Balance
from budget_guard.ledger.flow import Flow
from budget_guard.ledger.history import NO_LABELS, UsageQuery, UsageSum, line_of
from budget_guard.reporting.spend import LimitUse, TaskSpend
from budget_guard.reporting.totals import Totals
from budget_guard.units.amounts import DIMENSIONS, NOTHING, Amounts, in_unit
from budget_guard.units.money import to_usd

_UNKNOWN = "(unknown)"
"""The model or tool of what was spent without saying on what."""


def limits_used(balances: Iterable[Balance]) -> list[LimitUse]:
    """The use of each limit, in the scopes of *balances*."""
    return [
        LimitUse(
            scope=str(balance.scope),
            name=DIMENSIONS[i],
            limit=Decimal(in_unit(i, limit)),
            spent=Decimal(in_unit(i, balance.committed[i])),
            held=Decimal(in_unit(i, balance.reserved[i])),
            resets_at=balance.ends,
        )
        for balance in balances
        for i, limit in balance.limited
    ]


def spent_on(run_id: str, began: int = 0) -> Flow[tuple[Totals, dict[str, TaskSpend]]]:
    """A run's spend in the usage history, by model, tool and agent, and by kind of work.

    Args:
        run_id: The run.
        began: The hour since 1970 from which on it counts.

    Raises:
        ValueError: If the ledger keeps no history.
        LedgerUnavailable: If it cannot be reached.
    """
    query = UsageQuery("run", run_id, began, None, ("model", "tool", "agent", "task"))
    rows: Sequence[UsageSum] = yield "usage", (query,)
    totals, by_task = Totals(), dict[str, Amounts]()
    for (model, tool, agent, task), row in rows:
        line = line_of(NO_LABELS, row)
        is_model = bool(model) or line.amounts.requests > 0
        totals.add_many(str(model or tool or _UNKNOWN), str(agent) or None, is_model, *line[1:])
        if task:
            by_task[str(task)] = by_task.get(str(task), NOTHING).plus(line.amounts)
    return totals, {name: task_spend(amounts) for name, amounts in by_task.items()}


def task_spend(amounts: Amounts) -> TaskSpend:
    """The *amounts* of one kind of work, as a report has them."""
    return TaskSpend(total=to_usd(amounts.cost), calls=amounts.requests, tool_calls=amounts.tool_calls)
