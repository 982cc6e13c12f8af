"""An agent that is the tool of another one, each in a budget of its own. The inner stop ends the outer run.

Prints what stopped the run, what each agent spent, and the provider's own bill, which is the same amount.
"""

from __future__ import annotations

import asyncio

from agent_framework import Agent
from agent_framework.openai import OpenAIChatCompletionClient

from budget_guard import Budget
from budget_guard.integrations.agent_framework import BudgetExceeded, BudgetMiddleware
from budget_guard.testing import LocalProvider, ProviderRequest, Reply, ToolCall


def stuck(request: ProviderRequest) -> Reply:
    """What the local provider answers: it calls the tool that it is offered, for ever."""
    return Reply(tool_calls=[ToolCall(request.tools[0], {"question": "why?"})], input_tokens=2_000, output_tokens=500)


async def search(question: str) -> str:
    """Search the web."""
    return "Nothing found."


async def main(base_url: str | None = None) -> None:
    client = OpenAIChatCompletionClient(model="gpt-4o", base_url=base_url)
    inner, outer = BudgetMiddleware(Budget("$0.10")), BudgetMiddleware(Budget("$1.00"))
    researcher = Agent(client, name="Researcher", description="Finds things", tools=[search], middleware=[inner])
    editor = Agent(client, name="Editor", tools=[researcher.as_tool(arg_name="question")], middleware=[outer])
    try:
        await editor.run("Why is the sky blue?", options={"max_tokens": 1_000})
    except BudgetExceeded as stop:
        print(f"Stopped by {stop.dimension}=${stop.limit}")
    for name, each in (("Researcher", inner), ("Editor", outer)):
        print(f"{name:10}  {each.report()}")


if __name__ == "__main__":
    # To call the real API, set OPENAI_API_KEY and keep only `asyncio.run(main())`.
    with LocalProvider(stuck) as provider:
        import os

        os.environ["OPENAI_API_KEY"] = "none"
        asyncio.run(main(provider.base_url))
        print(f"The provider's bill: ${provider.bill_usd}")
