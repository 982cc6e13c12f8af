"""The same stuck agent twice: without a guard, and with one. Both bills come from the provider's own ledger.

The agent's search tool never finds anything, so its model searches again, and each search makes the next call dearer.
Without a guard, the run goes on until `max_turns` stops it. With a guard, it warns, goes on with a cheaper model,
and stops before the call that could pass $0.50.

Prints both bills, the guard's ledger and the provider's. Exits with status 1 unless the ledgers agree to the
nano-dollar and the bill is within the budget.

    python examples/overspend_demo.py
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal

from _provider import local_openai
from agents import Agent, AgentsException, Runner, function_tool

from budget_guard import Budget
from budget_guard.integrations.openai_agents import BudgetGuard
from budget_guard.live import spend_line
from budget_guard.testing import LocalProvider, Reply, ToolCall

LIMIT = "$0.50"
MAX_TURNS = 40  # only so that the unguarded run ends at all

# What the "model" does: it thinks for 2,000 tokens, then searches again, for ever.
STUCK = Reply(tool_calls=[ToolCall("search", {"query": "the answer"})], output_tokens=2_000)


@function_tool
def search(query: str) -> str:
    """Search the archive."""
    return "No match on this page. Try again. " * 180  # about 1,500 tokens that every later call pays for again


AGENT = Agent(name="Researcher", instructions="Search until you find it.", model="gpt-4o", tools=[search])


@dataclass(frozen=True)
class Outcome:
    """What the provider's ledger says of one run."""

    bill: Decimal
    calls: Counter[str]
    ended_by: str


async def run(provider: LocalProvider, guard: BudgetGuard | None) -> Outcome:
    provider.reset()
    try:
        await Runner.run(AGENT, "Find the answer.", max_turns=MAX_TURNS, hooks=guard)
        ended_by = "a final answer"
    except AgentsException as stop:  # MaxTurnsExceeded, or the guard's BudgetExceeded
        ended_by = type(stop).__name__
    return Outcome(provider.bill_usd, Counter(call.model for call in provider.calls), ended_by)


async def main() -> int:
    guard = BudgetGuard(Budget(LIMIT), downgrade_to="gpt-4o-mini", downgrade_at=0.8)
    with local_openai(STUCK) as provider:
        print("A stuck agent, without a guard ...")
        unguarded = await run(provider, None)
        print(f"... and with hooks=BudgetGuard(Budget({LIMIT!r}), downgrade_to='gpt-4o-mini')")
        with spend_line(guard):
            guarded = await run(provider, guard)

    show(unguarded, guarded)
    agree = guard.spent_usd == guarded.bill
    within = guard.budget.max_cost_usd is not None and guarded.bill <= guard.budget.max_cost_usd
    print(f"Guard's ledger:     ${guard.spent_usd:.9f}")
    print(f"Provider's ledger:  ${guarded.bill:.9f}")
    print("They agree to the nano-dollar." if agree else "THEY DO NOT AGREE.")
    print(f"The bill is within {LIMIT}." if within else f"THE BILL IS ABOVE {LIMIT}.")
    print(guard.report())
    return 0 if agree and within else 1


def show(unguarded: Outcome, guarded: Outcome) -> None:
    """Print both runs side by side."""
    models = sorted(unguarded.calls | guarded.calls)
    rows = [
        ("Provider's bill", f"${unguarded.bill:.4f}", f"${guarded.bill:.4f}"),
        ("Model calls", str(unguarded.calls.total()), str(guarded.calls.total())),
        *((f"  {model}", str(unguarded.calls[model]), str(guarded.calls[model])) for model in models),
        ("Ended by", unguarded.ended_by, guarded.ended_by),
    ]
    if sys.stdout.isatty():
        try:
            from rich.console import Console
            from rich.table import Table
        except ImportError:
            pass
        else:
            table = Table("", "Unguarded", f"Guarded, {LIMIT}", title="The same agent, twice")
            for name, before, after in rows:
                table.add_row(name, f"[red]{before}[/]", f"[green]{after}[/]")
            Console().print(table)
            return
    print()
    for name, before, after in (("", "Unguarded", f"Guarded, {LIMIT}"), *rows):
        print(f"{name:<18}{before:>18}{after:>18}")
    print()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
