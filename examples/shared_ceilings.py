"""One ceiling for all runs of a user, in a file that every process of this host shares.

Two runs of one user share $0.30 a day: their fourth call is refused. An operator raises the ceiling, and later cuts
the user off: her runs stop at their next call, everybody else goes on.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from budget_guard import Budget, BudgetAuthority, ModelCall, Session, Usage, open_ledger, weigh

PRICING = {"house-model": (1e-6, 10e-6)}  # dollars per token: the example's own model, so that no price ever changes


def ask(session: Session, question: str) -> str:
    """One model call: authorised, made, paid for. An adapter does this for you."""
    call = ModelCall("house-model", weigh(messages=question), max_output_tokens=10_000)
    decision = session.authorize(call, sent=True)
    if decision.error is not None:
        return f"refused: {decision.reason}"
    # ... here the call is made; say that it wrote 9,000 tokens
    decision.require().commit(Usage(input=500, output=9_000))
    return "answered"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger = open_ledger(f"sqlite:///{Path(folder, 'budget.db').as_posix()}")
        authority = BudgetAuthority(
            ledger,
            {"user": Budget("$0.30", window="day"), "team": Budget("$500.00", window="month")},
            pricing=PRICING,
            max_live_runs={"user": 10},
            outbox=Path(folder, "outbox.jsonl"),  # what is spent while the ledger is out of reach
        )
        with (
            authority.session(Budget("$5.00"), user="ada", team="research", feature="search") as first,
            authority.session(Budget("$5.00"), user="ada", team="research") as second,
            authority.session(Budget("$5.00"), user="bob", team="research") as other,
        ):
            for session in (first, second, first, second):
                print(f"ada: {ask(session, 'What is a ledger?')}")
            print(f"bob: {ask(other, 'What is a ledger?')}")

            authority.set_ceiling("user", "ada", Budget("$1.00", window="day"))  # for her alone
            print(f"ada: {ask(first, 'And now?')}")

            with second.child(Budget("$0.20")) as step:  # a part of the run's money, for one step of it
                print(f"ada's step: {ask(step, 'Only this.')}")

            authority.revoke("user", "ada", reason="key leaked")
            print(f"ada: {ask(second, 'Still there?')}")
            print(f"bob: {ask(other, 'Still there?')}")

        ada = authority.snapshot("user", "ada")
        print(f"ada spent ${ada.spent_usd}, holds ${ada.reserved_usd}, may have ${ada.remaining_usd} more today")
        print(f"research spent ${authority.snapshot('team', 'research').spent_usd} this month")
        print(f"{len(authority.decisions(action='block'))} calls were refused")
        ledger.close()


if __name__ == "__main__":
    main()
