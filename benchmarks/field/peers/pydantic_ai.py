"""pydantic-ai: `UsageLimits(cost_limit=...)` over one `RunUsage` that all runs share, as its delegation does."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from pydantic_ai import Agent, UsageLimitExceeded
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.usage import RunUsage, UsageLimits
from scenarios import Call, Guard, Place

STOPS = (UsageLimitExceeded,)


@contextmanager
def opened(cap: float, place: Place) -> Iterator[Guard]:
    usage = RunUsage()
    limits = UsageLimits(cost_limit=Decimal(str(cap)), request_limit=None)
    own = threading.local()  # a client belongs to the event loop of its thread

    def agent_for(call: Call) -> Agent:
        agents: dict[str, Agent] = own.__dict__.setdefault("agents", {})
        if call.model not in agents:
            provider = OpenAIProvider(openai_client=place.async_openai())
            agents[call.model] = Agent(OpenAIChatModel(call.model, provider=provider))
        return agents[call.model]

    def settings(call: Call) -> Any:
        return None if call.cap is None else {"max_tokens": call.cap}

    def ask(call: Call) -> str:
        agent = agent_for(call)
        return agent.run_sync(call.prompt, model_settings=settings(call), usage=usage, usage_limits=limits).output

    async def aask(call: Call) -> str:
        agent = agent_for(call)
        run = await agent.run(call.prompt, model_settings=settings(call), usage=usage, usage_limits=limits)
        return run.output

    def stream(call: Call) -> str:
        agent = agent_for(call)
        run = agent.run_stream_sync(call.prompt, model_settings=settings(call), usage=usage, usage_limits=limits)
        return run.get_output()

    def plain(call: Call) -> object:
        return agent_for(call).run_sync(call.prompt, model_settings=settings(call)).output

    yield Guard(ask, aask, stream, spent=lambda: float(usage.cost or 0), plain=plain)
