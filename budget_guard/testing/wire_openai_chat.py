"""OpenAI Chat Completions: https://platform.openai.com/docs/api-reference/chat."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count

from budget_guard.testing.answer import Answer, Piece
from budget_guard.testing.reply import ToolCall
from budget_guard.testing.request import ProviderRequest
from budget_guard.testing.tokens import weigh
from budget_guard.testing.wire import (
    CREATED,
    Incoming,
    Json,
    Step,
    Wire,
    dressed,
    ending_kind,
    how_many,
    mapping,
    model_of,
    openai_error,
    optional_int,
    required,
    told_usage,
    tool_names,
)
from budget_guard.units.usage import Usage


class OpenAIChatWire(Wire):
    """The endpoint ``/v1/chat/completions``, also of Azure's deployments and of all who speak it."""

    route = re.compile(r"(?:/deployments/(?P<model>[^/]+))?/chat/completions$")

    def read(self, incoming: Incoming) -> ProviderRequest:
        body = incoming.body
        stream = bool(body.get("stream"))
        messages = required(body, "messages", list)
        return ProviderRequest(
            endpoint="chat_completions",
            model=model_of(incoming),
            messages=messages,
            tools=tool_names(body.get("tools")),
            tool_choice=body.get("tool_choice"),
            max_output_tokens=optional_int(body, "max_completion_tokens", "max_tokens"),
            stream=stream,
            include_usage=not stream or bool(mapping(body.get("stream_options")).get("include_usage")),
            temperature=body.get("temperature"),
            reasoning_effort=body.get("reasoning_effort"),
            verbosity=body.get("verbosity"),
            service_tier=body.get("service_tier"),
            choices=how_many(body, "n"),
            input_tokens=weigh(messages, schemas=(body.get("tools"), body.get("response_format"))),
            headers=incoming.headers,
            body=body,
            path=incoming.path,
            query=incoming.query,
        )

    def whole(self, request: ProviderRequest, answer: Answer) -> Json:
        calls = [_tool_call(call) for call in answer.tool_calls]
        message: Json = {"role": "assistant", "content": answer.text or None, "refusal": None}
        message |= {"annotations": [], **({"tool_calls": calls} if calls else {}), **answer.reply.message_extra}
        choices = [
            {"index": index, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
            for index in range(answer.choices)
        ]
        usage = told_usage(answer, openai_usage(answer.usage()))
        return dressed(answer, {**_envelope(answer, "chat.completion"), "choices": choices, **usage})

    def stream(self, request: ProviderRequest, answer: Answer) -> Iterator[Step]:
        where = answer.reply.stream_usage
        # A stream that was asked for usage says "usage": null in every chunk but the last.
        pending = {"usage": None} if request.include_usage and answer.reply.usage != "off" else {}
        envelope = _envelope(answer, "chat.completion.chunk")

        def chunk(choices: list[Json], done: int | None, *, tells: bool = False) -> Json:
            usage = told_usage(answer, openai_usage(answer.usage(done))) if tells or where == "every" else pending
            return dressed(answer, {**envelope, "choices": choices, **usage})

        def deltas(delta: Json, done: int | None, finish_reason: str | None = None) -> list[Json]:
            tells = finish_reason is not None and where == "finish"
            choices = [_choice(index, delta, finish_reason) for index in range(answer.choices)]
            return [chunk([choice], done, tells=tells) for choice in choices]

        yield Step("opening", deltas({"role": "assistant", "content": "", "refusal": None}, 0))
        positions = count()
        for done, piece in enumerate(answer.chunks, start=1):
            yield Step("chunk", [event for delta in _deltas(piece, positions) for event in deltas(delta, done)])
        yield Step("ending", deltas({**answer.reply.message_extra}, None, answer.finish_reason))
        last = [chunk([], None, tells=True)] if pending and where != "finish" else []
        yield Step(ending_kind(answer), [*last, "[DONE]"])

    def error(self, status: int, message: str) -> Json:
        return openai_error(status, message)


def openai_usage(usage: Usage) -> Json:
    """Usage as Chat Completions and Completions tell it."""
    kinds = {"image_tokens": usage.input_image} if usage.input_image else {}
    made = {"image_tokens": usage.output_image} if usage.output_image else {}
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read + usage.cache_audio,
            "cache_write_tokens": usage.cache_write_5m,
            "audio_tokens": usage.input_audio + usage.cache_audio,
            **kinds,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": usage.output_audio,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
            **made,
        },
    }


def _envelope(answer: Answer, kind: str) -> Json:
    return {
        "id": answer.wire_id("chatcmpl-"),
        "object": kind,
        "created": CREATED,
        "model": answer.model,
        "service_tier": answer.service_tier,
        "system_fingerprint": None,
    }


def _choice(index: int, delta: Json, finish_reason: str | None) -> Json:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _deltas(piece: Piece, positions: Iterator[int]) -> Iterator[Json]:
    """Changes to the message that one chunk brings: a tool call first gets its name, then its arguments."""
    if isinstance(piece, ToolCall):
        position = next(positions)
        yield {"tool_calls": [{"index": position, **_tool_call(piece, arguments="")}]}
        yield {"tool_calls": [{"index": position, "function": {"arguments": piece.arguments_json}}]}
    else:
        yield {"content": piece}


def _tool_call(call: ToolCall, arguments: str | None = None) -> Json:
    written = call.arguments_json if arguments is None else arguments
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": written}}
