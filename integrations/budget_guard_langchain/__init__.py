"""budget_guard for LangChain and LangGraph."""

from budget_guard_langchain.errors import (
    BudgetDowngrade,
    BudgetExceeded,
    BudgetRevoked,
    BudgetStop,
    InvalidDowngradeError,
    UnboundedCallError,
    UnknownPriceError,
)
from budget_guard_langchain.handler import BudgetCallbackHandler
from budget_guard_langchain.scope import budget_scope

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
