"""CrewAI under a budget."""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from importlib.util import find_spec
from typing import Any, ClassVar

import pytest

if find_spec("crewai") is None:
    pytest.skip("could not import 'crewai'", allow_module_level=True)
os.environ |= {
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_DISABLE_TRACKING": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "OTEL_SDK_DISABLED": "true",
}
pytest.importorskip("crewai")
pytest.importorskip("uvicorn")

from crewai import LLM, Agent, Crew, Task
from crewai.hooks.dispatch import HookAborted
from crewai.llms.base_llm import BaseLLM
from crewai.tools import tool as crew_tool

from budget_guard import Budget, BudgetExceeded, Session, UnboundedCallError
from budget_guard.integrations.crewai import BudgetStop, guard_crew, guard_llm
from budget_guard.integrations.crewai import session_of as session_of_guarded
from budget_guard.testing import LocalProvider, Reply
from tests.integrations.frameworks import (
    DEAR,
    QUIET,
    TOKENS,
    FrameworkContract,
    Tool,
    example,
    page,
    provider,
    search,
    session_of,
)

__all__ = ["provider"]

pytestmark = [*QUIET, pytest.mark.filterwarnings("ignore::UserWarning")]


def llm_of(
    provider: LocalProvider,
    model: str = DEAR,
    *,
    cap: int | None = TOKENS,
    retries: int = 0,
    stream: bool = False,
    guarded: Session | None = None,
) -> Any:
    llm: Any = LLM(
        model=f"openai/{model}",
        base_url=provider.base_url,
        api_key="x",
        max_tokens=cap,
        max_retries=retries,
        stream=stream,
    )
    if guarded is not None:
        llm._client = guarded.guard(llm._get_sync_client())
        llm._async_client = guarded.guard(llm._get_async_client())
    return llm


async def _awaited(tool: Tool, q: str) -> str:
    return await tool(q)


def as_tool(tool: Tool) -> Any:
    """*tool* as one of CrewAI's, which are blocking."""

    def call(q: str) -> str:
        """Ask for something."""
        return asyncio.run(_awaited(tool, q))

    call.__name__ = tool.__name__
    return crew_tool(tool.__name__)(call)


def crew_of(llm: Any, *tools: Any, **options: Any) -> Crew:
    agent = Agent(role="helper", goal="g", backstory="b", llm=llm, tools=list(tools), max_iter=50, **options)
    return Crew(agents=[agent], tasks=[Task(description="d", expected_output="e", agent=agent)], tracing=False)


class TestCrewAI(FrameworkContract):
    adapter = "budget_guard_crewai"
    base = HookAborted
    left_out: ClassVar = dict.fromkeys(
        (
            "test_a_stream_that_is_broken_off_is_booked_as_held",
            "test_a_stream_that_is_cancelled_is_booked_as_held",
            "test_a_stream_that_is_dropped_is_booked_as_held",
        ),
        "CrewAI reads a stream to its end inside of the LLM's call",
    )

    async def run(
        self,
        provider: LocalProvider,
        guard: Session | Budget,
        *,
        tool: Tool | None = None,
        on: Any = None,
        **options: Any,
    ) -> str:
        crew = crew_of(on or llm_of(provider, **options), *([] if tool is None else [as_tool(tool)]))
        if on is None:
            guard_crew(crew, guard)
        if tool is not None:  # its tools block, and start event loops of their own
            return str(await asyncio.to_thread(crew.kickoff))
        return str(await crew.akickoff())

    def run_blocking(self, provider: LocalProvider, guard: Session | Budget, *, stream: bool = False) -> str:
        return str(guard_crew(crew_of(llm_of(provider, stream=stream)), guard).kickoff())

    def stream(self, provider: LocalProvider, guard: Session) -> AsyncIterator[Any]:
        raise NotImplementedError

    def pair(self, provider: LocalProvider, guard: Session) -> tuple[Any, Callable[[], Awaitable[Any]]]:
        llm = llm_of(provider)
        return guard_llm(llm, guard), lambda: crew_of(llm).akickoff()


def test_a_crew_in_a_tool_with_a_budget_of_its_own_stops_the_crew_around_it(provider: LocalProvider) -> None:
    """2 a crew in a tool, which swallows its stop"""
    inner, outer = session_of("$0.25"), session_of("$2.00")

    @crew_tool("ask")
    def ask(q: str) -> str:
        """Ask another crew."""
        try:
            return str(guard_crew(crew_of(llm_of(provider), as_tool(search)), inner).kickoff())
        except Exception:
            return "no answer"

    with pytest.raises(BudgetExceeded):
        guard_crew(crew_of(llm_of(provider), ask), outer).kickoff()
    assert (inner.report().breakdown.llm.calls, outer.report().breakdown.llm.calls) == (2, 1)
    assert inner.spent_usd + outer.spent_usd == provider.bill_usd


@pytest.mark.parametrize("method", ["kickoff", "kickoff_async", "akickoff"])
def test_every_kickoff_is_stopped_by_what_its_tools_swallow(provider: LocalProvider, method: str) -> None:
    """2 each way to kick off"""
    inner, outer = guard_llm(llm_of(provider), session_of("$0.05")), session_of("$2.00")

    @crew_tool("ask")
    def ask(q: str) -> str:
        """Ask another LLM."""
        try:
            return str(inner.call(q))
        except BudgetExceeded:
            return "no answer"

    crew = guard_crew(crew_of(llm_of(provider), ask), outer)
    with pytest.raises(BudgetExceeded) as stop:
        crew.kickoff() if method == "kickoff" else asyncio.run(getattr(crew, method)())
    assert stop.value.limit == Decimal("0.05") and len(provider.calls) == 1


def test_a_coworker_is_stopped_with_its_boss(provider: LocalProvider) -> None:
    """2 delegation"""
    session = session_of("$0.35")
    llm = llm_of(provider)
    boss = Agent(role="boss", goal="g", backstory="b", llm=llm, allow_delegation=True, max_iter=10)
    worker = Agent(role="worker", goal="g", backstory="b", llm=llm, tools=[as_tool(search)], max_iter=10)
    task = Task(description="d", expected_output="e", agent=boss)
    crew = guard_crew(Crew(agents=[boss, worker], tasks=[task], tracing=False), session)
    with pytest.raises(BudgetExceeded):
        crew.kickoff()
    assert session.spent_usd == provider.bill_usd == Decimal("0.30")


def test_crewais_own_retries_of_an_agent_do_not_ask_again(provider: LocalProvider) -> None:
    """3 max_retry_limit"""
    session = session_of("$0.05")
    with pytest.raises(BudgetExceeded):
        guard_crew(crew_of(llm_of(provider), max_retry_limit=3), session).kickoff()
    assert len(session.decisions(action="block")) == 1 and not provider.calls


def test_crewais_own_counters_go_on(provider: LocalProvider) -> None:
    crew = guard_crew(crew_of(llm_of(provider)), session_of("$1.00"))
    result: Any = crew.kickoff()
    assert result.token_usage.completion_tokens == TOKENS


def test_the_agents_are_named_in_the_report(provider: LocalProvider) -> None:
    session = session_of("$1.00")
    guard_crew(crew_of(llm_of(provider)), session).kickoff()
    assert list(session.report().by_agent) == ["helper"]


def test_the_cap_that_the_budget_chose_is_sent_and_its_cut_is_a_stop(provider: LocalProvider) -> None:
    provider.reset(Reply(text="word " * 5_000, output_tokens=5_000))
    session = session_of("$9.00")
    with pytest.raises(BudgetExceeded) as raised:
        guard_llm(llm_of(provider, cap=None), session).call("go")
    assert provider.calls[0].usage.output <= 900
    assert (raised.value.partial_output or "").startswith("word")
    assert session.spent_usd == provider.bill_usd


@pytest.mark.parametrize("same", [True, False])
def test_a_guard_in_a_guard_counts_once_in_each_budget(provider: LocalProvider, same: bool) -> None:
    """8 a guard in a guard"""
    inner = session_of("$1.00")
    outer = inner if same else session_of("$1.00")
    guard_crew(guard_crew(crew_of(llm_of(provider)), inner), outer).kickoff()
    for session in (inner, outer):
        assert session.report().breakdown.llm.calls == 1
        assert session.spent_usd == provider.bill_usd
        assert session.reserved_usd == 0


def test_a_tool_that_the_llm_runs_itself_makes_calls_of_its_own(provider: LocalProvider) -> None:
    """8 tools that run inside of a call"""
    session = session_of("$1.00")
    llm = guard_llm(llm_of(provider), session)

    def look_up(q: str) -> str:
        return str(llm.call("and this?"))

    function = {"name": "look_up", "parameters": {"type": "object", "properties": {"q": {"type": "string"}}}}
    llm.call("go", tools=[{"type": "function", "function": function}], available_functions={"look_up": look_up})
    assert session.report().breakdown.llm.calls == 2 == len(provider.calls)
    assert session.spent_usd == provider.bill_usd and session.reserved_usd == 0


def test_an_llm_of_ones_own_is_held_by_what_it_is_called_with() -> None:
    class Own(BaseLLM):
        def call(self, *args: Any, **kwargs: Any) -> str:
            self._track_token_usage_internal({"prompt_tokens": 5, "completion_tokens": 10})
            return "ten"

    session = session_of("$0.15")
    llm = guard_llm(Own(model=DEAR, max_tokens=TOKENS), session)
    assert llm.call("go") == "ten"
    assert session.spent_usd == Decimal("0.10")
    with pytest.raises(BudgetExceeded):
        llm.call("go")


def test_crewais_retries_after_a_rate_limit_are_held_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """3 CrewAI's own retries after a rate limit"""
    import httpx
    from openai import RateLimitError

    class Busy(BaseLLM):
        asked: int = 0

        def call(self, *args: Any, **kwargs: Any) -> str:
            tries.append(session.reserved_usd)
            if len(tries) == 1:
                request = httpx.Request("POST", "http://127.0.0.1")
                headers = {"retry-after": "0"}
                raise RateLimitError("busy", response=httpx.Response(429, request=request, headers=headers), body=None)
            return "ten"

    tries: list[Decimal] = []
    session = session_of("$0.50")
    assert guard_llm(Busy(model=DEAR, max_tokens=TOKENS), session).call("go") == "ten"
    assert tries == [Decimal("0.10")] * 2
    assert len(session.decisions(action="allow")) == 2
    assert session.spent_usd == Decimal("0.10") and session.reserved_usd == 0


def test_files_that_nothing_bounds_are_refused_where_the_wire_is_not_seen() -> None:
    class Own(BaseLLM):
        def call(self, *args: Any, **kwargs: Any) -> str:
            return "ten"

    llm: Any = guard_llm(Own(model=DEAR, max_tokens=TOKENS), session_of("$1.00"))
    with pytest.raises(UnboundedCallError):
        llm.call([{"role": "user", "content": "what is it?", "files": {"x": b"..."}}])


def test_agents_that_share_an_llm_share_the_guarded_one(provider: LocalProvider) -> None:
    llm = llm_of(provider)
    one, two = (Agent(role=role, goal="g", backstory="b", llm=llm) for role in ("one", "two"))
    task = Task(description="d", expected_output="e", agent=one)
    guard_crew(Crew(agents=[one, two], tasks=[task], tracing=False), session_of("$1.00"))
    assert one.llm is two.llm is not llm


def test_an_llm_that_cannot_be_made_says_so_at_once(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """- an LLM that cannot be made: TypeError"""
    crew = crew_of(llm_of(provider))
    vars(crew)["planning_llm"] = "anything"
    monkeypatch.setattr("budget_guard_crewai.crew.create_llm", lambda llm: None)
    with pytest.raises(TypeError, match="planning_llm='anything' of Crew is no LLM"):
        guard_crew(crew, session_of("$1.00"))


def test_a_client_that_is_too_old_says_so_at_once(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """- a client whose SDK is too old: ValueError"""

    def refuse(*_: Any, **__: Any) -> Any:
        raise ValueError("openai 2.0 is too old")

    monkeypatch.setattr(Session, "guard", refuse)
    with pytest.raises(ValueError, match="too old"):
        guard_crew(crew_of(llm_of(provider)), session_of("$1.00"))


def test_the_llm_itself_is_not_changed(provider: LocalProvider) -> None:
    llm = llm_of(provider)
    crew = guard_crew(crew_of(llm), session_of("$0.05"))
    assert crew.agents[0].llm is not llm and type(crew.agents[0].llm).__name__ == type(llm).__name__
    assert type(crew).__name__ == "Crew"
    llm.call("go")
    assert len(provider.calls) == 1


def test_a_budget_becomes_a_session_that_can_be_had(provider: LocalProvider) -> None:
    crew = guard_crew(crew_of(llm_of(provider)), Budget("$1.00"))
    crew.kickoff()
    assert session_of_guarded(crew).report().breakdown.llm.calls == 1
    with pytest.raises(TypeError, match="not guarded"):
        session_of_guarded(crew_of(llm_of(provider)))


def test_what_cannot_be_guarded_says_so_at_once(provider: LocalProvider) -> None:
    """- a model that cannot be wrapped: TypeError"""
    wrong: Any
    for wrong, why in ((Crew, "is a class"), (llm_of(provider), "is no Crew")):
        with pytest.raises(TypeError, match=why):
            guard_crew(wrong, Budget("$1.00"))
    for wrong, why in ((LLM, "is a class"), ("gpt-4o", "is no LLM"), (crew_of(llm_of(provider)), "is no LLM")):
        with pytest.raises(TypeError, match=why):
            guard_llm(wrong, Budget("$1.00"))


def test_a_stop_is_picklable(provider: LocalProvider) -> None:
    with pytest.raises(BudgetStop) as raised:
        guard_llm(llm_of(provider), session_of("$0.05")).call("go")
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
    assert raised.value.reason and raised.value.source == "budget_guard"


def test_without_the_framework_the_pip_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """- the framework missing: ImportError"""
    monkeypatch.setitem(sys.modules, "crewai", None)
    monkeypatch.delitem(sys.modules, "budget_guard.integrations.crewai")
    with pytest.raises(ImportError, match=r"budget-guard-py\[crewai\]"):
        import budget_guard.integrations.crewai  # noqa: F401


def test_the_example_and_the_page_run() -> None:
    printed = example("crewai_crew")
    assert "Stopped by max_cost_usd=$0.1\n" in printed
    page("crewai")
