"""What an agent says when its budget stops it."""

from __future__ import annotations

from decimal import Decimal

from langchain_core.messages import AIMessage

from budget_guard import BudgetExceeded, BudgetRevoked
from budget_guard.units.money import cost_nano, format_usd

NO_MORE = "Call no more tools."
"""What a model is told whose tool was refused."""


def farewell(stop: BudgetExceeded | BudgetRevoked) -> AIMessage:
    """The last message of a run that is stopped. Its metadata says by what."""
    stopped_by = stop.dimension if isinstance(stop, BudgetExceeded) else "revoked"
    return AIMessage(
        words(stop), response_metadata={"budget_guard": {"stopped_by": stopped_by, "decision_id": stop.decision_id}}
    )


def words(stop: BudgetExceeded | BudgetRevoked) -> str:
    """Why it is stopped, in few words."""
    if isinstance(stop, BudgetRevoked):
        return f"Stopped: {stop.scope} was cut off: {stop.reason}."
    limit, actual = (
        format_usd(cost_nano(figure)) if isinstance(figure, Decimal) else figure for figure in (stop.limit, stop.actual)
    )
    return f"Budget exceeded: {stop.dimension}={limit}, and {actual} is spent or held."
