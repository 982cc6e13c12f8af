"""Microsoft Agent Framework under a budget."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("agent_framework")
pytest.importorskip("agent_framework_openai")
pytest.importorskip("uvicorn")

from agent_framework import Agent, ChatMiddleware, Content, Message, MiddlewareFailure
from agent_framework.openai import OpenAIChatClient, OpenAIChatCompletionClient
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from budget_guard import Budget, BudgetExceeded, Session, UnboundedCallError
from budget_guard.integrations.agent_framework import BudgetMiddleware, BudgetStop, BudgetToolMiddleware
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

pytestmark = [*QUIET, pytest.mark.filterwarnings("ignore::FutureWarning")]


def client_of(
    provider: LocalProvider,
    *,
    guarded: Session | None = None,
    retries: int = 0,
    kind: Any = OpenAIChatCompletionClient,
) -> Any:
    http = DefaultAsyncHttpxClient(verify=False)  # no certificates to load, a hundred times
    client = AsyncOpenAI(base_url=provider.base_url, api_key="x", max_retries=retries, http_client=http)
    if guarded is not None:
        client = guarded.guard(client)
    return kind(model=DEAR, async_client=client)


def agent_of(client: Any, middleware: Any, *tools: Any, cap: int | None = TOKENS, **options: Any) -> Any:
    settings = {} if cap is None else {"max_tokens": cap}
    return Agent(client, tools=list(tools), middleware=middleware, default_options=settings, **options)


async def answer_of(agent: Any, *, stream: bool = False) -> str:
    if not stream:
        return str((await agent.run("go")).text)
    running = agent.run("go", stream=True)
    async for _ in running:
        pass
    return str((await running.get_final_response()).text)


class TestAgentFramework(FrameworkContract):
    adapter = "budget_guard_agent_framework"
    base = MiddlewareFailure

    async def run(
        self,
        provider: LocalProvider,
        guard: Session | Budget,
        *,
        tool: Tool | None = None,
        stream: bool = False,
        cap: int = TOKENS,
        retries: int = 0,
        on: Any = None,
        **options: Any,
    ) -> str:
        if retries and isinstance(guard, Session):  # as the page says: so that retries are seen
            options["guarded"] = guard
        client = on or client_of(provider, retries=retries, **options)
        middleware: list[Any] = [BudgetMiddleware(guard)]
        if tool is None:
            return await answer_of(agent_of(client, middleware, cap=cap), stream=stream)
        middleware.append(BudgetToolMiddleware(middleware[0].session))
        return await answer_of(agent_of(client, middleware, tool, cap=cap), stream=stream)

    def run_blocking(self, provider: LocalProvider, guard: Session | Budget, *, stream: bool = False) -> str:
        return asyncio.run(self.run(provider, guard, stream=stream))

    async def stream(self, provider: LocalProvider, guard: Session) -> AsyncIterator[Any]:
        running = agent_of(client_of(provider), [BudgetMiddleware(guard)]).run("go", stream=True)
        async with running:
            async for update in running:
                yield update.text

    def pair(self, provider: LocalProvider, guard: Session) -> tuple[Any, Callable[[], Awaitable[Any]]]:
        client = client_of(provider)
        self.guard = guard
        return client, lambda: answer_of(agent_of(client, []))


@pytest.mark.parametrize("stream", [False, True])
async def test_an_agent_that_is_a_tool_stops_the_agent_around_it(provider: LocalProvider, stream: bool) -> None:
    """2 as_tool"""
    inner, outer = session_of("$0.25"), session_of("$2.00")
    inside = agent_of(client_of(provider), [BudgetMiddleware(inner)], search, name="inside", description="d")
    with pytest.raises(BudgetExceeded):
        await answer_of(
            agent_of(client_of(provider), [BudgetMiddleware(outer)], inside.as_tool(arg_name="q")), stream=stream
        )
    assert (inner.report().breakdown.llm.calls, outer.report().breakdown.llm.calls) == (2, 1)
    assert inner.reserved_usd == 0 == outer.reserved_usd


@pytest.mark.parametrize("stream", [False, True])
async def test_the_cap_that_the_budget_chose_is_sent_and_its_cut_is_a_stop(
    provider: LocalProvider, stream: bool
) -> None:
    provider.reset(Reply(text="word " * 5_000, output_tokens=5_000))
    session = session_of("$9.00")
    with pytest.raises(BudgetExceeded) as raised:
        await answer_of(agent_of(client_of(provider), [BudgetMiddleware(session)], cap=None), stream=stream)
    assert provider.calls[0].usage.output <= 900
    assert (raised.value.partial_output or "").startswith("word")
    assert session.spent_usd == provider.bill_usd and session.reserved_usd == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_the_responses_client_is_held_as_well(provider: LocalProvider, stream: bool) -> None:
    """1 the Responses client"""
    session = session_of("$0.20")
    agent = agent_of(client_of(provider, kind=OpenAIChatClient), [BudgetMiddleware(session)], cap=16)
    await answer_of(agent, stream=stream)
    with pytest.raises(BudgetExceeded):
        await answer_of(agent, stream=stream)
    assert session.spent_usd == provider.bill_usd == Decimal("0.10")


@pytest.mark.parametrize("same", [True, False])
async def test_a_guard_in_a_guard_counts_once_in_each_budget(provider: LocalProvider, same: bool) -> None:
    """8 a guard in a guard"""
    inner = session_of("$1.00")
    outer = inner if same else session_of("$1.00")
    for stream in (False, True):
        middleware = [BudgetMiddleware(outer), BudgetMiddleware(inner)]
        await answer_of(agent_of(client_of(provider), middleware), stream=stream)
    for session in (inner, outer):
        assert session.report().breakdown.llm.calls == 2
        assert session.spent_usd == provider.bill_usd
        assert session.reserved_usd == 0


async def test_other_middleware_that_changes_a_request_is_seen(provider: LocalProvider) -> None:
    class Lower(ChatMiddleware):
        async def process(self, context: Any, call_next: Any) -> None:
            context.options = {**context.options, "model": "gpt-4o-mini"}
            await call_next()

    session = session_of("$1.00")
    await answer_of(agent_of(client_of(provider), [Lower(), BudgetMiddleware(session)]))
    assert [call.model for call in provider.calls] == ["gpt-4o-mini"]
    assert session.spent_usd == provider.bill_usd == Decimal("0.01")


async def test_a_picture_that_nothing_bounds_is_refused(provider: LocalProvider) -> None:
    agent = agent_of(client_of(provider), [BudgetMiddleware(session_of("$1.00"))])
    picture = Content.from_uri("https://example.com/x.png", media_type="image/png")
    with pytest.raises(UnboundedCallError):
        await agent.run(Message(role="user", contents=["what is it?", picture]))
    assert not provider.calls


async def test_a_request_that_other_middleware_answers_with_nothing_holds_nothing(provider: LocalProvider) -> None:
    class Silent(ChatMiddleware):
        async def process(self, context: Any, call_next: Any) -> None:
            """Answers nothing."""

    session = session_of("$1.00")
    with contextlib.suppress(Exception):
        await answer_of(agent_of(client_of(provider), [BudgetMiddleware(session), Silent()]))
    assert session.spent_usd == Decimal("0.10") and session.reserved_usd == 0 and not provider.calls


async def test_the_tool_middleware_ends_the_run_after_the_tool_and_not_later(provider: LocalProvider) -> None:
    """2 the run ends after that tool"""
    session = session_of("$0.05")
    with pytest.raises(BudgetExceeded):
        await answer_of(agent_of(client_of(provider), [BudgetMiddleware(session)]))
    ran: list[bool] = []

    async def call_next() -> None:
        ran.append(True)

    context: Any = None
    with pytest.raises(MiddlewareFailure):
        await BudgetToolMiddleware(session).process(context, call_next)
    assert ran
    await BudgetToolMiddleware(session_of("$1.00")).process(context, call_next)


async def test_a_tool_that_the_provider_runs_needs_an_allowance(provider: LocalProvider) -> None:
    agent = agent_of(client_of(provider), [BudgetMiddleware(session_of("$1.00"))], {"type": "web_search"})
    with pytest.raises(UnboundedCallError):
        await answer_of(agent)
    assert not provider.calls


async def test_it_guards_a_chat_client_too(provider: LocalProvider) -> None:
    session = session_of("$0.15")
    client = OpenAIChatCompletionClient(
        model=DEAR,
        async_client=AsyncOpenAI(base_url=provider.base_url, api_key="x", max_retries=0),
        middleware=[BudgetMiddleware(session)],
    )
    asked = [Message(role="user", contents=["go"])]
    await client.get_response(asked, options={"max_tokens": TOKENS})
    with pytest.raises(BudgetExceeded):
        await client.get_response(asked, options={"max_tokens": TOKENS})
    assert len(provider.calls) == 1


async def test_the_handle_is_that_of_every_guard(provider: LocalProvider) -> None:
    middleware = BudgetMiddleware(Budget("$200.00"), agent="Poet")
    await answer_of(agent_of(client_of(provider), [middleware]))
    assert middleware.spent_usd > 0 and list(middleware.report().by_agent) == ["Poet"]


def test_a_class_in_place_of_a_budget_says_so_at_once() -> None:
    """- a model that cannot be wrapped: TypeError"""
    with pytest.raises(TypeError, match="neither a Budget nor a Session"):
        BudgetMiddleware(Budget)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no Session"):
        BudgetToolMiddleware(Budget("$1.00"))  # type: ignore[arg-type]


async def test_a_stop_is_picklable(provider: LocalProvider) -> None:
    with pytest.raises(BudgetStop) as raised:
        await answer_of(agent_of(client_of(provider), [BudgetMiddleware(session_of("$0.05"))]))
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_without_the_framework_the_pip_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """- the framework missing: ImportError"""
    monkeypatch.setitem(sys.modules, "agent_framework", None)
    monkeypatch.delitem(sys.modules, "budget_guard.integrations.agent_framework")
    with pytest.raises(ImportError, match=r"budget-guard-py\[agent-framework\]"):
        import budget_guard.integrations.agent_framework  # noqa: F401


def test_the_example_and_the_page_run() -> None:
    printed = example("agent_framework_agents")
    assert "Stopped by max_cost_usd=$0.1\n" in printed
    page("agent-framework")
