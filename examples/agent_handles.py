"""Agents with an identity: one is capped by its name within a run, one is cut off by its handle in all of them.

Prints who is answered and who is refused, and what each agent spent.
"""

from __future__ import annotations

from _provider import local_provider
from openai import OpenAI

from budget_guard import Budget, BudgetAuthority, BudgetError
from budget_guard.testing import Reply


def ask(client: OpenAI, who: str) -> None:
    try:
        client.responses.create(model="gpt-4o", input="Find a flat.", max_output_tokens=1_000)
        print(f"{who}: answered")
    except BudgetError as stop:
        print(f"{who}: {type(stop).__name__}: {stop}")


def main() -> None:
    authority = BudgetAuthority(ceilings={"agent": Budget("$1.50")}, require=())
    budget = Budget("$1.00", agents={"writer-7": Budget("$0.015")}, max_wait_s=0)
    with authority.session(budget) as session, OpenAI() as client:
        researcher = session.guard(client, agent="research-agent-42")
        writer = session.guard(client, agent="writer-7")
        for _ in range(2):
            ask(writer, "writer-7")
        ask(researcher, "research-agent-42")
        authority.revoke("agent", "research-agent-42", reason="it leaks")
        ask(researcher, "research-agent-42")
        for name, spend in session.report().by_agent.items():
            print(f"{name} spent ${spend.total}")


if __name__ == "__main__":
    # To call the real API, set OPENAI_API_KEY and keep only `main()`.
    with local_provider({"gpt-4o": Reply(text="I found one.", output_tokens=1_000)}) as provider:
        main()
        print(f"The provider's bill: ${provider.bill_usd}")
