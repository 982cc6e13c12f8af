"""The report of a run as its ledger tells it, whichever processes have spent from it."""

from __future__ import annotations

from decimal import Decimal

from budget_guard.calls.ledger_spend import limits_used, spent_on
from budget_guard.calls.run import remaining_usd
from budget_guard.ledger.flow import Flow
from budget_guard.reporting.report import BudgetReport
from budget_guard.reporting.totals import Totals
from budget_guard.session.plans import look
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
    try:
        totals, tasks = yield from spent_on(run_id)
    except ValueError:  # it keeps no history
        totals, tasks = Totals(), {}
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
        limits=limits_used([balance]),
        by_task=tasks,
    )
