"""What a chat request of Agent Framework asks for, and what its answer used, in the core's terms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agent_framework import ChatContext, ChatResponse, Message

from budget_guard import ModelCall, Usage, weigh
from budget_guard.adapter import OUTPUT_CAPS, Answered, hosted_tool, medium, opaque_parts
from budget_guard.wire import Counts, read_counts
from budget_guard.wire.values import fields

_TEXT = frozenset(
    {
        *("text", "text_reasoning", "error", "function_call", "function_result", "usage"),
        *("function_approval_request", "function_approval_response"),
    }
)
"""Contents that are no more than their texts."""


def options_of(context: ChatContext) -> dict[str, Any]:
    """The options of a request."""
    return dict(context.options or {})


def model_of(context: ChatContext) -> str:
    """The model that a request asks for; empty where neither it nor its client names one."""
    named = fields(context.options).get("model")
    client: Any = context.client
    return str(named or getattr(client, "model", None) or getattr(client, "model_id", None) or "")


def cap_of(options: Mapping[str, Any]) -> int | None:
    """The output cap that is set."""
    found = [options.get(name) for name in OUTPUT_CAPS]
    return max((cap for cap in found if isinstance(cap, int) and cap > 0), default=None)


def model_call(context: ChatContext, *, agent: str | None) -> ModelCall:
    """The call that a request is."""
    options = options_of(context)
    opaque: list[str] = []
    hosted: list[str] = []
    definitions: list[Any] = []
    given: Any = options.get("tools") or ()
    for tool in given if isinstance(given, (list, tuple)) else (given,):
        spec = getattr(tool, "to_json_schema_spec", None)
        kind = fields(tool).get("type")
        if spec is not None:
            definitions.append(spec())
        elif isinstance(tool, Mapping) and kind not in (None, "function"):  # one that the provider runs
            hosted.append(hosted_tool(kind) or str(kind))
        else:
            definitions.append(tool if isinstance(tool, Mapping) else str(tool))
    opaque += opaque_parts(options, hosted)
    wanted: Any = options.get("response_format")
    schema = getattr(wanted, "model_json_schema", lambda: wanted)()
    messages = [_message(message, opaque) for message in context.messages]
    prompt = weigh(
        system=options.get("instructions") or None,
        messages=messages,
        tools=definitions,
        schema=schema,
        opaque=tuple(dict.fromkeys(opaque)),
    )
    return ModelCall(
        model_of(context),
        prompt,
        max_output_tokens=cap_of(options),
        needs=prompt.needs(tools=bool(definitions), schema=schema is not None),
        choices=options.get("n") or 1,
        hosted_tools=tuple(dict.fromkeys(hosted)),
        agent=agent,
    )


def _message(message: Message, opaque: list[str]) -> dict[str, Any]:
    """*message* as texts. What in it is more is added to *opaque*."""
    parts: list[str] = []
    for content in message.contents:
        if content.type in ("data", "uri"):
            opaque.append(medium(getattr(content, "media_type", None)))
        elif content.type not in _TEXT:
            opaque.append(f"content of the type {content.type}")
        else:
            parts.append(json.dumps(content.to_dict(), default=str))
    return {"role": str(message.role), "content": parts}


def answered(answer: ChatResponse[Any]) -> Answered:
    """What an *answer* says."""
    return Answered(usage_of(answer.usage_details), answer.finish_reason == "length", answer.text or None)


def usage_of(details: Mapping[str, Any] | None) -> Usage | None:
    """What an answer used; None where it does not say, or makes no sense."""
    said = fields(details)
    if not (said.get("input_token_count") or said.get("output_token_count")):
        return None
    counts = Counts(
        said.get("input_token_count"),
        said.get("output_token_count"),
        said.get("total_token_count"),
        cache_read=said.get("cache_read_input_token_count"),
        cache_write=said.get("cache_creation_input_token_count"),
        reasoning=said.get("reasoning_output_token_count"),
    )
    return read_counts(counts).usage
