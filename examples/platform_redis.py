"""A platform: users build agents, each has a plan, and one ledger of all servers meters them.

Thirty runs of three users, on Redis. The free one comes to her limit of the day, and is told when it begins anew; then
she pays, and goes on at once. An operator cuts one user off, and reads the meters. Prints who was served, the top of
the list, and what one user has spent by model, and has left.

Takes the ledger's URL: ``python platform_redis.py redis://localhost:6379/0``. Without one it counts in memory.
"""

from __future__ import annotations

# --8<-- [start:imports]
from openai import OpenAI

from budget_guard import Budget, BudgetAuthority, BudgetError, open_ledger

# --8<-- [end:imports]
# isort: split
import sys

from _provider import local_openai

from budget_guard.testing import Reply

# --8<-- [start:platform]
PER_RUN = Budget("$0.50")
PLANS: dict[str, dict[str, Budget | list[Budget]]] = {
    "free": {"user": Budget("$0.10", window="day")},
    "pro": {"user": [Budget("$5.00", window="day"), Budget("$50.00", window="month")]},
}


def platform(ledger_url: str) -> BudgetAuthority:
    """What every server of the platform makes, over the same ledger."""
    return BudgetAuthority(open_ledger(ledger_url), plans=PLANS, require=("user",), max_live_runs={"user": 20})


def serve(authority: BudgetAuthority, user: str, model: str) -> str:
    """One run of an agent that a user has built."""
    try:
        with authority.session(PER_RUN, user=user) as session:
            client = session.guard(OpenAI())
            client.responses.create(model=model, input="What is new?", max_output_tokens=3_000)
        return "served"
    except BudgetError as stop:
        return stop.user_message


# --8<-- [end:platform]


def main(ledger_url: str) -> None:
    authority = platform(ledger_url)
    for user, plan in (("ada", "free"), ("bob", "pro"), ("cy", "pro")):
        authority.assign("user", user, plan)
    for user, model, runs in (("ada", "gpt-4o", 5), ("bob", "gpt-4o", 15), ("cy", "gpt-4o-mini", 10)):
        told = [serve(authority, user, model) for _ in range(runs)]
        print(f"{user}: {told.count('served')} of {runs} served; {told[-1]}")

    authority.assign("user", "ada", "pro")  # she pays
    print(f"ada: {serve(authority, 'ada', 'gpt-4o')}")
    authority.revoke("user", "cy", reason="key leaked")
    print(f"cy: {serve(authority, 'cy', 'gpt-4o-mini')}")

    for row in authority.top("user", n=2):
        print(f"{row.id} spent ${row.spent_usd:.4f}")
    for row in authority.usage("user", "ada", by=("model",)):
        print(f"ada, {row.model}: {row.calls} calls, ${row.cost_usd:.4f}")
    ada = authority.snapshot("user", "ada")
    print(f"ada, {ada.plan}: ${ada.remaining_usd:.4f} left this {ada.window}")
    authority.ledger.close()


if __name__ == "__main__":
    # To call the real API, set OPENAI_API_KEY and keep only `main()`.
    with local_openai(Reply(text="Nothing.", output_tokens=2_000)):
        main(sys.argv[1] if len(sys.argv) > 1 else "memory://")
