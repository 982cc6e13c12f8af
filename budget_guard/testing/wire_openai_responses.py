"""OpenAI Responses: https://platform.openai.com/docs/api-reference/responses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from budget_guard.testing.answer import Answer
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

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class OpenAIResponsesWire:
    """The endpoint ``/v1/responses``."""

    path = "/v1/responses"

    def read(self, body: Json, headers: Mapping[str, str]) -> ProviderRequest:
        given = required(body, "input", (str, list))
        items: Sequence[Any] = [{"role": "user", "content": given}] if isinstance(given, str) else given
        instructions, text = body.get("instructions"), mapping(body.get("text"))
        return ProviderRequest(
            endpoint="responses",
            model=required(body, "model", str),
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
            headers=headers,
            body=body,
        )

    def least_cap(self, request: ProviderRequest) -> int:
        return 16

    def whole(self, request: ProviderRequest, answer: Answer) -> Json:
        calls = [_function_call(answer, position) for position in range(len(answer.tool_calls))]
        messages = [_message(answer)] if _speaks(answer) else []
        return _finished(request, answer, [*_preliminaries(answer), *messages, *calls])

    def stream(self, request: ProviderRequest, answer: Answer) -> Iterator[Frame]:
        return _Events(request, answer).frames()

    def error(self, status: int, message: str) -> Json:
        return openai_error(status, message)


class _Events:
    """The events of one stream, numbered."""

    def __init__(self, request: ProviderRequest, answer: Answer) -> None:
        self._request = request
        self._answer = answer
        self._numbers = count()
        self._output: list[Json] = []

    def frames(self) -> Iterator[Frame]:
        answer = self._answer
        yield Frame("opening", self._opening())
        texts = [piece for piece in answer.chunks if isinstance(piece, str)]
        for position, text in enumerate(texts):
            yield Frame("chunk", self._text(text, first=position == 0, last=position == len(texts) - 1))
        for position in range(len(answer.tool_calls)):
            yield Frame("chunk", self._call(position))
        final = _finished(self._request, answer, self._output)
        yield Frame(ending_kind(answer), self._event(f"response.{final['status']}", response=final))

    def _event(self, kind: str, **fields: Any) -> bytes:
        return sse({"type": kind, "sequence_number": next(self._numbers), **fields}, event=kind)

    def _opening(self) -> bytes:
        started = _envelope(self._request, self._answer, "in_progress")
        data = self._event("response.created", response=started)
        data += self._event("response.in_progress", response=started)
        for item in _preliminaries(self._answer):
            data += self._added(item if item["type"] == "reasoning" else {**item, "status": "in_progress"})
            if item["type"] == "web_search_call":
                for step in ("in_progress", "searching", "completed"):
                    data += self._event(f"response.web_search_call.{step}", **self._place(item))
            data += self._done(item)
        return data

    def _text(self, delta: str, *, first: bool, last: bool) -> bytes:
        item = _message(self._answer)
        place = {**self._place(item), "content_index": 0}
        data = b""
        if first:
            data += self._added({**item, "status": "in_progress", "content": []})
            data += self._event("response.content_part.added", **place, part=_output_text(""))
        data += self._event("response.output_text.delta", **place, delta=delta, logprobs=[])
        if last:
            (part,) = item["content"]
            data += self._event("response.output_text.done", **place, text=part["text"], logprobs=[])
            data += self._event("response.content_part.done", **place, part=part)
            data += self._done(item)
        return data

    def _call(self, position: int) -> bytes:
        item = _function_call(self._answer, position)
        arguments, place = item["arguments"], self._place(item)
        data = self._added({**item, "status": "in_progress", "arguments": ""})
        data += self._event("response.function_call_arguments.delta", **place, delta=arguments)
        data += self._event("response.function_call_arguments.done", **place, name=item["name"], arguments=arguments)
        return data + self._done(item)

    def _place(self, item: Json) -> Json:
        return {"item_id": item["id"], "output_index": len(self._output)}

    def _added(self, item: Json) -> bytes:
        return self._event("response.output_item.added", output_index=len(self._output), item=item)

    def _done(self, item: Json) -> bytes:
        data = self._event("response.output_item.done", output_index=len(self._output), item=item)
        self._output.append(item)
        return data


def _envelope(request: ProviderRequest, answer: Answer, status: str) -> Json:
    body = request.body
    return {
        "id": f"resp_{answer.id}",
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
    reason = _INCOMPLETE.get(answer.finish_reason)
    response = _envelope(request, answer, "incomplete" if reason else "completed")
    response |= {"output": output, "incomplete_details": {"reason": reason} if reason else None}
    if answer.usage_mode == "off":
        del response["usage"]
    elif answer.usage_mode != "missing":
        response["usage"] = {
            "input_tokens": answer.input_tokens,
            "input_tokens_details": {
                "cached_tokens": answer.cached_tokens,
                "cache_write_tokens": answer.cache_write_tokens,
            },
            "output_tokens": answer.output_tokens,
            "output_tokens_details": {"reasoning_tokens": answer.reasoning_tokens},
            "total_tokens": answer.input_tokens + answer.output_tokens,
        }
    return response


def _preliminaries(answer: Answer) -> list[Json]:
    """What comes before the model speaks: its reasoning, and the searches of the provider's own tool."""
    thoughts: list[Json] = [{"type": "reasoning", "id": f"rs_{answer.id}", "summary": []}]
    searches: list[Json] = [
        {
            "type": "web_search_call",
            "id": f"ws_{answer.id}_{position}",
            "status": "completed",
            "action": {"type": "search", "query": f"query {position + 1}"},
        }
        for position in range(answer.web_searches)
    ]
    return [*(thoughts if answer.reasoning_tokens else ()), *searches]


def _speaks(answer: Answer) -> bool:
    return any(isinstance(piece, str) for piece in answer.chunks)


def _message(answer: Answer) -> Json:
    return {
        "type": "message",
        "id": f"msg_{answer.id}",
        "status": "incomplete" if answer.finish_reason in _INCOMPLETE else "completed",
        "role": "assistant",
        "content": [_output_text(answer.text)],
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
