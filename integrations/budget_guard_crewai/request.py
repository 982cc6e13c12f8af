"""What a call of a CrewAI LLM asks for, and what it used, in the core's terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crewai.llms.base_llm import BaseLLM

from budget_guard import ModelCall, Usage, weigh
from budget_guard.wire import Counts, read_counts

CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
"""The fields of LLMs that hold their output cap."""


def model_call(llm: BaseLLM, messages: Any, options: Mapping[str, Any], *, looked_at: bool) -> ModelCall:
    """The call that asking *llm* is.

    Args:
        llm: The LLM.
        messages: A prompt or messages.
        options: The arguments besides.
        looked_at: Whether what is really sent is held below, so that only the text has to be weighed here.
    """
    asked = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
    opaque = () if looked_at or not any(message.get("files") for message in asked) else ("a file",)
    if looked_at:
        asked = [str(message) for message in asked]
    tools: Any = options.get("tools") or ()
    wanted: Any = options.get("response_model") or getattr(llm, "response_format", None)
    schema = getattr(wanted, "model_json_schema", lambda: wanted)()
    prompt = weigh(
        messages=asked,
        tools=[tool if isinstance(tool, Mapping) else str(tool) for tool in tools],
        schema=schema,
        opaque=opaque,
    )
    agent = getattr(options.get("from_agent"), "role", None)
    return ModelCall(
        llm.model,
        prompt,
        max_output_tokens=cap_of(llm),
        needs=prompt.needs(tools=bool(tools), schema=schema is not None),
        choices=llm.n or 1,
        agent=None if agent is None else str(agent),
    )


def cap_of(llm: BaseLLM) -> int | None:
    """The output cap that is set, the largest where there are several."""
    found = [getattr(llm, name, None) for name in CAPS]
    return max((int(cap) for cap in found if isinstance(cap, (int, float)) and cap > 0), default=None)


def usage_of(counted: Mapping[str, int]) -> Usage | None:
    """What a call used, by CrewAI's own counters of it alone; None where they counted nothing."""
    if not counted.get("successful_requests"):
        return None
    counts = Counts(
        counted.get("prompt_tokens"),
        counted.get("completion_tokens"),
        cache_read=counted.get("cached_prompt_tokens") or None,
        cache_write=counted.get("cache_creation_tokens") or None,
        reasoning=counted.get("reasoning_tokens") or None,
    )
    return read_counts(counts).usage
