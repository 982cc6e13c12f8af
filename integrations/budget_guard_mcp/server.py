"""The middleware of a FastMCP server that holds the calls of its tools."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from budget_guard import BudgetError, Session
from budget_guard.adapter import ToolCost
from budget_guard_mcp.calls import Guard, PricedTools

if TYPE_CHECKING:

    class Middleware:
        """FastMCP's own."""

    class ToolError(Exception):
        """FastMCP's own."""

else:
    try:
        from fastmcp.exceptions import ToolError
        from fastmcp.server.middleware import Middleware
    except ImportError as error:
        raise ImportError("BudgetToolMiddleware needs a FastMCP server: pip install fastmcp") from error


class BudgetToolMiddleware(Middleware):
    """Holds every tool call of a FastMCP server in a budget before the tool runs, and books it after.

    ::

        server = FastMCP("search", middleware=[BudgetToolMiddleware(Budget("$5.00"), tool_costs={"search": "0.01"})])

    A call that does not fit is answered as an error of the tool, which the client and its model can read:
    ``BUDGET_EXCEEDED ...``, ``BUDGET_REVOKED ...``, ``LOOP_DETECTED ...``. All clients of the server spend from the
    one budget.

    Args:
        guard: Whose money the tools spend: a budget, a session, or a guard or handler of another adapter.
        tool_costs: What the tools cost a call, by name: dollars, or a function of the result. Others are free, and
            counted in ``max_tool_calls``.

    Raises:
        TypeError: If *guard* is none.
        ValueError: If a cost is no amount of money.
    """

    def __init__(self, guard: Guard, *, tool_costs: Mapping[str, ToolCost] | None = None) -> None:
        self._tools = PricedTools(guard, tool_costs, None, "BudgetToolMiddleware")

    @property
    def session(self) -> Session:
        """The session that the tools spend from."""
        return self._tools.session

    async def on_call_tool(self, context: Any, call_next: Any) -> Any:
        """Hold the call, and make it."""
        asked = context.message
        try:
            return await self._tools.call(asked.name, asked.arguments, lambda: call_next(context))
        except BudgetError as stop:
            code = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(stop).__name__).upper()
            raise ToolError(f"{code} {stop}") from stop
