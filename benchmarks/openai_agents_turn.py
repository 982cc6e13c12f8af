"""What a guard adds to one turn of the OpenAI Agents SDK, with a scripted model in the place of the network.

Prints CPU time of one turn (a model call and a tool call) without hooks, with hooks that do nothing, and with a guard,
taken in turn within one run: ``python benchmarks/openai_agents_turn.py``.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from agents import Agent, ModelResponse, RunHooks, Runner, Usage, function_tool, set_tracing_disabled
from agents.items import TResponseStreamEvent
from agents.models.interface import Model
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from budget_guard import Budget
from budget_guard.integrations.openai_agents import BudgetGuard

TURNS = 20
ROUNDS = 30


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


@function_tool
def look() -> str:
    """Look."""
    return "nothing there"


async def turn_us(hooks: RunHooks[Any] | None) -> float:
    """CPU microseconds of one turn."""
    agent = Agent(name="A", instructions="Look.", model=Scripted(), tools=[look])
    start = time.process_time_ns()
    await Runner.run(agent, "go", hooks=hooks, max_turns=TURNS + 1)
    return (time.process_time_ns() - start) / TURNS / 1_000


async def main() -> None:
    """Measure and print."""
    set_tracing_disabled(True)
    ways: dict[str, Callable[[], RunHooks[Any] | None]] = {
        "no hooks": lambda: None,
        "hooks that do nothing": RunHooks,
        "a guard": lambda: BudgetGuard(Budget("$1000")),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, make in ways.items():  # in turn, so that a change of the machine's speed meets them all
            taken[name].append(await turn_us(make()))
    base = statistics.median(taken["no hooks"])
    noise = statistics.quantiles(taken["no hooks"], n=4)
    for name, values in taken.items():
        median = statistics.median(values)
        print(f"{name:<22} {median:8.0f} us a turn   {median / base:5.2f} x   {median - base:+7.0f} us")
    print(f"the middle half of the rounds without hooks spreads over {noise[2] - noise[0]:.0f} us")


if __name__ == "__main__":
    asyncio.run(main())
