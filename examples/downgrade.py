"""Switch to a cheaper model once half of the budget is spent, for this run alone. The agent is not touched.

Prints each model call and what it cost, from the guard's decisions and events, and the agent's model at the end.
"""

from __future__ import annotations

import asyncio

from _provider import local_openai
from agents import Agent, Runner, function_tool

from budget_guard import Budget
from budget_guard.events import CallCommitted, Event, ModelDowngraded
from budget_guard.integrations.openai_agents import BudgetGuard
from budget_guard.testing import Reply, ToolCall

# What the local provider answers: five searches at about two cents each on gpt-4o, then the answer.
SEARCH = Reply(tool_calls=[ToolCall("search", {"query": "budget"})], output_tokens=2_000)
SCRIPT = [SEARCH, SEARCH, SEARCH, SEARCH, SEARCH, Reply(text="Found it.")]


@function_tool
def search(query: str) -> str:
    """Search the archive."""
    return "Nothing on this page."


def show(event: Event) -> None:
    """Print what happens while it happens."""
    if isinstance(event, ModelDowngraded):
        print(f"  {event.model} -> {event.target}: {event.reason}")
    elif isinstance(event, CallCommitted) and event.kind == "model":
        print(f"{event.name:<12} ${event.cost_usd:.6f}")


async def main() -> None:
    agent = Agent(name="Researcher", model="gpt-4o", tools=[search])
    # A mapping replaces only the models that it names: downgrade_to={"gpt-4o": "gpt-4o-mini"}.
    guard = BudgetGuard(Budget("$0.10"), downgrade_to="gpt-4o-mini", downgrade_at=0.5)
    guard.subscribe(show)
    result = await Runner.run(agent, "Find it.", hooks=guard)
    print(result.final_output)
    print(f"The agent's model is still {agent.model}.")
    print(guard.report())


if __name__ == "__main__":
    # To call the real API, set OPENAI_API_KEY and keep only `asyncio.run(main())`.
    with local_openai(SCRIPT):
        asyncio.run(main())
