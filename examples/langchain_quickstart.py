"""The smallest guarded LangChain agent: one handler in the config, at most one dollar. Your agent is not changed.

Prints the agent's answer, the report line, and the provider's own bill, which is the same amount.
"""

from __future__ import annotations

from _provider import local_provider
from langchain.agents import create_agent
from langchain_openai import ChatOpenAI

from budget_guard import Budget
from budget_guard.integrations.langchain import BudgetCallbackHandler
from budget_guard.testing import Reply, ToolCall

# What the local provider answers: first a tool call, then the answer.
SCRIPT = [
    Reply(tool_calls=[ToolCall("weather", {"city": "Paris"})], input_tokens=900, output_tokens=40),
    Reply(text="Take an umbrella.", input_tokens=1_000, output_tokens=200),
]


def weather(city: str) -> str:
    """Look up the weather."""
    return f"Rain in {city}."


def main() -> None:
    # A handler cannot send a cap on the output, so the model says its own: it makes the worst case of a call small.
    model = ChatOpenAI(model="gpt-4o", max_completion_tokens=1_000, max_retries=0)
    agent = create_agent(model, [weather], system_prompt="Look up the weather, then advise.")
    handler = BudgetCallbackHandler(Budget("$1.00"))
    result = agent.invoke(
        {"messages": [{"role": "user", "content": "What should I take to Paris?"}]},
        config={"callbacks": [handler]},
    )
    print(result["messages"][-1].content)
    print(handler.report())


if __name__ == "__main__":
    # To call the real API, set OPENAI_API_KEY and keep only `main()`.
    with local_provider(SCRIPT) as provider:
        main()
        print(f"The provider's bill: ${provider.bill_usd}")
