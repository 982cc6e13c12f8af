"""Bedrock Converse: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from budget_guard.testing.answer import Answer
from budget_guard.testing.bedrock import exception_event, exception_headers, exception_in
from budget_guard.testing.event_stream import CONTENT_TYPE, event_frame, exception_frame
from budget_guard.testing.reply import ToolCall
from budget_guard.testing.request import ProviderRequest
from budget_guard.testing.tokens import weigh
from budget_guard.testing.wire import (
    Incoming,
    Json,
    Step,
    Wire,
    dressed,
    ending_kind,
    mapping,
    model_of,
    objects,
    optional_int,
    parsed_arguments,
    required,
    told_usage,
)
from budget_guard.units.usage import Usage

_STOP_REASONS = {
    "stop": "end_turn",
    "tool_calls": "tool_use",
    "length": "max_tokens",
    "content_filter": "content_filtered",
}


class BedrockConverseWire(Wire):
    """The operations Converse and ConverseStream. No answer names its model."""

    route = re.compile(r"/model/(?P<model>[^/]+)/(?P<verb>converse|converse-stream)$")

    def read(self, incoming: Incoming) -> ProviderRequest:
        body = incoming.body
        messages, system = required(body, "messages", list), body.get("system")
        settings, tools = mapping(body.get("inferenceConfig")), mapping(body.get("toolConfig"))
        specs = [mapping(tool.get("toolSpec")) for tool in objects(tools.get("tools"))]
        texts = [str(block["text"]) for block in objects(system) if "text" in block]
        return ProviderRequest(
            endpoint="converse",
            model=model_of(incoming),
            messages=messages,
            instructions="\n".join(texts) if texts else None,
            tools=tuple(str(spec["name"]) for spec in specs if "name" in spec),
            tool_choice=tools.get("toolChoice"),
            max_output_tokens=optional_int(settings, "maxTokens"),
            stream=incoming.named["verb"] == "converse-stream",
            temperature=settings.get("temperature"),
            service_tier=mapping(body.get("serviceTier")).get("type"),
            input_tokens=weigh(system, *messages, schemas=(tools.get("tools"),)),
            headers=incoming.headers,
            body=body,
            path=incoming.path,
            query=incoming.query,
        )

    def whole(self, request: ProviderRequest, answer: Answer) -> Json:
        texts: list[Json] = [{"text": answer.text}] if answer.text else []
        content = [*_thoughts(answer), *texts, *({"toolUse": _tool_use(call)} for call in answer.tool_calls)]
        message = {"role": "assistant", "content": content, **answer.reply.message_extra}
        return dressed(answer, {"output": {"message": message}, **_stop(answer), **_metadata(answer)})

    def stream(self, request: ProviderRequest, answer: Answer) -> Iterator[Step]:
        before = _thoughts(answer)
        blocks = [event for index, block in enumerate(before) for event in _thought_events(index, block)]
        yield Step("opening", [{"messageStart": {"role": "assistant"}}, *blocks])
        last_text = sum(isinstance(piece, str) for piece in answer.chunks) - 1
        for number, piece in enumerate(answer.chunks):
            # All pieces of text are one block, and they come first.
            index = len(before) + max(0, number - max(0, last_text))
            if isinstance(piece, ToolCall):
                yield Step("chunk", _tool_events(index, piece))
            else:
                delta = {"contentBlockDelta": {"contentBlockIndex": index, "delta": {"text": piece}}}
                yield Step("chunk", [delta, *([_ended(index)] if number == last_text else [])])
        yield Step("ending", [{"messageStop": _stop(answer)}])
        yield Step(ending_kind(answer), [{"metadata": dressed(answer, _metadata(answer))}])

    def event(self, request: ProviderRequest, data: Any) -> bytes:
        exception = exception_in(data)
        if exception is not None:
            return exception_frame(*exception)
        return b"".join(event_frame(kind, payload) for kind, payload in mapping(data).items())

    def stream_type(self, request: ProviderRequest) -> str:
        return CONTENT_TYPE

    def error(self, status: int, message: str) -> Json:
        return {"message": message}

    def error_headers(self, status: int) -> Mapping[str, str]:
        return exception_headers(status)

    def error_event(self, status: int, message: str) -> Json:
        return exception_event(status, message)


def _stop(answer: Answer) -> Json:
    return {"stopReason": _STOP_REASONS.get(answer.finish_reason, answer.finish_reason)}


def _metadata(answer: Answer) -> Json:
    tier = {"serviceTier": {"type": answer.service_tier}}
    return {**told_usage(answer, _usage(answer.usage())), "metrics": {"latencyMs": 1}, **tier}


def _usage(usage: Usage) -> Json:
    """What was cached is not among ``inputTokens``, but in the total."""
    written = {"5m": usage.cache_write_5m, "1h": usage.cache_write_1h}
    return {
        "inputTokens": usage.input_tokens - usage.cache_read - usage.cache_audio - sum(written.values()),
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.total_tokens,
        "cacheReadInputTokens": usage.cache_read + usage.cache_audio,
        "cacheWriteInputTokens": sum(written.values()),
        "cacheDetails": [{"ttl": ttl, "inputTokens": tokens} for ttl, tokens in written.items() if tokens],
    }


def _thoughts(answer: Answer) -> list[Json]:
    thought = {"text": "Let me think.", "signature": answer.id}
    return [{"reasoningContent": {"reasoningText": thought}}] if answer.reasoning_tokens else []


def _thought_events(index: int, block: Json) -> list[Json]:
    thought = block["reasoningContent"]["reasoningText"]
    deltas = [{"reasoningContent": {name: thought[name]}} for name in ("text", "signature")]
    events = [{"contentBlockDelta": {"contentBlockIndex": index, "delta": delta}} for delta in deltas]
    return [*events, _ended(index)]


def _tool_use(call: ToolCall) -> Json:
    return {"toolUseId": call.id, "name": call.name, "input": parsed_arguments(call.arguments_json)}


def _tool_events(index: int, call: ToolCall) -> list[Json]:
    start = {"toolUse": {"toolUseId": call.id, "name": call.name}}
    delta = {"toolUse": {"input": call.arguments_json}}
    return [
        {"contentBlockStart": {"contentBlockIndex": index, "start": start}},
        {"contentBlockDelta": {"contentBlockIndex": index, "delta": delta}},
        _ended(index),
    ]


def _ended(index: int) -> Json:
    return {"contentBlockStop": {"contentBlockIndex": index}}
