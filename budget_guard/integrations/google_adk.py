"""``from budget_guard.integrations.google_adk import BudgetLlm``: Google ADK."""

try:
    import google.adk as _google_adk  # itself, so that an error inside the adapter is not taken for its absence
except ImportError as error:
    raise ImportError('Google ADK is not installed: pip install "budget-guard-py[google-adk]"') from error

from budget_guard_google_adk.errors import (
    BudgetExceeded,
    BudgetRevoked,
    BudgetStop,
    ForeignRun,
    InvalidDowngradeError,
    LedgerUnavailable,
    UnboundedCallError,
    UnknownPriceError,
)
from budget_guard_google_adk.llm import BudgetLlm, BudgetPlugin

__all__ = [
    "BudgetExceeded",
    "BudgetLlm",
    "BudgetPlugin",
    "BudgetRevoked",
    "BudgetStop",
    "ForeignRun",
    "InvalidDowngradeError",
    "LedgerUnavailable",
    "UnboundedCallError",
    "UnknownPriceError",
]

del _google_adk
