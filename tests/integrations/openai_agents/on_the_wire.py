"""The SDK's real clients, with an HTTP transport that answers in this process whatever a test says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, OpenAIResponsesModel, RunConfig, Runner
from agents.models.interface import Model
from openai import AsyncAzureOpenAI, AsyncOpenAI

Answer = dict[str, Any] | list[Any] | tuple[int, Any] | Exception
"""A JSON answer, the events of a stream, a status with an error's body, or what the transport raises."""


class Wire:
    """Keeps what was sent, and answers with *answers* in turn, the last one for ever."""

    def __init__(self, *answers: Answer | Callable[[dict[str, Any]], Answer]) -> None:
        self._answers = list(answers)
        self.sent: list[dict[str, Any]] = []
        self.paths: list[str] = []

    def _handle(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.sent.append(body)
        self.paths.append(request.url.path)
        answer = self._answers[min(len(self.sent), len(self._answers)) - 1]
        if callable(answer):
            answer = answer(body)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, tuple):
            status, error = answer
            if isinstance(error, str):
                return httpx.Response(status, text=error)
            return httpx.Response(status, json=error, headers={"retry-after-ms": "1"})
        if isinstance(answer, list):
            lines = [f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n" for event in answer]
            return httpx.Response(200, text="".join(lines), headers={"content-type": "text/event-stream"})
        return httpx.Response(200, json=answer)

    def client(self, base_url: str = "https://api.openai.com/v1", retries: int = 0) -> AsyncOpenAI:
        return AsyncOpenAI(api_key="none", base_url=base_url, max_retries=retries, http_client=self.http())

    def azure(self, version: str) -> AsyncAzureOpenAI:
        return AsyncAzureOpenAI(
            azure_endpoint="https://contoso.openai.azure.com",
            api_version=version,
            api_key="none",
            max_retries=0,
            http_client=self.http(),
        )

    def http(self) -> Any:  # clients of several versions take it
        return httpx.AsyncClient(transport=httpx.MockTransport(self._handle))

    def chat(self, name: str = "gpt-4o", **options: Any) -> Model:
        return OpenAIChatCompletionsModel(name, openai_client=self.client(**options))

    def responses(self, name: str = "gpt-4o", **options: Any) -> Model:
        return OpenAIResponsesModel(name, openai_client=self.client(**options))


def chat_answer(usage: Any, *, model: str = "gpt-4o", finish: str = "stop", **more: Any) -> dict[str, Any]:
    """An answer of Chat Completions."""
    message = {"role": "assistant", "content": "Done."}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "finish_reason": finish, "message": message}],
        "usage": usage,
        **more,
    }


def chat_chunks(usage: Any, *pieces: str, finish: str = "stop", **more: Any) -> list[Any]:
    """A streamed answer of Chat Completions."""

    def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
        return {
            "id": "c",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "gpt-4o",
            "choices": choices,
        } | more

    last = {**chunk({}), "choices": [], "usage": usage}
    return [
        chunk({"role": "assistant", "content": ""}),
        *[chunk({"content": piece}) for piece in pieces],
        chunk({}, finish),
        *([] if usage is None else [last]),
        "[DONE]",
    ]


def response(usage: Any, *, model: str = "gpt-4o", output: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    """An answer of Responses."""
    message = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "Done.", "annotations": []}],
    }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": model,
        "status": "completed",
        "output": [*(output or ()), message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage,
        **more,
    }


def chat_usage(read: Any, written: Any, **more: Any) -> dict[str, Any]:
    """A usage object of Chat Completions."""
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written, **more}


def usage_of(read: int, written: int, reasoning: int = 0) -> dict[str, Any]:
    """A usage object of Responses."""
    return {
        "input_tokens": read,
        "output_tokens": written,
        "total_tokens": read + written,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": reasoning},
    }


async def ask(model: Model, guard: Any, input: Any = "hello", *, stream: bool = False, **settings: Any) -> Any:
    """Run an agent with *model* to its end."""
    agent = Agent(name="Worker", model=model, model_settings=ModelSettings(**settings))
    config = RunConfig(tracing_disabled=True)
    if not stream:
        return await Runner.run(agent, input, hooks=guard, run_config=config)
    result = Runner.run_streamed(agent, input, hooks=guard, run_config=config)
    async for _ in result.stream_events():
        pass
    return result
