"""``budget-guard demo``: the same stuck agent twice, without a guard and with one, and both bills.

The agent's search tool never finds anything, so its model searches again, and each search makes the next call dearer.
Without a guard, the run goes on until `max_turns` stops it. With a guard, it warns, goes on with a cheaper model,
and stops before the call that could pass $0.50. Both bills come from the ledger of a provider on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from budget_guard.cli.answer import BAD_NEWS, Answer, Failure
from budget_guard.session.budget import Budget

if TYPE_CHECKING:
    from budget_guard.reporting.report import BudgetReport
    from budget_guard.testing import LocalProvider

LIMIT = "$0.50"
MAX_TURNS = 40  # only so that the unguarded run ends at all
_PAGE = "No match on this page. Try again. " * 180  # about 1,500 tokens that every later call pays for again


class Outcome(NamedTuple):
    """What the provider's ledger says of one run."""

    bill: Decimal
    calls: Counter[str]
    ended_by: str


def add_to(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command."""
    demo = command("demo", _demo, "watch a runaway agent being stopped, without an API key")
    demo.add_argument("--html", metavar="OUT", help="write the guarded run's report as a page")


def _demo(given: argparse.Namespace) -> Answer:
    try:
        import agents as _agents
        import starlette as _starlette
        import uvicorn as _uvicorn
    except ImportError as error:
        raise Failure(
            f'{error.name} is not installed: pip install "budget-guard-py[openai-agents,live,testing]"'
        ) from None
    del _agents, _starlette, _uvicorn
    unguarded, guarded, report = asyncio.run(_both(quiet=given.json))
    if given.html:
        report.to_html(given.html)
    agree = report.total_spent == guarded.bill
    within = guarded.bill <= Decimal(LIMIT.removeprefix("$"))
    lines = [
        *_table(unguarded, guarded),
        f"Guard's ledger:     ${report.total_spent:.9f}",
        f"Provider's ledger:  ${guarded.bill:.9f}",
        "They agree to the nano-dollar." if agree else "THEY DO NOT AGREE.",
        f"The bill is within {LIMIT}." if within else f"THE BILL IS ABOVE {LIMIT}.",
        str(report),
    ]
    data = {
        "unguarded": _plain(unguarded),
        "guarded": _plain(guarded),
        "guard_usd": f"{report.total_spent:f}",
        "agree": agree,
        "within": within,
    }
    return Answer(data, "\n".join(lines), 0 if agree and within else BAD_NEWS)


async def _both(*, quiet: bool) -> tuple[Outcome, Outcome, BudgetReport]:
    """Run the agent without a guard, then with one."""
    from agents import Agent, function_tool, set_default_openai_client, set_tracing_disabled
    from openai import AsyncOpenAI

    from budget_guard.integrations.openai_agents import BudgetGuard
    from budget_guard.live import spend_line
    from budget_guard.testing import LocalProvider, Reply, ToolCall

    def search(query: str) -> str:
        """Search the archive."""
        return _PAGE

    agent: Agent[Any] = Agent(
        name="Researcher",
        instructions="Search until you find it.",
        model="gpt-4o",
        tools=[function_tool(search)],
    )

    def say(words: str) -> None:
        if not quiet:
            print(words, flush=True)

    guard = BudgetGuard(Budget(LIMIT), downgrade_to="gpt-4o-mini", downgrade_at=0.8)
    # What the "model" does: it thinks for 2,000 tokens, then searches again, for ever.
    with LocalProvider(
        Reply(tool_calls=[ToolCall("search", {"query": "the answer"})], output_tokens=2_000)
    ) as provider:
        async with AsyncOpenAI(base_url=provider.base_url, api_key="none", max_retries=0) as client:
            set_default_openai_client(client, use_for_tracing=False)
            set_tracing_disabled(True)  # tracing would send data to OpenAI
            say("A stuck agent, without a guard ...")
            unguarded = await _run(provider, agent, None)
            say(f"... and with hooks=BudgetGuard(Budget({LIMIT!r}), downgrade_to='gpt-4o-mini')")
            with spend_line(guard):
                guarded = await _run(provider, agent, guard)
    return unguarded, guarded, guard.report()


async def _run(provider: LocalProvider, agent: Any, guard: Any) -> Outcome:
    from agents import AgentsException, Runner

    provider.reset()
    try:
        await Runner.run(agent, "Find the answer.", max_turns=MAX_TURNS, hooks=guard)
        ended_by = "a final answer"
    except AgentsException as stop:  # MaxTurnsExceeded, or the guard's BudgetExceeded
        ended_by = type(stop).__name__
    return Outcome(provider.bill_usd, Counter(call.model for call in provider.calls), ended_by)


def _plain(outcome: Outcome) -> dict[str, Any]:
    return {"bill_usd": f"{outcome.bill:f}", "calls": dict(outcome.calls), "ended_by": outcome.ended_by}


def _table(unguarded: Outcome, guarded: Outcome) -> list[str]:
    """Both runs side by side, in colour on a terminal."""
    models = sorted(unguarded.calls | guarded.calls)
    rows = [
        ("Provider's bill", f"${unguarded.bill:.4f}", f"${guarded.bill:.4f}"),
        ("Model calls", str(unguarded.calls.total()), str(guarded.calls.total())),
        *((f"  {model}", str(unguarded.calls[model]), str(guarded.calls[model])) for model in models),
        ("Ended by", unguarded.ended_by, guarded.ended_by),
    ]
    red, green, plain = ("\x1b[31m", "\x1b[32m", "\x1b[0m") if sys.stdout.isatty() else ("", "", "")
    head = f"{'':<16}{'Unguarded':>18}{f'Guarded, {LIMIT}':>18}"
    lines = [f"{name:<16}{red}{before:>18}{green}{after:>18}{plain}" for name, before, after in rows]
    return ["", head, *lines, ""]
