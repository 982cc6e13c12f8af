"""A process of a fleet: many runs at once, of one user, against a ledger that other processes share.

``python worker.py openai_agents sqlite:///budget.db http://127.0.0.1:1/v1 25`` prints how many runs were refused.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from budget_guard import Budget, BudgetAuthority, BudgetExceeded, open_ledger

CEILING = Budget("$1.00")
OUTPUT = 10_000
"""Output tokens of one call: ten cents."""


async def run_openai_agents(authority: BudgetAuthority, base_url: str) -> None:
    """One run of the OpenAI Agents SDK."""
    from agents import Agent, ModelSettings, OpenAIResponsesModel, Runner, set_tracing_disabled
    from openai import AsyncOpenAI

    from budget_guard.integrations.openai_agents import BudgetGuard

    set_tracing_disabled(True)
    async with AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        model = OpenAIResponsesModel("gpt-4o", openai_client=client)
        agent: Agent[Any] = Agent(name="A", model=model, model_settings=ModelSettings(max_tokens=OUTPUT))
        guard = BudgetGuard(CEILING, authority=authority, user="u1")
        try:
            await Runner.run(agent, "go", hooks=guard)
        finally:
            await guard.aclose()


async def run_langchain(authority: BudgetAuthority, base_url: str) -> None:
    """One run of a LangChain model."""
    from langchain_openai import ChatOpenAI

    from budget_guard.integrations.langchain import BudgetCallbackHandler

    handler = BudgetCallbackHandler(CEILING, authority=authority, user="u1")
    model = ChatOpenAI(
        model="gpt-4o",
        base_url=base_url,
        api_key=lambda: "none",
        max_retries=0,
        max_tokens=OUTPUT,  # type: ignore[call-arg]  # its alias
    )
    try:
        await model.ainvoke("go", {"callbacks": [handler]})
    finally:
        await handler.aclose()


RUNS = {"openai_agents": run_openai_agents, "langchain": run_langchain}


async def refused(adapter: str, authority: BudgetAuthority, base_url: str, count: int) -> int:
    """Make *count* runs at once; how many were refused. Anything else that goes wrong is raised."""
    results = await asyncio.gather(*(RUNS[adapter](authority, base_url) for _ in range(count)), return_exceptions=True)
    stops = [result for result in results if isinstance(result, BudgetExceeded)]
    for result in results:
        if isinstance(result, BaseException) and result not in stops:
            raise result
    return len(stops)


def main() -> None:
    adapter, url, base_url, count = sys.argv[1:]
    ledger = open_ledger(url)
    authority = BudgetAuthority(ledger, ceilings={"user": CEILING})
    print(asyncio.run(refused(adapter, authority, base_url, int(count))))
    ledger.close()


if __name__ == "__main__":
    main()
