"""CrewAI over LiteLLM, and LangChain in its tools: each call counts once, and is its own agent's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from decimal import Decimal
from importlib.util import find_spec
from typing import Any

import httpx
import pytest

if find_spec("crewai") is None:  # what is imported next would be left half imported by its own skip
    pytest.skip("could not import 'crewai'", allow_module_level=True)

from tests.integrations.crewai.test_crewai import as_tool, crew_of  # first: it quietens CrewAI

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # fetches nothing
pytest.importorskip("litellm")
pytest.importorskip("langchain_openai")

import litellm
from crewai import LLM
from crewai.tools import tool as crew_tool
from langchain.agents import create_agent
from langchain_openai import ChatOpenAI

from budget_guard import Budget, BudgetExceeded, Session
from budget_guard.integrations.crewai import guard_crew
from budget_guard.integrations.langchain import BudgetCallbackHandler
from budget_guard.testing import LocalProvider
from tests.integrations.frameworks import CHEAP, DEAR, PRICES, QUIET, TOKENS, provider, search, session_of

__all__ = ["provider"]

pytestmark = [*QUIET, pytest.mark.filterwarnings("ignore::UserWarning")]
LITELLMS = {f"openai/{name}": price for name, price in PRICES.items()}


def session_over_litellm(budget: str | Budget) -> Session:
    return Session(Budget(budget) if isinstance(budget, str) else budget, pricing={**PRICES, **LITELLMS})


def over_litellm(provider: LocalProvider) -> Any:
    llm: Any = LLM(
        model=f"openai/{DEAR}",
        is_litellm=True,
        api_base=provider.base_url,
        api_key="x",
        max_tokens=TOKENS,
        num_retries=0,
    )
    assert llm.is_litellm
    return llm


@pytest.fixture
def below() -> Iterator[Callable[[Session], None]]:
    """Gives LiteLLM a guarded HTTP client to call with."""

    def guard(session: Session) -> None:
        litellm.client_session = session.guard(httpx.Client(verify=False))

    clients: Any = litellm.in_memory_llm_clients_cache
    clients.flush_cache()
    yield guard
    litellm.client_session = None
    clients.flush_cache()


def test_a_crew_over_litellm_is_held_and_booked_once(provider: LocalProvider) -> None:
    """8 over LiteLLM"""
    session = session_over_litellm("$0.35")
    with pytest.raises(BudgetExceeded):
        guard_crew(crew_of(over_litellm(provider), as_tool(search)), session).kickoff()
    assert len(provider.calls) == 3 == session.report().breakdown.llm.calls
    assert session.spent_usd == provider.bill_usd == Decimal("0.30")
    assert session.reserved_usd == 0
    assert list(session.report().by_agent) == ["helper"]


@pytest.mark.parametrize("same", [True, False])
def test_over_litellm_over_a_guarded_client_each_budget_pays_once(
    provider: LocalProvider, below: Callable[[Session], None], same: bool
) -> None:
    """8 over LiteLLM over a guarded client"""
    session = session_over_litellm("$1.00")
    other = session if same else session_of("$1.00")
    below(other)
    guard_crew(crew_of(over_litellm(provider)), session).kickoff()
    for each in (session, other):
        assert each.report().breakdown.llm.calls == 1 == len(provider.calls)
        assert each.spent_usd == provider.bill_usd == Decimal("0.10")
        assert each.reserved_usd == 0
    assert list(session.report().by_agent) == ["helper"]


def test_a_cheaper_model_is_called_through_litellm(provider: LocalProvider) -> None:
    """6 a cheaper model, over LiteLLM"""
    session = session_over_litellm(Budget("$0.10", downgrade={f"openai/{DEAR}": CHEAP}))
    session.charge("tool", "0.09")
    guard_crew(crew_of(over_litellm(provider)), session).kickoff()
    assert [call.model for call in provider.calls] == [CHEAP]
    assert session.spent_usd == Decimal("0.09") + provider.bill_usd


def test_an_agent_of_langchain_in_a_tool_pays_for_itself_and_by_its_name(provider: LocalProvider) -> None:
    """8 LangChain in a tool"""
    session = session_over_litellm("$0.35")
    handler = BudgetCallbackHandler(Budget("$1.00"), pricing=PRICES)
    model = ChatOpenAI(model=DEAR, base_url=provider.base_url, api_key="x", max_tokens=TOKENS, max_retries=0)  # type: ignore[call-arg,arg-type]
    inner: Any = create_agent(model, name="Inner")

    @crew_tool("ask")
    def ask(q: str) -> str:
        """Ask an agent of LangChain."""
        done = inner.invoke({"messages": [("user", q)]}, config={"callbacks": [handler]})
        return str(done["messages"][-1].content)

    with pytest.raises(BudgetExceeded) as stop:
        guard_crew(crew_of(over_litellm(provider), ask), session).kickoff()
    assert stop.value.limit == Decimal("0.35")
    assert len(provider.calls) == 6
    for report, name in ((session.report(), "helper"), (handler.report(), "Inner")):
        assert list(report.by_agent) == [name]
        assert report.breakdown.llm.calls == 3
        assert report.total_spent == Decimal("0.30")
    assert session.spent_usd + handler.spent_usd == provider.bill_usd


def test_what_stops_langchain_in_a_tool_is_the_tools_to_handle(provider: LocalProvider) -> None:
    """8 LangChain in a tool, stopped"""
    session = session_over_litellm("$0.25")
    handler = BudgetCallbackHandler(Budget("$0.05"), pricing=PRICES)
    model = ChatOpenAI(model=DEAR, base_url=provider.base_url, api_key="x", max_tokens=TOKENS, max_retries=0)  # type: ignore[call-arg,arg-type]
    stops: list[object] = []

    @crew_tool("ask")
    def ask(q: str) -> str:
        """Ask LangChain."""
        try:
            return str(model.invoke(q, config={"callbacks": [handler]}).content)
        except BudgetExceeded as stop:
            stops.append(stop.limit)
            return "no answer"

    with pytest.raises(BudgetExceeded) as stop:
        guard_crew(crew_of(over_litellm(provider), ask), session).kickoff()
    assert stops == [Decimal("0.05")] * 2 and stop.value.limit == Decimal("0.25")
    assert session.spent_usd == provider.bill_usd == Decimal("0.20") and handler.spent_usd == 0
