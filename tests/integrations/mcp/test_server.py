"""A FastMCP server holds the calls of its tools: what its clients see."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal
from importlib import import_module
from typing import Any

import pytest

pytest.importorskip("fastmcp")

from budget_guard import Budget, Session
from budget_guard.integrations.mcp import BudgetToolMiddleware, guard_session
from tests.builders import ZERO, session

fastmcp: Any = import_module("fastmcp")
COSTS: Any = {"search": "0.01"}


def served(run: Session | None) -> tuple[Any, list[str]]:
    ran: list[str] = []
    server: Any = fastmcp.FastMCP(
        "tools", middleware=[] if run is None else [BudgetToolMiddleware(run, tool_costs=COSTS)]
    )

    async def search(q: str) -> str:
        ran.append(q)
        await asyncio.sleep(0)
        return "nothing"

    server.tool(search)
    return server, ran


async def test_as_many_run_as_fit_and_the_client_reads_why_the_others_do_not() -> None:
    run = session(Budget("$0.05", max_wait_s=0))
    server, ran = served(run)
    async with fastmcp.Client(server) as client:
        calls = (client.call_tool("search", {"q": str(i)}, raise_on_error=False) for i in range(20))
        found = await asyncio.gather(*calls)
    assert Counter(each.is_error for each in found) == {False: 5, True: 15}
    assert len(ran) == 5
    assert all("BUDGET_EXCEEDED max_cost_usd" in str(each.content) for each in found if each.is_error)
    assert (run.spent_usd, run.reserved_usd) == (Decimal("0.05"), ZERO)


async def test_a_revoked_server_says_so() -> None:
    run = session("$1.00")
    server, _ = served(run)
    run.revoke("compromised")
    async with fastmcp.Client(server) as client:
        found = await client.call_tool("search", {"q": "x"}, raise_on_error=False)
    assert "BUDGET_REVOKED" in str(found.content) and "compromised" in str(found.content)


@pytest.mark.parametrize("verb", ["call_tool", "call_tool_mcp"])
async def test_a_client_of_fastmcp_can_be_guarded_too(verb: str) -> None:
    run = session("$0.015")
    server, ran = served(None)
    async with fastmcp.Client(server) as client:
        tools = guard_session(client, run, tool_costs=COSTS)
        await getattr(tools, verb)("search", {"q": "x"})
        with pytest.raises(Exception, match="max_cost_usd"):
            await getattr(tools, verb)("search", {"q": "x"})
    assert len(ran) == 1
    assert run.spent_usd == Decimal("0.01")


def test_a_guard_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match="neither a Budget nor a Session"):
        BudgetToolMiddleware("$1")  # type: ignore[arg-type]
    assert BudgetToolMiddleware(Budget("$1")).session.budget == Budget("$1")
