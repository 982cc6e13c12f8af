"""``from budget_guard.integrations.llama_index import guard_llm``: LlamaIndex."""

try:
    import llama_index.core as _llama_index  # itself, so that an error inside the adapter is not taken for its absence
except ImportError as error:
    raise ImportError('LlamaIndex is not installed: pip install "budget-guard-py[llama-index]"') from error

from budget_guard_llama_index.errors import (
    BudgetExceeded,
    BudgetRevoked,
    BudgetStop,
    ForeignRun,
    InvalidDowngradeError,
    LedgerUnavailable,
    UnboundedCallError,
    UnknownPriceError,
)
from budget_guard_llama_index.llm import guard_llm, session_of

__all__ = [
    "BudgetExceeded",
    "BudgetRevoked",
    "BudgetStop",
    "ForeignRun",
    "InvalidDowngradeError",
    "LedgerUnavailable",
    "UnboundedCallError",
    "UnknownPriceError",
    "guard_llm",
    "session_of",
]

del _llama_index
