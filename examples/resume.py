"""A run that was stopped at its limit goes on from there once the limit is raised. No tool runs twice.

Prints why the run stopped, the answer after the limit was raised, and how often the tool ran.
"""

from __future__ import annotations

import asyncio

from _provider import local_openai
from agents import Agent, Runner, function_tool

from budget_guard import Budget
from budget_guard.integrations.openai_agents import BudgetExceeded, BudgetGuard
from budget_guard.testing import Reply, ToolCall

# What the local provider answers: three orders, then the answer.
SCRIPT = [
    *(Reply(tool_calls=[ToolCall("order", {"item": item})], output_tokens=500) for item in ("ink", "paper", "pens")),
    Reply(text="All three are ordered."),
]
ordered: list[str] = []


@function_tool
def order(item: str) -> str:
    """Order an item. It must not be ordered twice."""
    ordered.append(item)
    return f"{item}: ordered"


async def main() -> None:
    agent = Agent(name="Buyer", model="gpt-4o", tools=[order])
    guard = BudgetGuard(Budget(max_cost_usd="$0.50", max_requests=2))
    try:
        result = await Runner.run(agent, "Order ink, paper and pens.", hooks=guard)
    except BudgetExceeded as stop:
        print(f"Stopped by {stop.dimension}={stop.limit} after ordering {ordered}")
        guard.raise_limits(max_requests=10)
        # The conversation so far, with the results of the tools that ran, is the input of the next run.
        result = await Runner.run(stop.last_agent, stop.resume_input(), hooks=guard)
    print(result.final_output)
    print(f"Ordered: {ordered}")
    print(guard.report())


if __name__ == "__main__":
    # To call the real API, set OPENAI_API_KEY and keep only `asyncio.run(main())`.
    with local_openai(SCRIPT):
        asyncio.run(main())
