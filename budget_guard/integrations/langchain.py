"""``from budget_guard.integrations.langchain import BudgetCallbackHandler``: LangChain and LangGraph."""

from typing import TYPE_CHECKING, Any

try:
    import langchain_core as _langchain  # itself, so that an error inside the adapter is not taken for its absence
except ImportError as error:
    raise ImportError('LangChain is not installed: pip install "budget-guard-py[langchain]"') from error

from budget_guard_langchain import (
    BudgetCallbackHandler,
    BudgetDowngrade,
    BudgetExceeded,
    BudgetRevoked,
    BudgetStop,
    ForeignRun,
    InvalidDowngradeError,
    LedgerUnavailable,
    UnboundedCallError,
    UnknownPriceError,
    budget_scope,
    budgeted_model,
)

if TYPE_CHECKING:
    from budget_guard_langchain import BudgetMiddleware

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

del _langchain


def __getattr__(name: str) -> Any:
    import budget_guard_langchain

    return getattr(budget_guard_langchain, name)
