"""``from budget_guard.integrations.openai_agents import BudgetGuard``: the OpenAI Agents SDK."""

try:
    import agents as _agents  # the SDK itself, so that an error inside the adapter is not taken for its absence
except ImportError as error:
    raise ImportError('The OpenAI Agents SDK is not installed: pip install "budget-guard-py[openai-agents]"') from error

from budget_guard_openai_agents.composite import CompositeRunHooks
from budget_guard_openai_agents.errors import (
    BudgetExceeded,
    BudgetRevoked,
    BudgetStop,
    ForeignRun,
    InvalidDowngradeError,
    LedgerUnavailable,
    LoopDetected,
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
    "LoopDetected",
    "UnboundedCallError",
    "UnknownPriceError",
]

del _agents
