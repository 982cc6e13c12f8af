"""What type checkers make of guarded clients of MCP tools. Checked, never run."""

from __future__ import annotations

from mcp import ClientSession
from typing_extensions import assert_type

from budget_guard import Budget
from budget_guard.integrations.mcp import BudgetToolMiddleware, guard_session


async def run(client: ClientSession) -> None:
    tools = guard_session(client, Budget("$1.00"), tool_costs={"search": "0.01", "query": lambda result: 0.01})
    assert_type(tools, ClientSession)
    with Budget("$1.00").session() as session:
        assert_type(session.guard(client, tool_costs={"search": 0.01}), ClientSession)
        assert_type(guard_session(client, session, agent="Researcher"), ClientSession)
        BudgetToolMiddleware(session, tool_costs={"search": "0.01"})
