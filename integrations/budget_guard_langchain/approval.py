"""Asking a human for a larger budget, by pausing the graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from budget_guard import BudgetExceeded, Session

_CHECKPOINTER = "__pregel_checkpointer"
"""LangGraph's name, in a run's config, for what can bring a paused run back."""


def ask_human(session: Session, error: BudgetExceeded) -> bool:
    """Pause the graph until a human answers; return whether the call may ask for its hold again.

    The answer, from ``Command(resume=...)``, is a mapping of limits to raise, such as ``{"max_cost_usd": "3.00"}``,
    or True where the limits were raised already. Anything false declines.

    Returns:
        False also where nothing can pause: outside a graph, or in one without a checkpointer.
    """
    try:
        from langgraph.config import get_config
        from langgraph.types import interrupt

        config = get_config()
    except (ImportError, RuntimeError):
        return False
    if not config.get("configurable", {}).get(_CHECKPOINTER):
        return False
    answer: Any = interrupt(
        {
            "type": "budget_exceeded",
            "dimension": error.dimension,
            "limit": str(error.limit),
            "actual": str(error.actual),
            "estimate": None if error.estimate is None else str(error.estimate),
            "scope": error.scope,
            "message": str(error),
        }
    )
    if isinstance(answer, Mapping):
        session.raise_limits(**cast("Mapping[str, Any]", answer))
        return True
    return bool(answer)
