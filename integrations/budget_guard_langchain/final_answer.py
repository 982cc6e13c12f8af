"""The final answer of an agent near its budget: how it is asked for, and what is said in its place."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from langchain.agents.middleware.types import ModelRequest
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage, BaseMessage, SystemMessage, ToolMessage

from budget_guard import BudgetExceeded, BudgetRevoked
from budget_guard.adapter.provider_words import FINAL_NOTE
from budget_guard.units.money import cost_nano, format_usd

NO_MORE = "Call no more tools."
"""What a model is told whose tool was refused."""


def wrapped_up(request: ModelRequest[Any]) -> ModelRequest[Any]:
    """*request* for a final answer: told so, and without tools to call."""
    system = request.system_message
    if system is None:
        told = SystemMessage(FINAL_NOTE)
    elif isinstance(system.content, str):
        told = SystemMessage(f"{system.content}\n\n{FINAL_NOTE}")
    else:
        told = SystemMessage([*system.content, {"type": "text", "text": FINAL_NOTE}])
    request = request.override(system_message=told)
    if not _needs_tools(request):
        return request.override(tools=[], tool_choice=None)
    if request.response_format is None:
        return request.override(tool_choice={"type": "none"})
    return request


def _needs_tools(request: ModelRequest[Any]) -> bool:
    """Whether the provider refuses the request without tools: Anthropic wants those that were called before."""
    return (
        any(cls.__name__ == "ChatAnthropic" for cls in type(request.model).__mro__)
        and any(isinstance(message, ToolMessage) for message in request.messages)
        and not isinstance(request.response_format, ToolStrategy)  # which is sent as a tool itself
    )


def farewell(stop: BudgetExceeded | BudgetRevoked) -> list[BaseMessage]:
    """The last messages of a run that is stopped: what came of an answer that was cut off, and why it is stopped.

    The metadata says by what.
    """
    stopped_by = stop.dimension if isinstance(stop, BudgetExceeded) else "revoked"
    metadata = {"budget_guard": {"stopped_by": stopped_by, "decision_id": stop.decision_id}}
    partial = [] if stop.partial_output is None else [AIMessage(stop.partial_output)]
    return [*partial, AIMessage(words(stop), response_metadata=metadata)]


def words(stop: BudgetExceeded | BudgetRevoked) -> str:
    """Why it is stopped, in few words."""
    if isinstance(stop, BudgetRevoked):
        return f"Stopped: {stop.scope} was cut off: {stop.reason}."
    limit, actual = (
        format_usd(cost_nano(figure)) if isinstance(figure, Decimal) else figure for figure in (stop.limit, stop.actual)
    )
    return f"Budget exceeded: {stop.dimension}={limit}, and {actual} is spent or held."
