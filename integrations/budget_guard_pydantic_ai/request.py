"""What a request of pydantic-ai asks for, and what its answer used, in the core's terms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.settings import ModelSettings

from budget_guard import ModelCall, Usage, weigh
from budget_guard.adapter import Answered, hosted_tool, medium, opaque_parts
from budget_guard.wire import Counts, read_counts

_TEXT_PARTS = frozenset(
    {"system-prompt", "user-prompt", "tool-return", "retry-prompt", "text", "thinking", "tool-call"}
)
"""Parts of messages that are no more than their texts."""


def model_call(
    model: Model,
    messages: Sequence[ModelMessage],
    settings: ModelSettings | None,
    parameters: ModelRequestParameters,
    *,
    agent: str | None,
    looked_at: bool,
) -> ModelCall:
    """The call that a request is.

    Args:
        model: The model.
        messages: The conversation.
        settings: The settings of the request.
        parameters: Its tools and its output.
        agent: Whom to attribute it to.
        looked_at: Whether what is really sent is held below, so that only the text has to be weighed here.
    """
    opaque: list[str] = []
    tools = [*parameters.function_tools, *parameters.output_tools]
    definitions = [_definition(tool) for tool in tools]
    schema = getattr(parameters.output_object, "json_schema", None)
    hosted: list[str] = []
    if not looked_at:
        hosted += [hosted_tool(tool.kind) or tool.kind for tool in parameters.native_tools]
        opaque += opaque_parts({}, hosted)
    weighed = [_message(message, None if looked_at else opaque) for message in messages]
    prompt = weigh(messages=weighed, tools=definitions, schema=schema, opaque=tuple(dict.fromkeys(opaque)))
    return ModelCall(
        model.model_name,
        prompt,
        max_output_tokens=cap_of(model, settings),
        needs=prompt.needs(tools=bool(tools), schema=parameters.output_mode == "native"),
        hosted_tools=tuple(dict.fromkeys(hosted)),
        agent=agent,
    )


def cap_of(model: Model, settings: ModelSettings | None) -> int | None:
    """The output cap that is set, by the request or by the model."""
    return next((cap for given in (settings, model.settings) if given and (cap := given.get("max_tokens"))), None)


def _definition(tool: Any) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "parameters": tool.parameters_json_schema}


def _message(message: ModelMessage, opaque: list[str] | None) -> dict[str, Any]:
    """*message* as texts. What in it is more is added to *opaque*; None where that does not matter."""
    parts: list[Any] = []
    for part in message.parts:
        content = getattr(part, "content", None)
        said = {
            "name": getattr(part, "tool_name", None) or "",
            "id": getattr(part, "tool_call_id", None) or "",
            "arguments": _text(getattr(part, "args", None)),
            "signature": getattr(part, "signature", None) or "",
            "content": [_content(each, opaque) for each in content]
            if isinstance(content, (list, tuple))
            else _content(content, opaque),
        }
        parts.append(said)
        if opaque is not None and part.part_kind not in _TEXT_PARTS:
            opaque.append(f"a part of the kind {part.part_kind}")
    return {"role": message.kind, "parts": parts, "instructions": getattr(message, "instructions", None) or ""}


def _content(content: Any, opaque: list[str] | None) -> str:
    """The text of a piece of content."""
    if content is None or isinstance(content, str):
        return content or ""
    kind = getattr(content, "kind", None)
    if kind == "cache-point":
        return ""
    if isinstance(kind, str) and kind != "text":  # a file, given or named
        if opaque is not None:  # kinds are "image-url", "binary" and the like
            opaque.append(medium(getattr(content, "media_type", "") if kind == "binary" else kind.partition("-")[0]))
        return ""
    return _text(getattr(content, "content", content) if kind == "text" else content)


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json")
    return vars(value) if hasattr(value, "__dict__") else str(value)


def usage_of(answer: Any) -> Usage | None:
    """What an answer used; None where the provider did not say, or what it said makes no sense.

    Args:
        answer: A response, whole or streamed.
    """
    usage = answer.usage
    if callable(usage):  # of a stream, in older versions
        usage = usage()
    if not usage.has_values():
        return None
    details: Mapping[str, int] = usage.details or {}
    counts = Counts(
        usage.input_tokens,
        usage.output_tokens,
        cache_read=usage.cache_read_tokens or None,
        cache_write=usage.cache_write_tokens or None,
        input_audio=usage.input_audio_tokens or None,
        cache_audio=usage.cache_audio_read_tokens or None,
        reasoning=details.get("reasoning_tokens") or None,
        output_audio=getattr(usage, "output_audio_tokens", 0) or None,
    )
    return read_counts(counts, input_parts="inside", output_parts="inside").usage


def answered(told: Any, answer: ModelResponse) -> Answered:
    """What an *answer* says, and what whoever *told* of it says that it used."""
    text = "".join(part.content for part in answer.parts if part.part_kind == "text")
    return Answered(usage_of(told), told.finish_reason == "length", text or None)
