"""``from budget_guard.integrations.agent_framework import BudgetMiddleware``: Microsoft Agent Framework."""

try:
    import agent_framework as _agent_framework  # itself: an error inside the adapter is not its absence
except ImportError as error:
    raise ImportError('Agent Framework is not installed: pip install "budget-guard-py[agent-framework]"') from error

from budget_guard_agent_framework.errors import (
    BudgetExceeded,
    BudgetRevoked,
    BudgetStop,
    ForeignRun,
    InvalidDowngradeError,
    LedgerUnavailable,
    UnboundedCallError,
    UnknownPriceError,
)
from budget_guard_agent_framework.middleware import BudgetMiddleware, BudgetToolMiddleware

__all__ = [
    "BudgetExceeded",
    "BudgetMiddleware",
    "BudgetRevoked",
    "BudgetStop",
    "BudgetToolMiddleware",
    "ForeignRun",
    "InvalidDowngradeError",
    "LedgerUnavailable",
    "UnboundedCallError",
    "UnknownPriceError",
]

del _agent_framework
