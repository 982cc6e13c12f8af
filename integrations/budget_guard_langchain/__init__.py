"""budget_guard for LangChain and LangGraph."""

from typing import TYPE_CHECKING, Any

from budget_guard_langchain.budgeted_model import budgeted_model
from budget_guard_langchain.errors import (
    BudgetDowngrade,
    BudgetExceeded,
    BudgetRevoked,
    BudgetStop,
    ForeignRun,
    InvalidDowngradeError,
    LedgerUnavailable,
    UnboundedCallError,
    UnknownPriceError,
)
from budget_guard_langchain.handler import BudgetCallbackHandler
from budget_guard_langchain.scope import budget_scope

if TYPE_CHECKING:
    from budget_guard_langchain.middleware import BudgetMiddleware

__all__ = [
    "BudgetCallbackHandler",
    "BudgetDowngrade",
    "BudgetExceeded",
    "BudgetMiddleware",
    "BudgetRevoked",
    "BudgetStop",
    "ForeignRun",
    "InvalidDowngradeError",
    "LedgerUnavailable",
    "UnboundedCallError",
    "UnknownPriceError",
    "budget_scope",
    "budgeted_model",
]


def __getattr__(name: str) -> Any:
    if name != "BudgetMiddleware":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Chains and graphs do without LangChain's agents, which take long to import.
    from budget_guard_langchain.middleware import BudgetMiddleware

    globals()[name] = BudgetMiddleware
    return BudgetMiddleware
