"""The smallest guarded run: one agent, one tool, at most one dollar.

Prints the agent's answer, the report line, and the provider's own bill, which is the same amount.
"""

from __future__ import annotations

import asyncio

from _provider import local_openai
from agents import Agent, Runner, function_tool

from budget_guard import Budget
from budget_guard.integrations.openai_agents import BudgetGuard
from budget_guard.live import spend_line
from budget_guard.testing import Reply, ToolCall

# What the local provider answers: first a tool call, then the answer.
SCRIPT = [
    Reply(tool_calls=[ToolCall("weather", {"city": "Paris"})], input_tokens=900, output_tokens=40),
    Reply(text="Take an umbrella.", input_tokens=1_000, output_tokens=200),
]


@function_tool
def weather(city: str) -> str:
    """Look up the weather."""
    return f"Rain in {city}."


async def main() -> None:
    agent = Agent(name="Forecaster", instructions="Look up the weather, then advise.", model="gpt-4o", tools=[weather])
    guard = BudgetGuard(Budget("$1.00"))
    with spend_line(guard):  # one live line of spend; nothing where the output is no terminal
        result = await Runner.run(agent, "What should I take to Paris?", hooks=guard)
    print(result.final_output)
    print(guard.report())


if __name__ == "__main__":
    # To call the real API, set OPENAI_API_KEY and keep only `asyncio.run(main())`.
    with local_openai(SCRIPT) as provider:
        asyncio.run(main())
        print(f"The provider's bill: ${provider.bill_usd}")
