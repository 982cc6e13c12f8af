"""Streams are guarded as well: the worst case is held before the first byte, the actual cost is booked at the last.

Prints a streamed answer and its exact cost. Then a stream that breaks off half way: nobody told the client what that
one cost, so its worst case is booked and marked as uncertain, never less than the provider's bill.
"""

from __future__ import annotations

import asyncio

from _provider import local_openai
from agents import Agent, Runner
from openai import APIError

from budget_guard import Budget
from budget_guard.integrations.openai_agents import BudgetGuard
from budget_guard.testing import Reply

ANSWER = "Money that is held cannot be spent twice."
# What the local provider answers: a whole stream, then one that it drops after four of eight pieces.
SCRIPT = [Reply(text=ANSWER, chunks=8), Reply(text=ANSWER, chunks=8, drop_after=4)]


async def write(guard: BudgetGuard) -> None:
    """Stream one answer to the terminal."""
    agent = Agent(name="Writer", model="gpt-4o")
    result = Runner.run_streamed(agent, "One sentence, please.", hooks=guard)
    try:
        async for event in result.stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                print(event.data.delta, end="", flush=True)
    except APIError as error:
        print(f" ... {type(error).__name__}", end="")
    print()
    print(guard.report())


async def main() -> None:
    # The cap on each call's output is what makes the worst case of one call small.
    guard = BudgetGuard(Budget("$1.00", call_max_output_tokens=100))
    await write(guard)
    await write(guard.fork())  # the same settings, a fresh budget


if __name__ == "__main__":
    # To call the real API, set OPENAI_API_KEY and keep only `asyncio.run(main())`.
    with local_openai(SCRIPT) as provider:
        asyncio.run(main())
        print("The provider's bill:", ", ".join(f"${(call.cost_nano or 0) / 1e9:.7f}" for call in provider.calls))
