"""One guard covers sub-agents. A sub-agent that is a tool has no hooks of its own, and spends from the same budget.

The sub-agent gets stuck. The guard stops it, and the parent too: the SDK would hand the stop to the parent's model as
the tool's result, and go on. Prints what stopped the run and what each agent took.
"""

from __future__ import annotations

import asyncio

from _provider import local_openai
from agents import Agent, Runner, function_tool

from budget_guard import Budget
from budget_guard.integrations.openai_agents import BudgetExceeded, BudgetGuard
from budget_guard.testing import ProviderRequest, Reply, Script, ToolCall


def script(request: ProviderRequest) -> Script:
    """What the local provider answers: the parent asks the sub-agent, which searches for ever."""
    ask, search_again = ToolCall("ask_researcher", {"input": "Find it."}), ToolCall("search")
    return Reply(tool_calls=[ask if "ask_researcher" in request.tools else search_again], output_tokens=1_000)


@function_tool
def search() -> str:
    """Search the archive."""
    return "Nothing on this page."


async def main() -> None:
    researcher = Agent(name="Researcher", model="gpt-4o-mini", tools=[search])
    editor = Agent(
        name="Editor",
        model="gpt-4o",
        tools=[researcher.as_tool("ask_researcher", "Ask the researcher.", max_turns=100)],
    )
    guard = BudgetGuard(Budget("$1.00", max_requests=8))
    try:
        await Runner.run(editor, "Write the article.", hooks=guard)
    except BudgetExceeded as stop:
        print(f"Stopped by {stop.dimension}={stop.limit}")
    report = guard.report()
    for agent, spend in report.by_agent.items():
        print(f"{agent:<12} ${spend.total:.6f} in {spend.calls} model and tool calls")
    print(report)


if __name__ == "__main__":
    # To call the real API, set OPENAI_API_KEY and keep only `asyncio.run(main())`.
    with local_openai(script):
        asyncio.run(main())
