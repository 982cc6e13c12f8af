"""``from budget_guard.integrations.crewai import guard_crew``: CrewAI."""

try:
    import crewai as _crewai  # itself, so that an error inside the adapter is not taken for its absence
except ImportError as error:
    raise ImportError('CrewAI is not installed: pip install "budget-guard-py[crewai]"') from error

from budget_guard_crewai.crew import guard_crew, guard_llm, session_of
from budget_guard_crewai.errors import (
    BudgetExceeded,
    BudgetRevoked,
    BudgetStop,
    ForeignRun,
    InvalidDowngradeError,
    LedgerUnavailable,
    UnboundedCallError,
    UnknownPriceError,
)

__all__ = [
    "BudgetExceeded",
    "BudgetRevoked",
    "BudgetStop",
    "ForeignRun",
    "InvalidDowngradeError",
    "LedgerUnavailable",
    "UnboundedCallError",
    "UnknownPriceError",
    "guard_crew",
    "guard_llm",
    "session_of",
]

del _crewai
