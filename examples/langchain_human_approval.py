"""At its limit the agent pauses and asks a human for more budget. Approved, it goes on from there and finishes.

Prints the question that a human sees, the answer after the approval, and what the two halves cost together.
"""

from __future__ import annotations

from typing import Any

from _provider import local_provider
from langchain.agents import create_agent
from langchain_core.runnables import RunnableConfig
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from budget_guard import Budget
from budget_guard.integrations.langchain import BudgetCallbackHandler, BudgetMiddleware
from budget_guard.testing import Reply, ToolCall

# What the local provider answers: three orders, then the answer.
SCRIPT = [
    *(Reply(tool_calls=[ToolCall("order", {"item": item})], output_tokens=500) for item in ("ink", "paper", "pens")),
    Reply(text="All three are ordered."),
]
ordered: list[str] = []


def order(item: str) -> str:
    """Order an item. It must not be ordered twice."""
    ordered.append(item)
    return f"{item}: ordered"


def main() -> None:
    handler = BudgetCallbackHandler(Budget(max_cost_usd="$0.50", max_requests=2))
    agent: Any = create_agent(
        ChatOpenAI(model="gpt-4o", max_retries=0),
        [order],
        middleware=[BudgetMiddleware(handler, exit_behavior="interrupt")],
        checkpointer=InMemorySaver(),  # a paused run is kept in it
    )
    config: RunnableConfig = {"configurable": {"thread_id": "1"}}
    paused = agent.invoke({"messages": [{"role": "user", "content": "Order ink, paper and pens."}]}, config)
    print("Asked:", paused["__interrupt__"][0].value["message"])
    print("Ordered so far:", ordered)

    done = agent.invoke(Command(resume={"max_requests": 10}), config)  # resume=False would end the run
    print(done["messages"][-1].content)
    print("Ordered:", ordered)
    print(handler.report())


if __name__ == "__main__":
    # To call the real API, set OPENAI_API_KEY and keep only `main()`.
    with local_provider(SCRIPT):
        main()
