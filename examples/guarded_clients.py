"""Two lines hold a plain script: every request of an OpenAI and of an Anthropic client, in one budget.

Prints both answers, the report line, and the provider's bill, which is the same to the nano-dollar. Then a loop that
would go on for ever: it is stopped before the request that does not fit is sent.
"""

from __future__ import annotations

from _provider import local_provider
from anthropic import Anthropic
from openai import OpenAI

from budget_guard import Budget, BudgetExceeded
from budget_guard.testing import Reply

SCRIPT = {"gpt-4o": Reply(text="Because the air scatters blue light.", output_tokens=800), "*": Reply(text="Yes.")}


def main() -> None:
    with Budget("$0.10").session() as session:
        openai = session.guard(OpenAI())
        claude = session.guard(Anthropic())

        answer = openai.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "Why is the sky blue?"}]
        )
        print(answer.choices[0].message.content)
        message = claude.messages.create(
            model="claude-haiku-4-5", max_tokens=100, messages=[{"role": "user", "content": "Is that so?"}]
        )
        print(message.content[0].text if message.content[0].type == "text" else "")
        print(session.report())

        try:
            while True:
                openai.responses.create(model="gpt-4o", input="Why?", max_output_tokens=1_000)
        except BudgetExceeded as stop:
            print(f"Stopped by {stop.dimension}")
        openai.close()
        claude.close()
        print(f"Spent: ${session.spent_usd}")


if __name__ == "__main__":
    # To call the real APIs, set OPENAI_API_KEY and ANTHROPIC_API_KEY and keep only `main()`.
    with local_provider(SCRIPT) as provider:
        main()
        print(f"The provider's bill: ${provider.bill_usd}")
