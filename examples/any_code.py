"""A plain script in one budget: a priced tool, an answer that is booked after it was made, and a loop that is stopped.

Prints the report line, what stopped the loop, and that the provider's bill is what was booked for models.
"""

from __future__ import annotations

from _provider import local_provider
from openai import OpenAI

from budget_guard import Budget, LoopDetected, LoopPolicy
from budget_guard.testing import Reply


def main() -> None:
    with Budget("$1.00", loop=LoopPolicy()).session() as session, OpenAI() as client:

        @session.track_tool(cost="0.01")
        def search(query: str) -> list[str]:
            """Search the web, for a cent."""
            return []

        reply = session.wrap(
            client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Find a flat."}])
        )
        print(reply.choices[0].message.content)
        try:
            while not search("flat in Rome"):
                pass
        except LoopDetected as stop:
            print(f"Stopped: {stop.tool} repeats itself, {stop.repeats} times by now")
    print(session.report())
    print(f"For models: ${session.report().breakdown.llm.total}")
    print(f"The run was {session.outcome}")


if __name__ == "__main__":
    # To call the real API, set OPENAI_API_KEY and keep only `main()`.
    with local_provider({"gpt-4o": Reply(text="I will look for one.", output_tokens=500)}) as provider:
        main()
        print(f"The provider's bill: ${provider.bill_usd}")
