"""budget_guard for the OpenAI Agents SDK."""

from budget_guard_openai_agents.composite import CompositeRunHooks
from budget_guard_openai_agents.errors import (
    BudgetExceeded,
    BudgetRevoked,
    BudgetStop,
    ForeignRun,
    InvalidDowngradeError,
    LedgerUnavailable,
    UnboundedCallError,
    UnknownPriceError,
)
from budget_guard_openai_agents.guard import BudgetGuard

__all__ = [
    "BudgetExceeded",
    "BudgetGuard",
    "BudgetRevoked",
    "BudgetStop",
    "CompositeRunHooks",
    "ForeignRun",
    "InvalidDowngradeError",
    "LedgerUnavailable",
    "UnboundedCallError",
    "UnknownPriceError",
]
