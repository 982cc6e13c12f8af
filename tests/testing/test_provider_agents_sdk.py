"""The OpenAI Agents SDK runs against the local provider, through both of its OpenAI models."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

agents = pytest.importorskip("agents")

from agents import (  # noqa: E402  after the importorskip
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    function_tool,
)
from openai import AsyncOpenAI  # noqa: E402  after the importorskip

from budget_guard.testing import LocalProvider, Reply, ToolCall  # noqa: E402  after the importorskip

LOOP = [
    Reply(tool_calls=[ToolCall("weather", {"city": "Bern"})], input_tokens=100, output_tokens=10),
    Reply(text="Sunny in Bern.", input_tokens=150, output_tokens=20, reasoning_tokens=5),
]
LOOP_NANO = 250 * 2_500 + 30 * 10_000
UNTRACED = RunConfig(tracing_disabled=True)


@function_tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


@pytest.fixture(params=[OpenAIChatCompletionsModel, OpenAIResponsesModel])
async def run(request: pytest.FixtureRequest) -> AsyncIterator[tuple[LocalProvider, Agent[Any]]]:
    """A provider with a script of one tool call and an answer, and an agent that talks to it."""
    with LocalProvider(LOOP) as provider:
        async with AsyncOpenAI(base_url=provider.base_url, api_key="none", max_retries=0) as client:
            model = request.param("gpt-4o", openai_client=client)
            settings = ModelSettings(include_usage=True, max_tokens=500)
            yield provider, Agent("reporter", model=model, tools=[weather], model_settings=settings)


async def test_a_tool_loop_runs_to_its_end(run: tuple[LocalProvider, Agent[Any]]) -> None:
    provider, agent = run
    result = await Runner.run(agent, "What is the weather in Bern?", run_config=UNTRACED)
    assert result.final_output == "Sunny in Bern."
    usage = result.context_wrapper.usage
    assert (usage.requests, usage.input_tokens, usage.output_tokens) == (2, 250, 30)
    assert provider.bill_nano == LOOP_NANO
    assert [served.tools for served in provider.calls] == [("weather",)] * 2
    assert [served.max_output_tokens for served in provider.calls] == [500, 500]
    assert "sunny in Bern" in str(provider.calls[1].messages)


async def test_a_streamed_tool_loop_runs_to_its_end(run: tuple[LocalProvider, Agent[Any]]) -> None:
    provider, agent = run
    result = Runner.run_streamed(agent, "What is the weather in Bern?", run_config=UNTRACED)
    raw = [event.data async for event in result.stream_events() if event.type == "raw_response_event"]
    said = [event.delta for event in raw if event.type == "response.output_text.delta"]
    assert "".join(said) == result.final_output == "Sunny in Bern."
    usage = result.context_wrapper.usage
    assert (usage.requests, usage.input_tokens, usage.output_tokens) == (2, 250, 30)
    assert provider.bill_nano == LOOP_NANO
    assert [(served.stream, served.include_usage) for served in provider.calls] == [(True, True)] * 2


async def test_an_agent_that_never_stops_is_billed_for_every_turn(
    run: tuple[LocalProvider, Agent[Any]],
) -> None:
    provider, agent = run
    provider.reset(LOOP[0])
    agent.reset_tool_choice = False
    with pytest.raises(agents.MaxTurnsExceeded):
        await Runner.run(agent, "go", max_turns=7, run_config=UNTRACED)
    assert provider.bill_nano == 7 * (100 * 2_500 + 10 * 10_000)
