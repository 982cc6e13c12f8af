"""OpenAI Responses: https://platform.openai.com/docs/api-reference/responses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from budget_guard.testing.answer import Answer
from budget_guard.testing.reply import HostedCall, ToolCall
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
    mapping,
    model_of,
    openai_error,
    optional_int,
    required,
    told_usage,
    tool_names,
)
from budget_guard.units.usage import Usage

_COMPLETE = ("stop", "tool_calls")
_STATUSES = ("failed", "cancelled", "queued", "in_progress")
_REASONS = {"length": "max_output_tokens"}
_HOSTED: dict[str, tuple[str, str]] = {
    "web_search": ("ws", "searching"),
    "file_search": ("fs", "searching"),
    "code_interpreter": ("ci", "interpreting"),
    "image_generation": ("ig", "generating"),
}
"""Prefixes of ids, and what an event in the middle says, of the provider's own tools."""


class OpenAIResponsesWire(Wire):
    """The endpoint ``/v1/responses``."""

    route = re.compile(r"/responses$")
    events_are_named = True

    def read(self, incoming: Incoming) -> ProviderRequest:
        body = incoming.body
        given = required(body, "input", (str, list))
        items: Sequence[Any] = [{"role": "user", "content": given}] if isinstance(given, str) else given
        instructions, text = body.get("instructions"), mapping(body.get("text"))
        return ProviderRequest(
            endpoint="responses",
            model=model_of(incoming),
            messages=items,
            instructions=instructions,
            tools=tool_names(body.get("tools")),
            tool_choice=body.get("tool_choice"),
            max_output_tokens=optional_int(body, "max_output_tokens"),
            stream=bool(body.get("stream")),
            temperature=body.get("temperature"),
            reasoning_effort=mapping(body.get("reasoning")).get("effort"),
            verbosity=text.get("verbosity"),
            service_tier=body.get("service_tier"),
            previous_response_id=body.get("previous_response_id"),
            input_tokens=weigh(instructions, *items, schemas=(body.get("tools"), text.get("format"))),
            headers=incoming.headers,
            body=body,
            path=incoming.path,
            query=incoming.query,
        )

    def least_cap(self, request: ProviderRequest) -> int:
        return 16

    def whole(self, request: ProviderRequest, answer: Answer) -> Json:
        calls = [_function_call(answer, position) for position in range(len(answer.tool_calls))]
        messages = [_message(answer)] if _speaks(answer) else []
        return _finished(request, answer, [*_preliminaries(answer), *messages, *calls])

    def stream(self, request: ProviderRequest, answer: Answer) -> Iterator[Step]:
        return _Events(request, answer).steps()

    def error(self, status: int, message: str) -> Json:
        return openai_error(status, message)

    def error_event(self, status: int, message: str) -> Json:
        error = openai_error(status, message)["error"]
        return {"type": "error", "sequence_number": 0, **{name: error[name] for name in ("code", "message", "param")}}


class _Events:
    """The events of one stream, numbered."""

    def __init__(self, request: ProviderRequest, answer: Answer) -> None:
        self._request = request
        self._answer = answer
        self._numbers = count()
        self._output: list[Json] = []

    def steps(self) -> Iterator[Step]:
        answer = self._answer
        yield Step("opening", list(self._opening()))
        texts = [piece for piece in answer.chunks if isinstance(piece, str)]
        for position, text in enumerate(texts):
            first, last = position == 0, position == len(texts) - 1
            yield Step("chunk", list(self._text(text, first=first, last=last)))
        for position in range(len(answer.tool_calls)):
            yield Step("chunk", list(self._call(position)))
        final = _finished(self._request, answer, self._output)
        yield Step(ending_kind(answer), [self._event(f"response.{_status(answer)}", response=final)])

    def _event(self, kind: str, **fields: Any) -> Json:
        return {"type": kind, "sequence_number": next(self._numbers), **fields}

    def _opening(self) -> Iterator[Json]:
        started = dressed(self._answer, _envelope(self._request, self._answer, "in_progress"))
        yield self._event("response.created", response=started)
        yield self._event("response.in_progress", response=started)
        for item in _preliminaries(self._answer):
            kind, status = item["type"], item.get("status")
            yield self._added(item if status is None else {**item, "status": "in_progress"})
            middle = _HOSTED.get(kind.removesuffix("_call"))
            if middle is not None:
                for step in ("in_progress", middle[1], *(("completed",) if status == "completed" else ())):
                    yield self._event(f"response.{kind}.{step}", **self._place(item))
            yield self._done(item)

    def _text(self, delta: str, *, first: bool, last: bool) -> Iterator[Json]:
        item = _message(self._answer)
        place = {**self._place(item), "content_index": 0}
        if first:
            yield self._added({**item, "status": "in_progress", "content": []})
            yield self._event("response.content_part.added", **place, part=_output_text(""))
        yield self._event("response.output_text.delta", **place, delta=delta, logprobs=[])
        if last:
            (part,) = item["content"]
            yield self._event("response.output_text.done", **place, text=part["text"], logprobs=[])
            yield self._event("response.content_part.done", **place, part=part)
            yield self._done(item)

    def _call(self, position: int) -> Iterator[Json]:
        item = _function_call(self._answer, position)
        arguments, place = item["arguments"], self._place(item)
        yield self._added({**item, "status": "in_progress", "arguments": ""})
        yield self._event("response.function_call_arguments.delta", **place, delta=arguments)
        yield self._event("response.function_call_arguments.done", **place, name=item["name"], arguments=arguments)
        yield self._done(item)

    def _place(self, item: Json) -> Json:
        return {"item_id": item["id"], "output_index": len(self._output)}

    def _added(self, item: Json) -> Json:
        return self._event("response.output_item.added", output_index=len(self._output), item=item)

    def _done(self, item: Json) -> Json:
        event = self._event("response.output_item.done", output_index=len(self._output), item=item)
        self._output.append(item)
        return event


def _envelope(request: ProviderRequest, answer: Answer, status: str) -> Json:
    body = request.body
    return {
        "id": answer.wire_id("resp_"),
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": body.get("metadata") or {},
        "model": answer.model,
        "output": [],
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": request.previous_response_id,
        "reasoning": body.get("reasoning") or {"effort": None, "summary": None},
        "service_tier": answer.service_tier,
        "store": body.get("store", True),
        "temperature": body.get("temperature", 1.0),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "top_p": body.get("top_p", 1.0),
        "truncation": body.get("truncation") or "disabled",
        "usage": None,
    }


def _finished(request: ProviderRequest, answer: Answer, output: list[Json]) -> Json:
    status = _status(answer)
    response = _envelope(request, answer, status)
    response["output"] = output
    if status == "incomplete":
        response["incomplete_details"] = {"reason": _REASONS.get(answer.finish_reason, answer.finish_reason)}
    if status == "failed":
        response["error"] = {"code": "server_error", "message": "The server had an error."}
    del response["usage"]
    return dressed(answer, response | told_usage(answer, _usage(answer.usage())))


def _status(answer: Answer) -> str:
    if answer.finish_reason in _STATUSES:
        return answer.finish_reason
    return "completed" if answer.finish_reason in _COMPLETE else "incomplete"


def _usage(usage: Usage) -> Json:
    audio, image = usage.input_audio + usage.cache_audio, usage.input_image
    kinds = {"audio_tokens": audio, "image_tokens": image} if audio or image else {}
    audio, image = usage.output_audio, usage.output_image
    made = {"audio_tokens": audio, "image_tokens": image} if audio or image else {}
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read + usage.cache_audio,
            "cache_write_tokens": usage.cache_write_5m,
            **kinds,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning, **made},
        "total_tokens": usage.total_tokens,
    }


def _preliminaries(answer: Answer) -> list[Json]:
    """What comes before the model speaks: its reasoning, and what the provider's own tools did."""
    thoughts: list[Json] = [{"type": "reasoning", "id": f"rs_{answer.id}", "summary": []}]
    hosted = [_hosted_item(call, f"{answer.id}_{position}") for position, call in enumerate(answer.hosted)]
    return [*(thoughts if answer.reasoning_tokens else ()), *hosted]


def _hosted_item(call: HostedCall, id: str) -> Json:
    prefix, _ = _HOSTED.get(call.kind, (call.kind, ""))
    item: Json = {"type": f"{call.kind}_call", "id": f"{prefix}_{id}", "status": call.status}
    match call.kind:
        case "web_search":
            position = int(id.rpartition("_")[2])
            action = call.action or "search"
            asked = {"query": f"query {position + 1}"} if action == "search" else {"url": "https://example.com/"}
            item |= {"action": {"type": action, **asked, **({"pattern": "it"} if action == "find_in_page" else {})}}
        case "file_search":
            item |= {"queries": ["query"], "results": None}
        case "code_interpreter":
            item |= {"code": "1 + 1", "container_id": "cntr_0", "outputs": None}
        case "image_generation":
            item |= {"result": "aGVsbG8=" if call.status == "completed" else None}
        case "mcp":
            item |= {"name": "tool", "server_label": "server", "arguments": "{}", "output": "", "error": None}
        case _:
            pass
    return {**item, **call.fields}


def _speaks(answer: Answer) -> bool:
    return any(isinstance(piece, str) for piece in answer.chunks)


def _message(answer: Answer) -> Json:
    return {
        "type": "message",
        "id": f"msg_{answer.id}",
        "status": "completed" if _status(answer) == "completed" else "incomplete",
        "role": "assistant",
        "content": [_output_text(answer.text)],
        **answer.reply.message_extra,
    }


def _output_text(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _function_call(answer: Answer, position: int) -> Json:
    call: ToolCall = answer.tool_calls[position]
    return {
        "type": "function_call",
        "id": f"fc_{answer.id}_{position}",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments_json,
        "status": "completed",
    }
