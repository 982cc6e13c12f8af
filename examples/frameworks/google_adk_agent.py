"""A stuck ADK agent that is stopped at one cent, and says so to its user.

Prints how the run ended, the report line, and the provider's own bill, which is the same amount.
"""

from __future__ import annotations

import asyncio

from google.adk.agents import LlmAgent
from google.adk.models.google_llm import Gemini
from google.adk.runners import InMemoryRunner
from google.genai import types

from budget_guard import Budget
from budget_guard.integrations.google_adk import BudgetLlm, BudgetPlugin
from budget_guard.testing import LocalProvider, ProviderRequest, Reply, ToolCall


def stuck(request: ProviderRequest) -> Reply:
    """What the local provider answers: it calls the tool that it is offered, for ever."""
    return Reply(tool_calls=[ToolCall(request.tools[0], {"question": "why?"})], input_tokens=1_000, output_tokens=500)


def search(question: str) -> str:
    """Search the web."""
    return "Nothing found."


async def main(base_url: str | None = None) -> None:
    session = Budget("$0.01").session()
    agent = LlmAgent(
        name="researcher",
        model=BudgetLlm(Gemini(model="gemini-2.5-flash", base_url=base_url), session),
        tools=[search],
        generate_content_config=types.GenerateContentConfig(max_output_tokens=1_000),
    )
    runner = InMemoryRunner(agent=agent, app_name="research", plugins=[BudgetPlugin(session)])
    talk = await runner.session_service.create_session(app_name="research", user_id="ada")
    asked = types.Content(role="user", parts=[types.Part(text="Why is the sky blue?")])
    async for event in runner.run_async(user_id="ada", session_id=talk.id, new_message=asked):
        if event.error_code:
            print(f"Ended: {event.error_code}")
    print(session.report())


if __name__ == "__main__":
    # To call the real API, set GOOGLE_API_KEY and keep only `asyncio.run(main())`.
    with LocalProvider(stuck) as provider:
        import os

        os.environ["GOOGLE_API_KEY"] = "none"
        asyncio.run(main(provider.root_url))
        print(f"The provider's bill: ${provider.bill_usd}")
