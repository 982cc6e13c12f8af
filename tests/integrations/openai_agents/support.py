"""Agents, models and scripts that the tests of the OpenAI Agents SDK adapter share."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import httpx
from agents import (
    Agent,
    Model,
    ModelResponse,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIProvider,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    function_tool,
)
from agents.items import TResponseStreamEvent
from agents.result import RunResultBase
from openai import AsyncOpenAI

from budget_guard.integrations.openai_agents import BudgetGuard
from budget_guard.testing import LocalProvider, ProviderRequest, Reply, Script, ServedCall, ToolCall

NANO = Decimal(10) ** 9
_TLS = ssl.create_default_context()  # made once: it takes longer than most tests

BIG, SMALL = "gpt-4o", "gpt-4o-mini"


class Lab:
    """A provider, a client of it, and short ways to make models and run agents with them."""

    def __init__(self, provider: LocalProvider, client: AsyncOpenAI) -> None:
        self.provider = provider
        self.client = client

    def script(self, script: Script) -> None:
        """Start over with an empty ledger and *script*."""
        self.provider.reset(script)

    def responses(self, name: str = BIG) -> OpenAIResponsesModel:
        return OpenAIResponsesModel(name, openai_client=self.client)

    def chat(self, name: str = BIG) -> OpenAIChatCompletionsModel:
        return OpenAIChatCompletionsModel(name, openai_client=self.client)

    def config(self, *, use_responses: bool = True, **fields: Any) -> RunConfig:
        """A run config whose models, given by name, come from the provider."""
        given = OpenAIProvider(openai_client=self.client, use_responses=use_responses)
        return RunConfig(**{"model_provider": given, "tracing_disabled": True, **fields})

    async def run(self, mode: str, agent: Agent[Any], input: Any = "go", **options: Any) -> RunResultBase:
        """Run *agent* in *mode*, "run" or "run_streamed", to its end."""
        options.setdefault("run_config", self.config())
        return await run_in(mode, agent, input, **options)

    async def quiet(self) -> None:
        """Wait until nothing is under way, here or at the provider: a streamed run outlives its consumer."""
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)
        await self.provider.await_idle()

    @property
    def calls(self) -> list[ServedCall]:
        return self.provider.calls

    def billed(self) -> list[ServedCall]:
        """The calls that cost something."""
        return [call for call in self.provider.calls if call.cost_nano]


def client_of(provider: LocalProvider, **options: Any) -> AsyncOpenAI:
    return AsyncOpenAI(
        base_url=provider.base_url,
        api_key="none",
        **{"max_retries": 0, "http_client": httpx.AsyncClient(verify=_TLS, timeout=30), **options},
    )


async def run_in(mode: str, agent: Agent[Any], input: Any, **options: Any) -> RunResultBase:
    if mode == "run":
        return await Runner.run(agent, input, **options)
    result = Runner.run_streamed(agent, input, **options)
    async for _ in result.stream_events():
        pass
    return result


def run_anyhow(
    mode: str, work: Callable[[AsyncOpenAI], tuple[Agent[Any], RunConfig]], client: AsyncOpenAI, **options: Any
) -> Any:
    """Run what *work* makes from synchronous code, in one of the three ways; leave no event loop behind."""
    options.setdefault("max_turns", 20)
    if mode == "run_sync":
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            agent, config = work(client)
            return Runner.run_sync(agent, "go", run_config=config, **options)
        finally:
            loop.run_until_complete(client.close())
            loop.run_until_complete(loop.shutdown_asyncgens())
            asyncio.set_event_loop(None)
            loop.close()

    async def main() -> RunResultBase:
        agent, config = work(client)
        try:
            return await run_in(mode, agent, "go", run_config=config, **options)
        finally:
            await client.close()

    return asyncio.run(main())


class DelegatingModel(Model):
    """A user's own model, which hands over to a real one."""

    def __init__(self, inner: Model, name: str = BIG) -> None:
        self.inner = inner
        self.model = name

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        return await self.inner.get_response(*args, **kwargs)

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[TResponseStreamEvent]:
        return self.inner.stream_response(*args, **kwargs)


class NamelessModel(Model):
    """A user's own model that does not say its name: priced by its class, or by what a provider calls it."""

    def __init__(self, inner: Model) -> None:
        self.inner = inner

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        return await self.inner.get_response(*args, **kwargs)

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[TResponseStreamEvent]:
        return self.inner.stream_response(*args, **kwargs)


NAMELESS_PRICE = {"NamelessModel": (2.5e-6, 10e-6)}
"""What `BIG` costs, whose place it takes."""


@function_tool
def lookup(key: str = "a") -> str:
    """Look something up."""
    return f"value of {key}"


def caller_of(tool: str, *, times: int = 1, **arguments: Any) -> Reply:
    """A reply that calls *tool*."""
    return Reply(tool_calls=[ToolCall(tool, arguments)] * times)


def outputs_in(request: ProviderRequest) -> int:
    """How many tool results the model was shown."""
    return sum(item.get("role") == "tool" or item.get("type") == "function_call_output" for item in request.messages)


def role_of(request: ProviderRequest) -> str:
    """Whom the request is for: agents of these tests say so in their instructions, as "I am NAME."."""
    found = re.search(r"I am (\w+)\.", json.dumps([request.instructions, list(request.messages)]))
    return found[1] if found else ""


def by_role(scripts: Mapping[str, Reply | Sequence[Reply]]) -> Callable[[ProviderRequest], Script]:
    """A script that answers each agent by its own row, one reply further for every tool result it has seen."""

    def choose(request: ProviderRequest) -> Script:
        row = scripts[role_of(request)]
        return row if isinstance(row, Reply) else row[min(outputs_in(request), len(row) - 1)]

    return choose


def agent_named(name: str, model: Any, **options: Any) -> Agent[Any]:
    """An agent that `by_role` recognises."""
    return Agent(name=name, instructions=f"I am {name}.", model=model, **options)


def capped(tokens: int, **options: Any) -> ModelSettings:
    """Settings of a client that caps its output."""
    return ModelSettings(max_tokens=tokens, **options)


def agree(provider: LocalProvider, guard: BudgetGuard) -> None:
    """Compare the two ledgers to the nano-dollar, and see that nothing is held any more."""
    provider.wait_until_idle()
    report = guard.report()
    served = [call for call in provider.calls if call.cost_nano]
    assert guard.reserved_usd == 0
    assert guard.spent_usd == provider.bill_usd
    assert report.breakdown.llm.calls == len(served)
    assert report.breakdown.llm.total == provider.bill_usd
    assert sum(spend.input_tokens for spend in report.breakdown.llm.by_model.values()) == sum(
        call.usage.input_tokens for call in served
    )
    assert sum(spend.output_tokens for spend in report.breakdown.llm.by_model.values()) == sum(
        call.usage.output_tokens for call in served
    )
    assert report.bound_violations == 0
    assert report.overrun == 0


def never_below(provider: LocalProvider, guard: BudgetGuard) -> None:
    """Where a call was cut off nobody knows its bill: the guard may say more, and never less."""
    provider.wait_until_idle()
    assert guard.reserved_usd == 0
    assert guard.spent_usd >= provider.bill_usd
