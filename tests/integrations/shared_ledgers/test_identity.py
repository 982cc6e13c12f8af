"""One agent is cut off by its handle, from another process, and stops at its next call; the others finish."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("agents")
pytest.importorskip("langchain_openai")

from agents import Agent, ModelSettings, OpenAIResponsesModel, Runner, set_tracing_disabled
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI

from budget_guard import Budget, BudgetAuthority, BudgetExceeded, BudgetRevoked, open_ledger
from budget_guard.integrations.langchain import BudgetCallbackHandler
from budget_guard.integrations.openai_agents import BudgetGuard
from budget_guard.testing import LocalProvider, Reply

HANDLES = [f"research-agent-{i}" for i in range(10)]
ROUNDS = 3
OUTPUT = 1_000
"""Output tokens of one call: a cent."""
REVOKE = """
import sys
from budget_guard import BudgetAuthority
BudgetAuthority(sys.argv[1]).revoke("agent", sys.argv[2], reason="it leaks")
"""

Ask = Callable[[], Awaitable[Any]]


def guarded_run(authority: BudgetAuthority, handle: str, client: AsyncOpenAI) -> Ask:
    guard = BudgetGuard(Budget("$1.00"), authority=authority, agent=handle)
    agent: Agent[Any] = Agent(
        name="Researcher",
        instructions=handle,
        model=OpenAIResponsesModel("gpt-4o", openai_client=client),
        model_settings=ModelSettings(max_tokens=OUTPUT),
    )
    return lambda: Runner.run(agent, "go", hooks=guard)


def handled_model(authority: BudgetAuthority, handle: str, client: AsyncOpenAI) -> Ask:
    handler = BudgetCallbackHandler(Budget("$1.00"), authority=authority, agent=handle)
    options: dict[str, Any] = {"max_tokens": OUTPUT, "max_retries": 0, "use_responses_api": True}
    model = ChatOpenAI(model="gpt-4o", base_url=str(client.base_url), api_key=lambda: "x", **options)
    return lambda: model.ainvoke(handle, {"callbacks": [handler]})


def guarded_client(authority: BudgetAuthority, handle: str, client: AsyncOpenAI) -> Ask:
    session = authority.session(Budget("$1.00"))
    guarded = session.guard(client, agent=handle)
    return lambda: guarded.responses.create(model="gpt-4o", input=handle, max_output_tokens=OUTPUT)


KINDS = [guarded_run, handled_model, guarded_client]


def revoke(url: str, handle: str) -> None:
    subprocess.run([sys.executable, "-c", REVOKE, url, handle], check=True)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_one_handle_is_revoked_from_another_process_and_nine_finish(tmp_path: Path) -> None:
    set_tracing_disabled(True)
    url = f"sqlite:///{tmp_path}/budget.db"
    ledger = open_ledger(url)
    authority = BudgetAuthority(ledger, {"agent": Budget("$0.50")}, require=())
    with LocalProvider(Reply(output_tokens=OUTPUT)) as provider:
        async with AsyncOpenAI(base_url=provider.base_url, api_key="x", max_retries=0) as client:
            asks = [KINDS[i % 3](authority, handle, client) for i, handle in enumerate(HANDLES)]
            for cut_off in range(3):  # of each kind one
                victim = HANDLES[cut_off]
                for _ in range(ROUNDS if cut_off == 0 else 1):
                    assert not [e for e in await _all(asks[cut_off:]) if isinstance(e, BaseException)]
                await asyncio.to_thread(revoke, url, victim)
                ended = await _all(asks[cut_off:])
                stop = ended.pop(0)
                assert isinstance(stop, BudgetRevoked)
                assert (stop.scope, stop.reason) == (f"agent:{victim}", "it leaks")
                assert not [each for each in ended if isinstance(each, BaseException)]
            provider.wait_until_idle()
            for handle in HANDLES:
                billed = sum(call.cost_nano or 0 for call in provider.calls if handle in str(call.body))
                assert authority.snapshot("agent", handle).spent_usd == Decimal(billed) / 10**9
                assert authority.snapshot("agent", handle).reserved_usd == 0
    ledger.close()


async def test_a_guarded_client_is_held_by_the_ceiling_of_its_handle() -> None:
    authority = BudgetAuthority(ceilings={"agent": Budget("$0.025")}, require=())
    with LocalProvider(Reply(output_tokens=OUTPUT)) as provider:
        async with AsyncOpenAI(base_url=provider.base_url, api_key="x", max_retries=0) as client:
            session = authority.session(Budget("$1.00", max_wait_s=0))
            one, two = (session.guard(client, agent=handle) for handle in HANDLES[:2])

            def ask(guarded: AsyncOpenAI) -> Awaitable[Any]:
                return guarded.responses.create(model="gpt-4o", input="go", max_output_tokens=OUTPUT)

            for _ in range(2):
                await ask(one)
            with pytest.raises(BudgetExceeded) as caught:
                await ask(one)
            assert caught.value.scope == f"agent:{HANDLES[0]}"
            await ask(two)
            assert set(session.report().by_agent) == set(HANDLES[:2])


async def _all(asks: list[Ask]) -> list[Any]:
    async def once(ask: Ask) -> Any:
        return await ask()

    return await asyncio.gather(*map(once, asks), return_exceptions=True)
