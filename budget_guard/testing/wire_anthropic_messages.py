"""Anthropic Messages: https://platform.claude.com/docs/en/api/messages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, cast

from budget_guard.testing.answer import Answer
from budget_guard.testing.reply import ToolCall
from budget_guard.testing.request import MalformedRequest, ProviderRequest
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
    parsed_arguments,
    required,
    told_usage,
    tool_names,
)
from budget_guard.units.usage import Usage

_STOP_REASONS = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens", "content_filter": "refusal"}
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_TIERS = {"standard_only": "default"}


class AnthropicMessagesWire(Wire):
    """The endpoint ``/v1/messages``."""

    route = re.compile(r"/messages$")
    events_are_named = True

    def read(self, incoming: Incoming) -> ProviderRequest:
        body = incoming.body
        system = body.get("system")
        messages = required(body, "messages", list)
        cap = optional_int(body, "max_tokens")
        if cap is None:
            raise MalformedRequest("max_tokens: Field required")
        choice, output, tier = body.get("tool_choice"), mapping(body.get("output_config")), body.get("service_tier")
        return ProviderRequest(
            endpoint="messages",
            model=model_of(incoming),
            messages=messages,
            instructions=_joined(system),
            tools=tool_names(body.get("tools")),
            tool_choice="none" if mapping(choice).get("type") == "none" else choice,
            max_output_tokens=cap,
            stream=self.streams(incoming),
            temperature=body.get("temperature"),
            reasoning_effort=output.get("effort"),
            service_tier=_TIERS.get(str(tier), tier),
            input_tokens=weigh(system, *messages, schemas=(body.get("tools"), output.get("format"))),
            headers=incoming.headers,
            body=body,
            path=incoming.path,
            query=incoming.query,
        )

    def streams(self, incoming: Incoming) -> bool:
        """Whether the answer is to be streamed."""
        return bool(incoming.body.get("stream"))

    def least_cap(self, request: ProviderRequest) -> int:
        # Thinking is a part of the output: its budget has to leave room for an answer.
        budget = mapping(request.body.get("thinking")).get("budget_tokens")
        return budget + 1 if type(budget) is int else 1

    def whole(self, request: ProviderRequest, answer: Answer) -> Json:
        texts = [{"type": "text", "text": answer.text}] if answer.text else []
        content = [*_preliminaries(answer), *texts, *map(_tool_use, answer.tool_calls)]
        true = _input_counts(answer) | _input_details(answer) | _output_counts(answer, answer.usage())
        return dressed(answer, {**_envelope(answer), "content": content, **_stop(answer), **told_usage(answer, true)})

    def stream(self, request: ProviderRequest, answer: Answer) -> Iterator[Step]:
        opening = answer.reply.opening_usage
        if opening is None:
            usage = told_usage(answer, {**_input_counts(answer), **_input_details(answer), "output_tokens": 1})
        else:
            usage = {"usage": opening}
        before = _preliminaries(answer)
        blocks = [event for index, block in enumerate(before) for event in _block(index, block)]
        message = dressed(answer, {**_envelope(answer), **usage})
        yield Step("opening", [_event("message_start", message=message), *blocks])
        last_text = sum(isinstance(piece, str) for piece in answer.chunks) - 1
        for number, piece in enumerate(answer.chunks):
            # All pieces of text are one block, and they come first.
            index = len(before) + max(0, number - max(0, last_text))
            if isinstance(piece, ToolCall):
                events = _block(index, _tool_use(piece))
            else:
                events = _text(index, piece, first=number == 0, last=number == last_text)
            if answer.reply.stream_usage == "every":
                nothing = {"stop_reason": None, "stop_sequence": None}
                events = [*events, _delta(answer, nothing, answer.usage(number + 1))]
            yield Step("chunk", events)
        ended = [_delta(answer, _stop(answer), answer.usage()), _event("message_stop")]
        yield Step(ending_kind(answer), ended)

    def error(self, status: int, message: str) -> Json:
        fallback = "api_error" if status >= 500 else "invalid_request_error"
        return {"type": "error", "error": {"type": _ERROR_TYPES.get(status, fallback), "message": message}}


def _joined(system: object) -> str | None:
    """The system prompt, which may be given in blocks."""
    if isinstance(system, list):
        return "\n".join(str(mapping(block).get("text")) for block in cast("list[object]", system))
    return system if isinstance(system, str) else None


def _envelope(answer: Answer) -> Json:
    return {
        "id": answer.wire_id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _stop(answer: Answer) -> Json:
    return {"stop_reason": _STOP_REASONS.get(answer.finish_reason, answer.finish_reason), "stop_sequence": None}


def _preliminaries(answer: Answer) -> list[Json]:
    """What comes before the model speaks: its thoughts, and the searches of the provider's own tool."""
    blocks: list[Json] = []
    if answer.reasoning_tokens:
        blocks.append({"type": "thinking", "thinking": "Let me think.", "signature": answer.id})
    for position, call in enumerate(answer.hosted):
        id, asked = f"srvtoolu_{answer.id}_{position}", {"query": f"query {position + 1}"}
        result: Any = []
        if call.status != "completed":
            result = {"type": f"{call.kind}_tool_result_error", "error_code": "unavailable"}
        used = {"type": "server_tool_use", "id": id, "name": call.kind, "input": asked, **call.fields}
        blocks += [used, {"type": f"{call.kind}_tool_result", "tool_use_id": id, "content": result}]
    return blocks


def _tool_use(call: ToolCall) -> Json:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": parsed_arguments(call.arguments_json)}


def _block(index: int, block: Json) -> list[Json]:
    """Events of a block that is streamed whole: begun empty, filled, ended."""
    empty: Json = {}
    deltas: list[Json] = []
    if block["type"] == "thinking":
        empty = {"thinking": "", "signature": ""}
        deltas = [{"type": f"{name}_delta", name: block[name]} for name in empty]
    elif "input" in block:
        given = block["input"]
        empty["input"] = {}
        deltas = [{"type": "input_json_delta", "partial_json": given if isinstance(given, str) else json.dumps(given)}]
    filled = [_event("content_block_delta", index=index, delta=delta) for delta in deltas]
    return [_begun(index, {**block, **empty}), *filled, _ended(index)]


def _text(index: int, text: str, *, first: bool, last: bool) -> list[Json]:
    """Events of a piece of the one block of text; a sign of life where there is none."""
    if not text:
        return [_event("ping")]
    begun = [_begun(index, {"type": "text", "text": ""})] if first else []
    delta = _event("content_block_delta", index=index, delta={"type": "text_delta", "text": text})
    return [*begun, delta, *([_ended(index)] if last else [])]


def _begun(index: int, block: Json) -> Json:
    return _event("content_block_start", index=index, content_block=block)


def _ended(index: int) -> Json:
    return _event("content_block_stop", index=index)


def _delta(answer: Answer, delta: Json, usage: Usage) -> Json:
    """The event that tells usage up to now, and in the end why the model stopped."""
    told = told_usage(answer, _input_counts(answer) | _output_counts(answer, usage))
    return _event("message_delta", delta=delta, **told)


def _event(kind: str, **fields: Any) -> Json:
    return {"type": kind, **fields}


def _input_counts(answer: Answer) -> Json:
    """Unlike OpenAI's, these add up: no token is in two of them."""
    usage = answer.usage()
    return {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write_5m + usage.cache_write_1h,
        "cache_read_input_tokens": usage.cache_read,
    }


def _input_details(answer: Answer) -> Json:
    """What the end of a stream does not repeat."""
    usage = answer.usage()
    return {
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "service_tier": "standard" if answer.service_tier == "default" else answer.service_tier,
    }


def _output_counts(answer: Answer, usage: Usage) -> Json:
    fetches = sum(call.kind == "web_fetch" for call in answer.hosted)
    used = {"web_search_requests": answer.web_searches, "web_fetch_requests": fetches}
    iterations = {"iterations": list(answer.reply.iterations)} if answer.reply.iterations else {}
    return {
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
        "server_tool_use": used if any(used.values()) else None,
        **iterations,
    }
