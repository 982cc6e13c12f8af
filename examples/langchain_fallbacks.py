"""Two ways to a cheaper model without an agent: `with_fallbacks`, which LangChain has, and `budgeted_model`.

Prints each model call and what it cost. Both ways switch at half of the budget.
"""

from __future__ import annotations

import logging
from typing import Any

from _provider import local_provider
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable
from langchain_openai import ChatOpenAI

from budget_guard import Budget
from budget_guard.events import CallCommitted, Event
from budget_guard.integrations.langchain import BudgetCallbackHandler, budgeted_model
from budget_guard.testing import Reply

# What the local provider answers: a cent for each call of gpt-4o.
ANSWER = Reply(text="Because the air scatters blue light.", output_tokens=1_000)


def show(event: Event) -> None:
    """Print what happens while it happens."""
    if isinstance(event, CallCommitted):
        print(f"  {event.name:<12} ${event.cost_usd:.6f}")


def ask(model: Runnable[Any, AIMessage], handler: BudgetCallbackHandler) -> None:
    """Call the model five times within one budget."""
    handler.subscribe(show)
    for _ in range(5):
        model.invoke("Why is the sky blue?", config={"callbacks": [handler]})


def main() -> None:
    # LangChain logs each refusal, and here it is no error: the fallback takes the call.
    logging.getLogger("langchain_core.callbacks.manager").setLevel(logging.ERROR)
    big = ChatOpenAI(model="gpt-4o", max_completion_tokens=1_000, max_retries=0)
    cheap = ChatOpenAI(model="gpt-4o-mini", max_completion_tokens=1_000, max_retries=0)

    print("with_fallbacks:")
    # The handler refuses the big model past the threshold, and LangChain tries the next one.
    ask(
        big.with_fallbacks([cheap]),
        BudgetCallbackHandler(Budget("$0.05"), downgrade_to="gpt-4o-mini", downgrade_at=0.5),
    )

    print("budgeted_model:")
    # It decides with the hold. It is a chat model as any other: bind tools to it, stream it, put it into a chain.
    ask(budgeted_model(big, cheap, downgrade_at=0.5), BudgetCallbackHandler(Budget("$0.05")))


if __name__ == "__main__":
    # To call the real API, set OPENAI_API_KEY and keep only `main()`.
    with local_provider(ANSWER):
        main()
