"""A stuck CrewAI crew that is stopped at ten cents.

Prints what stopped it, the report line, and the provider's own bill, which is the same amount.
"""

from __future__ import annotations

import os

os.environ |= {"CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true", "CREWAI_TRACING_ENABLED": "false"}

from crewai import LLM, Agent, Crew, Task
from crewai.tools import tool

from budget_guard import Budget
from budget_guard.integrations.crewai import BudgetExceeded, guard_crew, session_of
from budget_guard.testing import LocalProvider, ProviderRequest, Reply, ToolCall


def stuck(request: ProviderRequest) -> Reply:
    """What the local provider answers: it calls the tool that it is offered, for ever."""
    question = f"why, for the {request.index + 1}. time?"
    return Reply(tool_calls=[ToolCall(request.tools[0], {"question": question})], input_tokens=2_000, output_tokens=500)


@tool("search")
def search(question: str) -> str:
    """Search the web."""
    return "Nothing found."


def main(base_url: str | None = None) -> None:
    llm = LLM(model="openai/gpt-4o", base_url=base_url, max_tokens=1_000)
    agent = Agent(role="Researcher", goal="Find it", backstory="Stubborn", llm=llm, tools=[search], max_iter=50)
    task = Task(description="Why is the sky blue?", expected_output="One sentence", agent=agent)
    crew = guard_crew(Crew(agents=[agent], tasks=[task], tracing=False), Budget("$0.10"))
    try:
        print(crew.kickoff())
    except BudgetExceeded as stop:
        print(f"Stopped by {stop.dimension}=${stop.limit}")
    print(session_of(crew).report())


if __name__ == "__main__":
    # To call the real API, set OPENAI_API_KEY and keep only `main()`.
    with LocalProvider(stuck) as provider:
        os.environ["OPENAI_API_KEY"] = "none"
        main(provider.base_url)
        print(f"The provider's bill: ${provider.bill_usd}")
