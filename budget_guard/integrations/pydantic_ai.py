"""``from budget_guard.integrations.pydantic_ai import BudgetModel``: pydantic-ai."""

try:
    import pydantic_ai as _pydantic_ai  # itself, so that an error inside the adapter is not taken for its absence
except ImportError as error:
    raise ImportError('pydantic-ai is not installed: pip install "budget-guard-py[pydantic-ai]"') from error

from budget_guard_pydantic_ai.errors import (
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
from budget_guard_pydantic_ai.model import BudgetModel

__all__ = [
    "BudgetExceeded",
    "BudgetModel",
    "BudgetRevoked",
    "BudgetStop",
    "ForeignRun",
    "InvalidDowngradeError",
    "LedgerUnavailable",
    "LoopDetected",
    "UnboundedCallError",
    "UnknownPriceError",
]

del _pydantic_ai
