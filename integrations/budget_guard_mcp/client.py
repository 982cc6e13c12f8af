"""`guard_session`: a view of an MCP client whose every tool call is held in a budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from budget_guard.adapter import ToolCost
from budget_guard_mcp.calls import Guard, PricedTools

T = TypeVar("T")


def guard_session(
    client_session: T,
    guard: Guard,
    *,
    tool_costs: Mapping[str, ToolCost] | None = None,
    agent: str | None = None,
) -> T:
    """A view of *client_session* whose every ``call_tool`` is held before it is sent, and booked after.

    ::

        tools = guard_session(client_session, Budget("$1.00"), tool_costs={"search": "0.01"})
        await tools.call_tool("search", {"q": "cats"})

    It is of the same type, and shares all that the session itself has; that one is not guarded. What is sent with
    `send_request` is not seen.

    Args:
        client_session: An `mcp.ClientSession`, an `mcp.Client`, a `fastmcp.Client`, or a group of them.
        guard: Whose money the tools spend: a budget, a session, or a guard or handler of another adapter.
        tool_costs: What the tools cost a call, by name: dollars, or a function of the result. Others are free, and
            counted in ``max_tool_calls``.
        agent: Whom to attribute the calls to.

    Raises:
        TypeError: If it is no client of MCP tools, or *guard* is none.
        ValueError: If a cost is no amount of money.
    """
    cls: Any = type(client_session)
    if isinstance(client_session, type) or not callable(getattr(client_session, "call_tool", None)):
        name = client_session.__name__ if isinstance(client_session, type) else cls.__name__
        raise TypeError(
            f"{name} is no open client of MCP tools: give guard_session an mcp.ClientSession, an mcp.Client or a "
            "fastmcp.Client, an instance of it"
        )
    tools = PricedTools(guard, tool_costs, agent, "guard_session")
    # FastMCP's own call_tool goes through this one, which can be called by itself as well
    verb = "call_tool_mcp" if hasattr(cls, "call_tool_mcp") else "call_tool"

    async def call_tool(self: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        arguments = args[0] if args else kwargs.get("arguments")
        return await tools.call(name, arguments, lambda: getattr(cls, verb)(self, name, *args, **kwargs))

    call_tool.__doc__ = getattr(cls, verb).__doc__
    said = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    guarded = type(cls.__name__, (cls,), {verb: call_tool, **said})
    view: Any = object.__new__(guarded)
    view.__dict__ = cast(Any, client_session).__dict__  # the very same one: what the session learns, its view knows
    return cast(T, view)
