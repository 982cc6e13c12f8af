"""``callbacks: ["budget_guard.integrations.litellm.proxy_guard"]``: LiteLLM, its proxy and its SDK."""

from __future__ import annotations

from typing import TYPE_CHECKING

try:
    import litellm as _litellm  # itself, so that an error inside the adapter is not taken for its absence
except ImportError as error:
    raise ImportError('LiteLLM is not installed: pip install "budget-guard-py[litellm]"') from error

from budget_guard_litellm.errors import (
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
from budget_guard_litellm.guard import BudgetGuard, acompletion, completion

if TYPE_CHECKING:
    from budget_guard_litellm.proxy import ProxyGuard

    proxy_guard: ProxyGuard
    """The guard of the proxy of this process, made of the environment when it is first named."""

__all__ = [
    "BudgetExceeded",
    "BudgetGuard",
    "BudgetRevoked",
    "BudgetStop",
    "ForeignRun",
    "InvalidDowngradeError",
    "LedgerUnavailable",
    "LoopDetected",
    "UnboundedCallError",
    "UnknownPriceError",
    "acompletion",
    "completion",
    "proxy_guard",
]

del _litellm


def __getattr__(name: str) -> object:
    if name != "proxy_guard":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from budget_guard_litellm.proxy import made_guard

    globals()[name] = guard = made_guard()  # one for each process
    return guard
