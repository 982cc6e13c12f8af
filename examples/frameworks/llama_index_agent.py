"""A stuck LlamaIndex agent that is stopped at ten cents.

Prints what stopped it, the report line, and the provider's own bill, which is the same amount.
"""

from __future__ import annotations

import asyncio

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.llms.openai import OpenAI

from budget_guard import Budget
from budget_guard.integrations.llama_index import BudgetExceeded, guard_llm
from budget_guard.testing import LocalProvider, ProviderRequest, Reply, ToolCall


def stuck(request: ProviderRequest) -> Reply:
    """What the local provider answers: it calls the tool that it is offered, for ever."""
    return Reply(tool_calls=[ToolCall(request.tools[0], {"question": "why?"})], input_tokens=2_000, output_tokens=500)


def search(question: str) -> str:
    """Search the web."""
    return "Nothing found."


async def main(base_url: str | None = None) -> None:
    session = Budget("$0.10").session()
    llm = guard_llm(OpenAI(model="gpt-4o", api_base=base_url, max_tokens=1_000), session)
    try:
        print(await FunctionAgent(tools=[search], llm=llm).run("Why is the sky blue?"))
    except BudgetExceeded as stop:
        print(f"Stopped by {stop.dimension}=${stop.limit}")
    print(session.report())


if __name__ == "__main__":
    # To call the real API, set OPENAI_API_KEY and keep only `asyncio.run(main())`.
    with LocalProvider(stuck) as provider:
        import os

        os.environ["OPENAI_API_KEY"] = "none"
        asyncio.run(main(provider.base_url))
        print(f"The provider's bill: ${provider.bill_usd}")
