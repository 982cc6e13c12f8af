"""Use the guard beside hooks of your own: the SDK takes one `RunHooks` object, so put them into one.

Prints a line for each model call from the user's own hooks, then the report line.
"""

from __future__ import annotations

import asyncio
from typing import Any

from _provider import local_openai
from agents import Agent, ModelResponse, RunContextWrapper, RunHooks, Runner

from budget_guard import Budget
from budget_guard.integrations.openai_agents import BudgetGuard, CompositeRunHooks
from budget_guard.testing import Reply


class PrintingHooks(RunHooks[Any]):
    """Hooks as you may have them already."""

    async def on_llm_end(self, context: RunContextWrapper[Any], agent: Agent[Any], response: ModelResponse) -> None:
        print(f"{agent.name}: {response.usage.total_tokens} tokens")


async def main() -> None:
    guard = BudgetGuard(Budget("$1.00"))
    # The guard comes first: it decides before the others hear of the call.
    hooks = CompositeRunHooks(guard, PrintingHooks())
    result = await Runner.run(Agent(name="Poet", model="gpt-4o"), "A haiku, please.", hooks=hooks)
    print(result.final_output)
    print(guard.report())


if __name__ == "__main__":
    # To call the real API, set OPENAI_API_KEY and keep only `asyncio.run(main())`.
    with local_openai(Reply(text="Before the call goes out, a coin is laid aside. Nothing overflows.")):
        asyncio.run(main())
