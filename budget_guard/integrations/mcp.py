"""``from budget_guard.integrations.mcp import guard_session``: tools over the Model Context Protocol."""

import importlib
from typing import TYPE_CHECKING, Any

try:
    import mcp as _mcp  # itself, so that an error inside the adapter is not taken for its absence
except ImportError as error:
    raise ImportError('MCP is not installed: pip install "budget-guard-py[mcp]"') from error

from budget_guard_mcp.client import guard_session

if TYPE_CHECKING:
    from budget_guard_mcp.server import BudgetToolMiddleware

__all__ = ["BudgetToolMiddleware", "guard_session"]

del _mcp


def __getattr__(name: str) -> Any:
    """The middleware, which needs a FastMCP server."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module("budget_guard_mcp.server"), name)
    return found
