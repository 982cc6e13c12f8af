"""A pydantic-ai agent that asks another one, each in a budget of its own. The inner stop ends the outer run.

Prints what stopped the run, what each agent spent, and the provider's own bill, which is the same amount.
"""

from __future__ import annotations

from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from budget_guard import Budget
from budget_guard.integrations.pydantic_ai import BudgetExceeded, BudgetModel
from budget_guard.testing import LocalProvider, ProviderRequest, Reply, ToolCall


def stuck(request: ProviderRequest) -> Reply:
    """What the local provider answers: it calls the tool that it is offered, for ever."""
    return Reply(tool_calls=[ToolCall(request.tools[0], {"question": "why?"})], input_tokens=2_000, output_tokens=500)


def main(base_url: str | None = None) -> None:
    def model() -> OpenAIChatModel:
        return OpenAIChatModel("gpt-4o", provider=OpenAIProvider(openai_client=AsyncOpenAI(base_url=base_url)))

    researcher_model = BudgetModel(model(), Budget("$0.10"), agent="Researcher")
    editor_model = BudgetModel(model(), Budget("$1.00"), agent="Editor")
    researcher, editor = Agent(researcher_model), Agent(editor_model)

    @researcher.tool_plain
    def search(question: str) -> str:
        """Search the web."""
        return "Nothing found."

    @editor.tool_plain
    async def research(question: str) -> str:
        """Ask the researcher."""
        return str((await researcher.run(question)).output)

    try:
        editor.run_sync("Why is the sky blue?", model_settings={"max_tokens": 1_000})
    except BudgetExceeded as stop:
        print(f"Stopped by {stop.dimension}=${stop.limit}")
    for name, each in (("Researcher", researcher_model), ("Editor", editor_model)):
        print(f"{name:10}  {each.report()}")
    print(f"Spent: ${researcher_model.spent_usd + editor_model.spent_usd}")


if __name__ == "__main__":
    # To call the real API, set OPENAI_API_KEY and keep only `main()`.
    with LocalProvider(stuck) as provider:
        import os

        os.environ["OPENAI_API_KEY"] = "none"
        main(provider.base_url)
        print(f"The provider's bill: ${provider.bill_usd}")
