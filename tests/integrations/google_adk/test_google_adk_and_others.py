"""ADK over LiteLLM, and OpenAI's agents over LiteLLM: each call counts once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest

pytest.importorskip("google.adk.agents.llm_agent")

from tests.integrations.google_adk.test_google_adk import agent_of, answer_of, pytestmark

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # fetches nothing
pytest.importorskip("litellm")

import litellm
from google.adk.models.lite_llm import LiteLlm

from budget_guard import Budget, BudgetExceeded, Session
from budget_guard.integrations.google_adk import BudgetLlm
from budget_guard.testing import LocalProvider
from tests.integrations.frameworks import CHEAP, DEAR, PRICES, provider, search

__all__ = ["provider", "pytestmark"]

NAME = f"openai/{DEAR}"


def session_of(budget: str | Budget) -> Session:
    names = {f"openai/{name}": price for name, price in PRICES.items()}
    return Session(Budget(budget) if isinstance(budget, str) else budget, pricing={**PRICES, **names})


@pytest.fixture
def below() -> Iterator[Callable[[Session], None]]:
    """Gives LiteLLM a guarded HTTP client to call with."""

    def guard(session: Session) -> None:
        litellm.aclient_session = session.guard(httpx.AsyncClient(verify=False))

    clients: Any = litellm.in_memory_llm_clients_cache
    clients.flush_cache()
    yield guard
    litellm.aclient_session = None
    clients.flush_cache()


def over_litellm(provider: LocalProvider) -> LiteLlm:
    return LiteLlm(model=NAME, api_base=provider.base_url, api_key="x", num_retries=0)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_agent_over_litellm_is_held_and_booked_once(provider: LocalProvider, stream: bool) -> None:
    """8 over LiteLLM"""
    session = session_of("$0.35")
    model = BudgetLlm(over_litellm(provider), session, agent="Poet")
    with pytest.raises(BudgetExceeded):
        await answer_of(agent_of(model, search), stream=stream)
    await provider.await_idle()
    assert len(provider.calls) == 3 == session.report().breakdown.llm.calls
    assert session.spent_usd == provider.bill_usd == Decimal("0.30")
    assert session.reserved_usd == 0
    assert list(session.report().by_agent) == ["Poet"]


@pytest.mark.parametrize("same", [True, False])
async def test_over_litellm_over_a_guarded_client_each_budget_pays_once(
    provider: LocalProvider, below: Callable[[Session], None], same: bool
) -> None:
    """8 over LiteLLM over a guarded client"""
    session = session_of("$1.00")
    other = session if same else session_of("$1.00")
    below(other)
    await answer_of(agent_of(BudgetLlm(over_litellm(provider), session, agent="Poet")))
    await provider.await_idle()
    for each in (session, other):
        assert each.report().breakdown.llm.calls == 1 == len(provider.calls)
        assert each.spent_usd == provider.bill_usd == Decimal("0.10")
        assert each.reserved_usd == 0
    assert list(session.report().by_agent) == ["Poet"]


async def test_a_cheaper_model_is_called_through_litellm(provider: LocalProvider) -> None:
    """6 a cheaper model, over LiteLLM"""
    session = session_of(Budget("$0.10", downgrade={NAME: CHEAP}))
    session.charge("tool", "0.09")
    await answer_of(agent_of(BudgetLlm(over_litellm(provider), session)))
    assert [call.model for call in provider.calls] == [CHEAP]
    assert session.spent_usd == Decimal("0.09") + provider.bill_usd


@pytest.mark.parametrize("guarded", [False, True])
async def test_openais_agents_over_litellm_count_once(
    provider: LocalProvider, below: Callable[[Session], None], guarded: bool
) -> None:
    """8 OpenAI's agents over LiteLLM"""
    pytest.importorskip("agents")
    from agents import Agent, ModelSettings, Runner, function_tool, set_tracing_disabled
    from agents.extensions.models.litellm_model import LitellmModel

    from budget_guard.integrations.openai_agents import BudgetGuard

    set_tracing_disabled(True)
    names: Any = {f"openai/{name}": price for name, price in PRICES.items()}
    guard = BudgetGuard(Budget("$0.35"), pricing={**PRICES, **names})
    if guarded:
        below(guard.session)
    agent = Agent(
        name="Poet",
        model=LitellmModel(model=NAME, base_url=provider.base_url, api_key="x"),
        model_settings=ModelSettings(max_tokens=10, include_usage=True),
        tools=[function_tool(search)],
    )
    with pytest.raises(BudgetExceeded):
        await Runner.run(agent, "go", hooks=guard, max_turns=20)
    await provider.await_idle()
    assert len(provider.calls) == 3 == guard.report().breakdown.llm.calls
    assert guard.spent_usd == provider.bill_usd == Decimal("0.30")
    assert guard.reserved_usd == 0
    assert list(guard.report().by_agent) == ["Poet"]
