"""The core's errors in LangChain's own terms, and the signal that asks for a cheaper model.

A stop also derives from LangGraph's ``GraphBubbleUp`` where that is installed: its retries, its error handlers and
LangChain's retry, fallback and tool-error middleware all let that pass, and parallel nodes finish and are booked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import langchain_core.exceptions

import budget_guard

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
    """What every stop of a guarded run has in common."""


class BudgetExceeded(budget_guard.BudgetExceeded, BudgetStop):
    """As `budget_guard.BudgetExceeded`, out of a run."""


class BudgetRevoked(budget_guard.BudgetRevoked, BudgetStop):
    """As `budget_guard.BudgetRevoked`, out of a run."""


class UnknownPriceError(budget_guard.UnknownPriceError, BudgetStop):
    """As `budget_guard.UnknownPriceError`, out of a run."""


class UnboundedCallError(budget_guard.UnboundedCallError, BudgetStop):
    """As `budget_guard.UnboundedCallError`, out of a run."""


class InvalidDowngradeError(budget_guard.InvalidDowngradeError, BudgetStop):
    """As `budget_guard.InvalidDowngradeError`, out of a run."""


class ForeignRun(budget_guard.ForeignRun, BudgetStop):
    """As `budget_guard.ForeignRun`, out of a run."""


class LedgerUnavailable(budget_guard.LedgerUnavailable, BudgetStop):
    """As `budget_guard.LedgerUnavailable`, out of a run."""


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


_RECAST: dict[type[budget_guard.BudgetError], type[budget_guard.BudgetError]] = {
    budget_guard.BudgetExceeded: BudgetExceeded,
    budget_guard.BudgetRevoked: BudgetRevoked,
    budget_guard.UnknownPriceError: UnknownPriceError,
    budget_guard.UnboundedCallError: UnboundedCallError,
    budget_guard.InvalidDowngradeError: InvalidDowngradeError,
    budget_guard.ForeignRun: ForeignRun,
    budget_guard.LedgerUnavailable: LedgerUnavailable,
}


def recast(error: budget_guard.BudgetError) -> budget_guard.BudgetError:
    """A new error in LangChain's terms, to be raised once."""
    for core in type(error).__mro__:
        if core in _RECAST:
            return error.recast(_RECAST[core])
    return error
