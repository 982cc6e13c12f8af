"""The core's errors in LangChain's own terms, and the signal that asks for a cheaper model.

A stop also derives from LangGraph's ``GraphBubbleUp`` where that is installed: its retries, its error handlers and
LangChain's retry, fallback and tool-error middleware all let that pass, and parallel nodes finish and are booked.

Imported when the first call is stopped, or one of the names is asked for: LangGraph takes longer to import than the
rest of the adapter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import langchain_core.exceptions

import budget_guard
from budget_guard.adapter.stops import stops_for

if TYPE_CHECKING:
    _Bubbles = Exception
    _ModelError = langchain_core.exceptions.LangChainException
else:
    try:
        from langgraph.errors import GraphBubbleUp as _Bubbles
    except ImportError:  # chains and models do without it

        class _Bubbles(Exception):
            pass

    # langchain-core has it from 1.6 on: what derives from it is a failure of the model that no retry can help
    _ModelError = getattr(langchain_core.exceptions, "ModelError", langchain_core.exceptions.LangChainException)


class BudgetStop(_Bubbles):
    """The base of all stops of a guarded run."""


recast = stops_for(BudgetStop).recast

if TYPE_CHECKING:

    class BudgetExceeded(budget_guard.BudgetExceeded, BudgetStop): ...

    class BudgetRevoked(budget_guard.BudgetRevoked, BudgetStop): ...

    class LoopDetected(budget_guard.LoopDetected, BudgetStop): ...

    class UnknownPriceError(budget_guard.UnknownPriceError, BudgetStop): ...

    class UnboundedCallError(budget_guard.UnboundedCallError, BudgetStop): ...

    class InvalidDowngradeError(budget_guard.InvalidDowngradeError, BudgetStop): ...

    class ForeignRun(budget_guard.ForeignRun, BudgetStop): ...

    class LedgerUnavailable(budget_guard.LedgerUnavailable, BudgetStop): ...

else:
    globals().update(stops_for(BudgetStop).classes)


class BudgetDowngrade(budget_guard.BudgetError, _ModelError, RuntimeError):
    """The signal that a call is to be made by a cheaper model, for a fallback to catch. Nothing was spent.

    A callback can refuse a call, but it cannot change the call's model.
    """

    _fields = ("model", "target", "reason", "decision_id")

    def __init__(self, *, model: str, target: str, reason: str, decision_id: str | None = None) -> None:
        self.model = model
        """The model that was asked for."""
        self.target = target
        """The cheaper model."""
        self.reason = reason
        """Why it is to take the call."""
        self.decision_id = decision_id
        super().__init__(
            f"{reason}: {target!r} is to take the place of {model!r}, and nothing does that here. Add "
            f"model.with_fallbacks([<{target}>]), ModelFallbackMiddleware(<{target}>) or "
            f"BudgetMiddleware(..., downgrade_to=<{target}>) to the agent, or call "
            f"budgeted_model(<{model}>, <{target}>)."
        )
