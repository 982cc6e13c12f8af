"""A stuck agent switches to a cheaper model at half of its budget, and ends with a message instead of an error.

Prints each model call and what it cost, the last message, and the next turn of the same thread, which stays valid.
"""

from __future__ import annotations

from typing import Any

from _provider import local_provider
from langchain.agents import create_agent
from langchain_core.runnables import RunnableConfig
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver

from budget_guard import Budget
from budget_guard.events import CallCommitted, Event
from budget_guard.integrations.langchain import BudgetCallbackHandler, BudgetMiddleware
from budget_guard.testing import ProviderRequest, Reply, Script, ToolCall


def script(request: ProviderRequest) -> Script:
    """What the local provider answers: it searches for ever, until it is told to stop."""
    if "stop searching" in str(request.messages):
        return Reply(text="I found nothing.")
    return Reply(tool_calls=[ToolCall("search", {"query": "budget"})], output_tokens=1_000)


def search(query: str) -> str:
    """Search the archive."""
    return "Nothing on this page."


def show(event: Event) -> None:
    """Print what happens while it happens."""
    if isinstance(event, CallCommitted) and event.kind == "model":
        print(f"{event.name:<12} ${event.cost_usd:.6f}")


def main() -> None:
    handler = BudgetCallbackHandler(Budget("$0.04"))
    handler.subscribe(show)
    agent: Any = create_agent(
        ChatOpenAI(model="gpt-4.1", max_retries=0),
        [search],
        middleware=[BudgetMiddleware(handler, downgrade_to="gpt-4.1-mini", downgrade_at=0.5)],
        checkpointer=InMemorySaver(),
    )
    config: RunnableConfig = {"configurable": {"thread_id": "1"}, "recursion_limit": 100}
    stuck = agent.invoke({"messages": [{"role": "user", "content": "Find it."}]}, config)
    print("Ended:", stuck["messages"][-1].content)
    print(handler.report())

    handler.raise_limits(max_cost_usd="0.08")
    asked = agent.invoke({"messages": [{"role": "user", "content": "Please stop searching."}]}, config)
    print("Next turn:", asked["messages"][-1].content)


if __name__ == "__main__":
    # To call the real API, set OPENAI_API_KEY and keep only `main()`.
    with local_provider(script):
        main()
