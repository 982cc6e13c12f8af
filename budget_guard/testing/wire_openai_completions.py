"""OpenAI Completions, the older one: https://platform.openai.com/docs/api-reference/completions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

from budget_guard.testing.answer import Answer
from budget_guard.testing.reply import ToolCall
from budget_guard.testing.request import ProviderRequest
from budget_guard.testing.tokens import weigh_prompts
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
)
from budget_guard.testing.wire_openai_chat import openai_usage

_DEFAULT_CAP = 16
"""What the API puts in for ``max_tokens``."""


class OpenAICompletionsWire(Wire):
    """The endpoint ``/v1/completions``, also of Azure's deployments and of all who speak it."""

    route = re.compile(r"(?:/deployments/(?P<model>[^/]+))?/completions$")

    def read(self, incoming: Incoming) -> ProviderRequest:
        body = incoming.body
        prompts = prompts_in(required(body, "prompt", (str, list)))
        stream = bool(body.get("stream"))
        choices = len(prompts) * how_many(body, "n")
        best = how_many(body, "best_of")
        return ProviderRequest(
            endpoint="completions",
            model=model_of(incoming),
            messages=prompts,
            max_output_tokens=optional_int(body, "max_tokens") or _DEFAULT_CAP,
            stream=stream,
            include_usage=not stream or bool(mapping(body.get("stream_options")).get("include_usage")),
            temperature=body.get("temperature"),
            choices=choices,
            samples=max(choices, len(prompts) * best),
            input_tokens=weigh_prompts(prompts),
            headers=incoming.headers,
            body=body,
            path=incoming.path,
            query=incoming.query,
        )

    def whole(self, request: ProviderRequest, answer: Answer) -> Json:
        usage = told_usage(answer, openai_usage(answer.usage()))
        choices = _choices(answer, answer.text, answer.finish_reason)
        return dressed(answer, {**_envelope(answer), "choices": choices, **usage})

    def stream(self, request: ProviderRequest, answer: Answer) -> Iterator[Step]:
        where = answer.reply.stream_usage
        pending = {"usage": None} if request.include_usage and answer.reply.usage != "off" else {}

        def chunk(choices: list[Json], done: int | None, *, tells: bool) -> Json:
            usage = told_usage(answer, openai_usage(answer.usage(done))) if tells or where == "every" else pending
            return dressed(answer, {**_envelope(answer), "choices": choices, **usage})

        for done, piece in enumerate(answer.chunks, start=1):
            text = piece.arguments_json if isinstance(piece, ToolCall) else piece
            yield Step("chunk", [chunk([choice], done, tells=False) for choice in _choices(answer, text, None)])
        ends = _choices(answer, "", answer.finish_reason)
        yield Step("ending", [chunk([choice], None, tells=where == "finish") for choice in ends])
        last = [chunk([], None, tells=True)] if pending and where != "finish" else []
        yield Step(ending_kind(answer), [*last, "[DONE]"])

    def error(self, status: int, message: str) -> Json:
        return openai_error(status, message)


def prompts_in(given: Any) -> list[Any]:
    """Prompts of a request: texts or lists of tokens, one or several."""
    entries = cast("list[object]", given) if isinstance(given, list) else [given]
    return [entries] if entries and isinstance(entries[0], int) else entries


def _envelope(answer: Answer) -> Json:
    return {
        "id": answer.wire_id("cmpl-"),
        "object": "text_completion",
        "created": CREATED,
        "model": answer.model,
        "system_fingerprint": None,
    }


def _choices(answer: Answer, text: str, finish_reason: str | None) -> list[Json]:
    choice = {"text": text, "logprobs": None, "finish_reason": finish_reason}
    return [{**choice, "index": index} for index in range(answer.choices)]
