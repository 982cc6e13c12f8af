"""``from budget_guard.integrations.langchain import BudgetCallbackHandler``: LangChain and LangGraph."""

try:
    import langchain_core as _langchain  # itself, so that an error inside the adapter is not taken for its absence
except ImportError as error:
    raise ImportError('LangChain is not installed: pip install "budget-guard[langchain]"') from error

from budget_guard_langchain import (
    BudgetCallbackHandler,
    BudgetDowngrade,
    BudgetExceeded,
    BudgetRevoked,
    BudgetStop,
    InvalidDowngradeError,
    UnboundedCallError,
    UnknownPriceError,
    budget_scope,
)

__all__ = [
    "BudgetCallbackHandler",
    "BudgetDowngrade",
    "BudgetExceeded",
    "BudgetRevoked",
    "BudgetStop",
    "InvalidDowngradeError",
    "UnboundedCallError",
    "UnknownPriceError",
    "budget_scope",
]

del _langchain
