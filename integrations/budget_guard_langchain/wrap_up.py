"""How an agent is asked for its final answer."""

from __future__ import annotations

from typing import Any

from langchain.agents.middleware.types import ModelRequest
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import SystemMessage, ToolMessage

FINAL_NOTE = "The budget of this run is used up. Answer now with what you have. No more tools can be called."


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
