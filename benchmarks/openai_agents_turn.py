"""What a guard adds to one turn of the OpenAI Agents SDK: a model call and a tool call.

Prints three tables, each without hooks, with hooks that do nothing, and with a guard, taken in turn within one run. The
first has a scripted model in the place of the network, and shows CPU time: what the guard takes above the client. The
second has the real client over a transport that answers at once: the look at what is sent comes with it. The third has
the real client talk HTTP to a provider on this machine, and shows the time on the clock: what a user can notice of it.
``python benchmarks/openai_agents_turn.py``
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
from agents import (
    Agent,
    ModelResponse,
    OpenAIResponsesModel,
    RunHooks,
    Runner,
    Usage,
    function_tool,
    set_default_openai_client,
    set_tracing_disabled,
)
from agents.items import TResponseStreamEvent
from agents.models.interface import Model
from openai import AsyncOpenAI
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from budget_guard import Budget
from budget_guard.integrations.openai_agents import BudgetGuard
from budget_guard.testing import LocalProvider, ProviderRequest, Reply, ToolCall

TURNS = 20
WAYS: dict[str, Callable[[], RunHooks[Any] | None]] = {
    "no hooks": lambda: None,
    "hooks that do nothing": RunHooks,
    "a guard": lambda: BudgetGuard(Budget("$1000")),
}


class Scripted(Model):
    """Calls a tool `TURNS` - 1 times, then answers."""

    model = "gpt-4o"

    def __init__(self) -> None:
        self._turn = 0

    async def get_response(self, *_: Any, **__: Any) -> ModelResponse:
        self._turn += 1
        usage = Usage(requests=1, input_tokens=100, output_tokens=20, total_tokens=120)
        if self._turn % TURNS:
            call = ResponseFunctionToolCall(
                type="function_call", name="look", arguments="{}", call_id=f"call_{self._turn}", id=f"fc_{self._turn}"
            )
            return ModelResponse([call], usage, None)
        text = ResponseOutputText(type="output_text", text="done", annotations=[])
        message = ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=[text])
        return ModelResponse([message], usage, None)

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[TResponseStreamEvent]:
        raise NotImplementedError  # this benchmark does not stream


class AtOnce(httpx2.AsyncBaseTransport):
    """Answers as `Scripted` does."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        looked = sum(item.get("type") == "function_call_output" for item in json.loads(request.content)["input"])
        item: dict[str, Any] = {"type": "function_call", "id": f"fc_{looked}", "call_id": f"call_{looked}"}
        item |= {"name": "look", "arguments": "{}", "status": "completed"}
        if looked == TURNS - 1:
            content = [{"type": "output_text", "text": "done", "annotations": []}]
            item = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": content}
        usage: dict[str, Any] = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
        usage |= {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
        body: dict[str, Any] = {
            "id": f"resp_{looked}",
            "object": "response",
            "created_at": 1,
            "model": "gpt-4o",
            "output": [item],
        }
        body |= {"status": "completed", "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "usage": usage}
        return httpx2.Response(200, json=body)


def answer(request: ProviderRequest) -> Reply:
    """What the provider on this machine answers: as `Scripted` does."""
    looked = sum(item.get("type") == "function_call_output" for item in request.body["input"])
    if looked < TURNS - 1:
        return Reply(tool_calls=[ToolCall("look", {})], input_tokens=100, output_tokens=20)
    return Reply(text="done", input_tokens=100, output_tokens=20)


@function_tool
def look() -> str:
    """Look."""
    return "nothing there"


async def turn_us(model: Model | str, hooks: RunHooks[Any] | None, clock: Callable[[], int]) -> float:
    """Microseconds of one turn, by *clock*."""
    agent = Agent(name="A", instructions="Look.", model=model, tools=[look])
    start = clock()
    await Runner.run(agent, "go", hooks=hooks, max_turns=TURNS + 1)
    return (clock() - start) / TURNS / 1_000


async def compare(title: str, make: Callable[[], Model | str], clock: Callable[[], int], rounds: int) -> None:
    """Measure the three ways in turn, so that a change of the machine's speed meets them all, and print them."""
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, hooks in WAYS.items():
            taken[name].append(await turn_us(make(), hooks(), clock))
    base = statistics.median(taken["no hooks"])
    noise = statistics.quantiles(taken["no hooks"], n=4)
    print(title)
    for name, values in taken.items():
        median = statistics.median(values)
        print(f"  {name:<22} {median:8.0f} us a turn   {median / base:5.2f} x   {median - base:+7.0f} us")
    print(f"  the middle half of the rounds without hooks spreads over {noise[2] - noise[0]:.0f} us")


async def main() -> None:
    """Measure and print."""
    set_tracing_disabled(True)
    await compare("a scripted model, CPU time", Scripted, time.process_time_ns, 30)
    at_once = AsyncOpenAI(api_key="none", max_retries=0, http_client=httpx2.AsyncClient(transport=AtOnce()))
    await compare(
        "the real client over a transport that answers at once, CPU time",
        lambda: OpenAIResponsesModel("gpt-4o", at_once),
        time.process_time_ns,
        30,
    )
    with LocalProvider(answer) as provider:
        client = AsyncOpenAI(base_url=provider.base_url, api_key="none", max_retries=0)
        set_default_openai_client(client, use_for_tracing=False)
        await compare("the real client over HTTP, time on the clock", lambda: "gpt-4o", time.perf_counter_ns, 15)


if __name__ == "__main__":
    asyncio.run(main())
