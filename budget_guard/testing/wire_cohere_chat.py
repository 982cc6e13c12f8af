"""Cohere Chat, version 2: https://docs.cohere.com/reference/chat."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count
from typing import Any

from budget_guard.testing.answer import Answer
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
    optional_int,
    required,
    told_usage,
    tool_names,
)
from budget_guard.units.usage import Usage

_FINISH_REASONS = {
    "stop": "COMPLETE",
    "tool_calls": "TOOL_CALL",
    "length": "MAX_TOKENS",
    "content_filter": "ERROR_TOXIC",
}


class CohereChatWire(Wire):
    """The endpoint ``/v2/chat``. No answer names its model."""

    route = re.compile(r"/v2/chat$")
    events_are_named = True

    def read(self, incoming: Incoming) -> ProviderRequest:
        body = incoming.body
        messages = required(body, "messages", list)
        choice = body.get("tool_choice")
        return ProviderRequest(
            endpoint="cohere_chat",
            model=model_of(incoming),
            messages=messages,
            tools=tool_names(body.get("tools")),
            tool_choice="none" if choice == "NONE" else choice,
            max_output_tokens=optional_int(body, "max_tokens"),
            stream=bool(body.get("stream")),
            temperature=body.get("temperature"),
            input_tokens=weigh(
                *messages, schemas=(body.get("tools"), body.get("documents"), mapping(body.get("response_format")))
            ),
            headers=incoming.headers,
            body=body,
            path=incoming.path,
            query=incoming.query,
        )

    def whole(self, request: ProviderRequest, answer: Answer) -> Json:
        texts = [{"type": "text", "text": answer.text}] if answer.text else []
        calls = [_tool_call(call, call.arguments_json) for call in answer.tool_calls]
        message: Json = {"role": "assistant", "content": texts, **({"tool_calls": calls} if calls else {})}
        message |= answer.reply.message_extra
        return dressed(answer, {"id": answer.wire_id(""), "message": message, **_end(answer)})

    def stream(self, request: ProviderRequest, answer: Answer) -> Iterator[Step]:
        empty: Json = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
        opening = _event("message-start", message=empty)
        yield Step("opening", [dressed(answer, {"id": answer.wire_id(""), **opening})])
        last_text = sum(isinstance(piece, str) for piece in answer.chunks) - 1
        positions = count()
        for number, piece in enumerate(answer.chunks):
            if isinstance(piece, ToolCall):
                yield Step("chunk", _tool_events(next(positions), piece))
                continue
            content = {"type": "text", "text": ""}
            started = [_event("content-start", index=0, message={"content": content})] if number == 0 else []
            ended = [{"type": "content-end", "index": 0}] if number == last_text else []
            delta = _event("content-delta", index=0, message={"content": {"text": piece}})
            yield Step("chunk", [*started, delta, *ended])
        yield Step(ending_kind(answer), [{"type": "message-end", "delta": _end(answer)}])

    def error(self, status: int, message: str) -> Json:
        return {"message": message}

    def error_event(self, status: int, message: str) -> Json:
        return {"type": "message-end", "delta": {"finish_reason": "ERROR", "error": message}}


def _end(answer: Answer) -> Json:
    finish = _FINISH_REASONS.get(answer.finish_reason, answer.finish_reason)
    return {"finish_reason": finish, **told_usage(answer, _usage(answer, answer.usage()))}


def _usage(answer: Answer, usage: Usage) -> Json:
    counts = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    searches = {"search_units": answer.web_searches} if answer.web_searches else {}
    return {"billed_units": {**counts, **searches}, "tokens": counts, "cached_tokens": usage.cache_read}


def _event(kind: str, index: int | None = None, **delta: Any) -> Json:
    return {"type": kind, **({} if index is None else {"index": index}), "delta": delta}


def _tool_call(call: ToolCall, arguments: str) -> Json:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _tool_events(index: int, call: ToolCall) -> list[Json]:
    filled = {"function": {"arguments": call.arguments_json}}
    return [
        _event("tool-call-start", index=index, message={"tool_calls": _tool_call(call, "")}),
        _event("tool-call-delta", index=index, message={"tool_calls": filled}),
        {"type": "tool-call-end", "index": index},
    ]
