"""``from budget_guard.integrations.langchain import BudgetCallbackHandler``: LangChain and LangGraph."""

import importlib
from typing import TYPE_CHECKING, Any

try:
    import langchain_core as _langchain  # itself, so that an error inside the adapter is not taken for its absence
except ImportError as error:
    raise ImportError('LangChain is not installed: pip install "budget-guard-py[langchain]"') from error

from budget_guard_langchain.handler import BudgetCallbackHandler
from budget_guard_langchain.response import read_message as read_message  # for session.wrap
from budget_guard_langchain.scope import budget_scope

if TYPE_CHECKING:
    from budget_guard_langchain.budgeted_model import budgeted_model
    from budget_guard_langchain.errors import (
        BudgetDowngrade,
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
    from budget_guard_langchain.middleware import BudgetMiddleware

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
    "LoopDetected",
    "UnboundedCallError",
    "UnknownPriceError",
    "budget_scope",
    "budgeted_model",
]

del _langchain


def __getattr__(name: str) -> Any:
    """The names that not every program needs: they take long to import."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    modules = {"BudgetMiddleware": "middleware", "budgeted_model": "budgeted_model"}
    module = importlib.import_module(f"budget_guard_langchain.{modules.get(name, 'errors')}")
    found = globals()[name] = getattr(module, name)
    return found
