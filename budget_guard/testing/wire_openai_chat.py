"""OpenAI Chat Completions: https://platform.openai.com/docs/api-reference/chat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count

from budget_guard.testing.answer import Answer, Piece
from budget_guard.testing.request import ProviderRequest
from budget_guard.testing.script import ToolCall
from budget_guard.testing.tokens import weigh
from budget_guard.testing.wire import (
    CREATED,
    Frame,
    Json,
    ending_kind,
    mapping,
    openai_error,
    optional_int,
    required,
    sse,
    tool_names,
)


class OpenAIChatWire:
    """The endpoint ``/v1/chat/completions``."""

    path = "/v1/chat/completions"

    def read(self, body: Json, headers: Mapping[str, str]) -> ProviderRequest:
        stream = bool(body.get("stream"))
        messages = required(body, "messages", list)
        return ProviderRequest(
            endpoint="chat_completions",
            model=required(body, "model", str),
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
            choices=optional_int(body, "n") or 1,
            input_tokens=weigh(messages, schemas=(body.get("tools"), body.get("response_format"))),
            headers=headers,
            body=body,
        )

    def least_cap(self, request: ProviderRequest) -> int:
        return 1

    def whole(self, request: ProviderRequest, answer: Answer) -> Json:
        calls = [_tool_call(call) for call in answer.tool_calls]
        message: Json = {"role": "assistant", "content": answer.text or None, "refusal": None}
        message |= {"annotations": [], **({"tool_calls": calls} if calls else {})}
        choices = [
            {"index": index, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
            for index in range(answer.choices)
        ]
        return {**_envelope(answer, "chat.completion"), "choices": choices, **_usage_field(answer)}

    def stream(self, request: ProviderRequest, answer: Answer) -> Iterator[Frame]:
        # A stream that was asked for usage says "usage": null in every chunk but the last.
        pending = {"usage": None} if request.include_usage and answer.usage_mode != "off" else {}
        envelope = {**_envelope(answer, "chat.completion.chunk"), **pending}

        def event(delta: Json, finish_reason: str | None = None) -> bytes:
            return b"".join(
                sse({**envelope, "choices": [_choice(index, delta, finish_reason)]}) for index in range(answer.choices)
            )

        yield Frame("opening", event({"role": "assistant", "content": "", "refusal": None}))
        positions = count()
        for piece in answer.chunks:
            yield Frame("chunk", b"".join(map(event, _deltas(piece, positions))))
        yield Frame("ending", event({}, answer.finish_reason))
        last = sse({**envelope, "choices": [], **_usage_field(answer)}) if pending else b""
        yield Frame(ending_kind(answer), last + b"data: [DONE]\n\n")

    def error(self, status: int, message: str) -> Json:
        return openai_error(status, message)


def _envelope(answer: Answer, kind: str) -> Json:
    return {
        "id": f"chatcmpl-{answer.id}",
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


def _usage_field(answer: Answer) -> Json:
    if answer.usage_mode == "off":
        return {}
    if answer.usage_mode == "missing":
        return {"usage": None}
    return {
        "usage": {
            "prompt_tokens": answer.input_tokens,
            "completion_tokens": answer.output_tokens,
            "total_tokens": answer.input_tokens + answer.output_tokens,
            "prompt_tokens_details": {
                "cached_tokens": answer.cached_tokens,
                "cache_write_tokens": answer.cache_write_tokens,
                "audio_tokens": 0,
            },
            "completion_tokens_details": {
                "reasoning_tokens": answer.reasoning_tokens,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }
    }
