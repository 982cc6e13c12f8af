"""A script that runs overnight: a cap for the night, also over restarts, and no answer paid twice.

It rates a hundred reviews, two dollars for all of them. The first time it breaks off in the middle; started again, it
goes on with what is left of the same budget, and stops before the call that could pass it. Prints both ends, the
report, and the provider's bill.
"""

from __future__ import annotations

# --8<-- [start:imports]
from openai import OpenAI

from budget_guard import Budget, BudgetExceeded

# --8<-- [end:imports]
# isort: split
import tempfile
from pathlib import Path

from _provider import local_provider

from budget_guard.testing import Reply

# --8<-- [start:script]
REVIEWS = [f"Review {number}: it broke after {number} days." for number in range(1, 101)]


def rate(reviews: list[str], ratings: dict[str, str], ledger: str) -> None:
    """Rate what is not rated yet."""
    with Budget("$2.00", task="ratings").session(ledger=ledger, run_id="ratings-of-november") as session:
        client = session.guard(OpenAI())
        for review in reviews:
            if review not in ratings:
                answer = client.responses.create(model="gpt-4o", input=review, max_output_tokens=3_000)
                ratings[review] = answer.output_text
        print(session.report())


# --8<-- [end:script]


def main() -> None:
    ratings: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        ledger = f"sqlite:///{Path(folder, 'budget.db').as_posix()}"
        rate(REVIEWS[:40], ratings, ledger)
        print(f"The machine restarts: {len(ratings)} are rated.")
        try:
            rate(REVIEWS, ratings, ledger)
        except BudgetExceeded as stop:
            print(f"{len(ratings)} are rated. {stop.user_message}")
            print(stop.report)


if __name__ == "__main__":
    # To call the real API, set OPENAI_API_KEY and keep only `main()`.
    with local_provider(Reply(text="two stars", output_tokens=2_500)) as provider:
        main()
        print(f"The provider's bill: ${provider.bill_usd}")
