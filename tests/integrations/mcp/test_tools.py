"""Tools over MCP are held before they run, seen from the client and from the server."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("mcp")
pytest.importorskip("mcp.server.mcpserver")

from mcp import Client, ClientSession
from mcp.server.mcpserver import MCPServer

from budget_guard import Budget, BudgetExceeded, BudgetRevoked, LoopDetected, LoopPolicy, Session
from budget_guard.integrations.mcp import guard_session
from tests.builders import ZERO, session

COSTS: Any = {"search": "0.01", "query": lambda result: len(result.content[0].text) * 0.01}


class Served:
    """A server with two tools, and what they were called with."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.go_on = asyncio.Event()
        self.server = MCPServer("tools")

        @self.server.tool()
        async def search(q: str) -> str:
            """Search it."""
            self.ran.append(q)
            if q == "slow":
                await self.go_on.wait()
            if q == "wrong":
                raise ValueError("no such thing")
            return "nothing"

        @self.server.tool()
        async def query(q: str) -> str:
            """Query it."""
            return q


@pytest.fixture
def served() -> Served:
    return Served()


def state(run: Session) -> tuple[Decimal, Decimal, int]:
    return run.spent_usd, run.reserved_usd, run.report().breakdown.tools.calls


async def test_of_twenty_calls_at_once_as_many_run_as_fit(served: Served) -> None:
    run = session(Budget("$0.05", max_wait_s=0))
    async with Client(served.server) as client:
        tools = guard_session(client, run, tool_costs=COSTS)
        found = await asyncio.gather(
            *(tools.call_tool("search", {"q": str(i)}) for i in range(20)), return_exceptions=True
        )
    assert Counter(type(each).__name__ for each in found) == {"CallToolResult": 5, "BudgetExceeded": 15}
    assert len(served.ran) == 5
    assert state(run) == (Decimal("0.05"), ZERO, 5)


async def test_a_session_guards_a_client_of_tools_and_its_type_stays(served: Served) -> None:
    run = session("$1.00")
    async with Client(served.server) as client:
        tools = run.guard(client, tool_costs=COSTS, agent="Researcher")
        inner = run.guard(client.session, tool_costs=COSTS)
        assert isinstance(tools, Client) and isinstance(inner, ClientSession)
        assert type(tools).__name__ == "Client"
        await tools.call_tool("search", {"q": "x"})
        await inner.call_tool(name="search", arguments={"q": "x"})
        await inner.call_tool("query", {"q": "123"})
        await client.call_tool("search", {"q": "x"})  # which is not guarded
        assert {tool.name for tool in (await tools.list_tools()).tools} == {"search", "query"}
    assert state(run) == (Decimal("0.05"), ZERO, 3)
    assert run.report().by_agent["Researcher"].total == Decimal("0.01")


async def test_a_tool_without_a_price_is_free_and_counted(served: Served) -> None:
    run = session(Budget(max_tool_calls=1))
    async with Client(served.server) as client:
        tools = guard_session(client, run)
        await tools.call_tool("search", {"q": "x"})
        with pytest.raises(BudgetExceeded):
            await tools.call_tool("search", {"q": "x"})


async def test_an_error_of_the_tool_is_booked(served: Served) -> None:
    run = session("$1.00")
    async with Client(served.server) as client:
        found = await guard_session(client, run, tool_costs=COSTS).call_tool("search", {"q": "wrong"})
    assert found.is_error
    assert state(run) == (Decimal("0.01"), ZERO, 1)


async def test_a_cancelled_call_is_booked(served: Served) -> None:
    run = session("$1.00")
    async with Client(served.server) as client:
        task = asyncio.ensure_future(guard_session(client, run, tool_costs=COSTS).call_tool("search", {"q": "slow"}))
        while not served.ran:
            await asyncio.sleep(0)
        assert run.reserved_usd == Decimal("0.01")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert state(run) == (Decimal("0.01"), ZERO, 1)
        served.go_on.set()


async def test_a_cost_function_that_raises_loses_no_result_and_warns_once(served: Served) -> None:
    run = session("$1.00")
    async with Client(served.server) as client:
        tools = guard_session(client, run, tool_costs={"query": lambda result: result.nothing})
        with pytest.warns(RuntimeWarning, match="'query' is not known") as told:
            for _ in range(2):
                assert (await tools.call_tool("query", {"q": "x"})).content
    assert len(told) == 1
    assert state(run) == (ZERO, ZERO, 2)


async def test_loops_and_revocations_stop_a_tool(served: Served) -> None:
    run = session(Budget("$1.00", loop=LoopPolicy()))
    async with Client(served.server) as client:
        tools = guard_session(client, run)
        for _ in range(6):
            await tools.call_tool("search", {"q": "x"})
        with pytest.raises(LoopDetected):
            await tools.call_tool("search", {"q": "x"})
        run.revoke("enough")
        with pytest.raises(BudgetRevoked):
            await tools.call_tool("query", {"q": "x"})
    assert len(served.ran) == 6


async def test_a_budget_or_a_guard_of_another_adapter_will_do(served: Served) -> None:
    agents = pytest.importorskip("budget_guard.integrations.openai_agents")
    guard = agents.BudgetGuard(Budget("$1.00"))
    async with Client(served.server) as client:
        await guard_session(client, guard, tool_costs=COSTS).call_tool("search", {"q": "x"})
        await guard_session(client, Budget("$1.00"), tool_costs=COSTS).call_tool("search", {"q": "x"})
    assert guard.spent_usd == Decimal("0.01")


async def test_what_makes_no_sense_is_refused(served: Served) -> None:
    client = Client(served.server)
    for wrong in (object(), Client, "x"):
        with pytest.raises(TypeError, match="client of MCP tools"):
            guard_session(wrong, Budget("$1.00"))
    for no_budget in ("$1.00", None):
        with pytest.raises(TypeError, match="neither a Budget nor a Session"):
            guard_session(client, no_budget)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"tool_costs\['search'\]"):
        guard_session(client, Budget("$1.00"), tool_costs={"search": "free"})
