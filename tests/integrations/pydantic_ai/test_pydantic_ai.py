"""pydantic-ai under a budget."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("pydantic_ai")
pytest.importorskip("uvicorn")

from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from pydantic_ai import Agent, ModelRetry
from pydantic_ai.direct import model_request_stream_sync
from pydantic_ai.exceptions import UsageLimitExceeded
from pydantic_ai.messages import ModelRequest
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.providers.openai import OpenAIProvider

from budget_guard import Budget, BudgetExceeded, InvalidDowngradeError, Session
from budget_guard.integrations.pydantic_ai import BudgetExceeded as Stop
from budget_guard.integrations.pydantic_ai import BudgetModel, BudgetStop
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
    session_of,
)

__all__ = ["provider"]

pytestmark = QUIET


def model_of(
    provider: LocalProvider, name: str = DEAR, *, retries: int = 0, guarded: Session | None = None
) -> OpenAIChatModel:
    http = DefaultAsyncHttpxClient(verify=False)  # no certificates to load, a hundred times
    client = AsyncOpenAI(base_url=provider.base_url, api_key="x", max_retries=retries, http_client=http)
    if guarded is not None:
        client = guarded.guard(client)
    return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=client))


class TestPydanticAI(FrameworkContract):
    adapter = "budget_guard_pydantic_ai"
    base = UsageLimitExceeded

    async def run(
        self,
        provider: LocalProvider,
        guard: Session | Budget,
        *,
        tool: Tool | None = None,
        stream: bool = False,
        cap: int = TOKENS,
        on: Any = None,
        **options: Any,
    ) -> str:
        model = on or BudgetModel(model_of(provider, **options), guard)
        agent = Agent(model, model_settings={"max_tokens": cap}, retries=3)
        if tool is not None:
            agent.tool_plain(tool)
        if not stream:
            return (await agent.run("go")).output
        async with agent.run_stream("go") as result:
            return await result.get_output()

    def run_blocking(self, provider: LocalProvider, guard: Session | Budget, *, stream: bool = False) -> str:
        model = BudgetModel(model_of(provider), guard)
        if not stream:
            return Agent(model, model_settings={"max_tokens": TOKENS}).run_sync("go").output
        with model_request_stream_sync(
            model, [ModelRequest.user_text_prompt("go")], model_settings={"max_tokens": TOKENS}
        ) as pieces:
            return "".join(str(piece) for piece in pieces)

    async def stream(self, provider: LocalProvider, guard: Session) -> AsyncIterator[Any]:
        agent = Agent(BudgetModel(model_of(provider), guard), model_settings={"max_tokens": TOKENS})
        async with agent.run_stream("go") as result:
            async for piece in result.stream_text(delta=True, debounce_by=None):
                yield piece

    def pair(self, provider: LocalProvider, guard: Session) -> tuple[Any, Callable[[], Awaitable[Any]]]:
        model = model_of(provider)
        return BudgetModel(model, guard), lambda: Agent(model, model_settings={"max_tokens": TOKENS}).run("go")


async def test_a_fallback_model_does_not_fall_back_on_a_stop(provider: LocalProvider) -> None:
    """3 FallbackModel"""
    session = session_of("$0.05")
    fallback = FallbackModel(BudgetModel(model_of(provider), session), model_of(provider, "gpt-4o-mini"))
    with pytest.raises(BudgetExceeded):
        await Agent(fallback, model_settings={"max_tokens": TOKENS}).run("go")
    assert not provider.calls


async def test_each_model_that_is_fallen_back_on_is_held(provider: LocalProvider) -> None:
    """3 FallbackModel over guarded models"""
    provider.reset([Reply(status=500), Reply(text="ten", output_tokens=TOKENS)])
    session = session_of("$1.00")
    fallback = FallbackModel(
        BudgetModel(model_of(provider), session), BudgetModel(model_of(provider, "gpt-4o-mini"), session)
    )
    assert (await Agent(fallback, model_settings={"max_tokens": TOKENS}).run("go")).output == "ten"
    assert session.spent_usd == Decimal("0.11")
    assert session.reserved_usd == 0


async def test_tools_that_ask_for_a_retry_are_held_call_by_call(provider: LocalProvider) -> None:
    """3 ModelRetry"""
    session = session_of("$0.35")
    agent = Agent(BudgetModel(model_of(provider), session), model_settings={"max_tokens": TOKENS}, retries=9)

    @agent.tool_plain
    def flaky(q: str) -> str:
        raise ModelRetry("again")

    with pytest.raises(BudgetExceeded):
        await agent.run("go")
    assert len(provider.calls) == 3 and session.spent_usd == Decimal("0.30")


async def test_a_wrapper_between_keeps_wrapping(provider: LocalProvider) -> None:
    seen: list[str] = []

    class Noting(WrapperModel):
        async def request(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(self.model_name)
            return await super().request(*args, **kwargs)

    session = session_of(Budget("$0.10", downgrade={DEAR: "gpt-4o-mini"}))
    session.charge("tool", "0.09")
    model = BudgetModel(Noting(model_of(provider)), session)
    await Agent(model, model_settings={"max_tokens": TOKENS}).run("go")
    assert seen == ["gpt-4o-mini"] == [call.model for call in provider.calls]


@pytest.mark.parametrize("same", [True, False])
async def test_a_guard_in_a_guard_counts_once_in_each_budget(provider: LocalProvider, same: bool) -> None:
    """8 a guard in a guard"""
    inner = session_of("$1.00")
    outer = inner if same else session_of("$1.00")
    model = BudgetModel(BudgetModel(model_of(provider), inner), outer)
    for stream in (False, True):
        await TestPydanticAI().run(provider, outer, on=model, stream=stream)
    for session in (inner, outer):
        assert session.report().breakdown.llm.calls == 2
        assert session.spent_usd == provider.bill_usd
        assert session.reserved_usd == 0


async def test_the_agent_is_named_in_the_report(provider: LocalProvider) -> None:
    session = session_of("$1.00")
    await Agent(BudgetModel(model_of(provider), session, agent="Poet"), model_settings={"max_tokens": 10}).run("go")
    assert list(session.report().by_agent) == ["Poet"]


async def test_the_cap_that_the_budget_chose_is_sent_and_its_cut_is_a_stop(provider: LocalProvider) -> None:
    provider.reset(Reply(text="word " * 5_000, output_tokens=5_000))
    session = session_of("$9.00")
    with pytest.raises(Stop) as raised:
        await Agent(BudgetModel(model_of(provider), session)).run("go")
    (call,) = provider.calls
    assert call.usage.output <= 900
    assert raised.value.partial_output is not None and raised.value.partial_output.startswith("word")
    assert session.spent_usd == provider.bill_usd


async def test_a_picture_that_nothing_bounds_is_refused_where_the_wire_is_not_seen(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pydantic_ai import ImageUrl

    from budget_guard import UnboundedCallError
    from budget_guard.adapter import ModelGuard

    monkeypatch.setattr(ModelGuard, "looked_at", lambda self, client, model: client)
    agent = Agent(BudgetModel(model_of(provider), session_of("$1.00")))
    with pytest.raises(UnboundedCallError):
        await agent.run(["what is it?", ImageUrl(url="https://example.com/x.png")])
    assert not provider.calls


async def test_what_cannot_be_held_is_refused(provider: LocalProvider) -> None:
    from budget_guard import UnboundedCallError

    model = BudgetModel(model_of(provider), session_of("$1.00"))
    with pytest.raises(UnboundedCallError, match="batch"):
        await model.batch_create([])
    with pytest.raises(UnboundedCallError, match="compaction"):
        await model.compact_messages([])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_without_a_name_to_change_refuses_the_cheaper_one(stream: bool) -> None:
    """6 a model whose name cannot be changed"""

    class Nameless(TestModel):
        def __init__(self) -> None:
            super().__init__()
            self._model_name: Any = None

        @property
        def model_name(self) -> str:
            return DEAR

    session = session_of(Budget("$0.20", downgrade={DEAR: "gpt-4o-mini"}))
    session.charge("tool", "0.18")
    agent = Agent(BudgetModel(Nameless(), session), model_settings={"max_tokens": TOKENS})
    with pytest.raises(InvalidDowngradeError, match="Nameless has no name"):
        if stream:
            async with agent.run_stream("go") as result:
                await result.get_output()
        else:
            await agent.run("go")
    assert session.spent_usd == Decimal("0.18") and session.reserved_usd == 0


async def test_what_the_wrapped_model_holds_during_a_run_is_held(provider: LocalProvider) -> None:
    entered: list[str] = []

    class Scoped(WrapperModel):
        @contextlib.asynccontextmanager
        async def _run_scope(self) -> AsyncGenerator[None]:
            entered.append("in")
            async with super()._run_scope():
                yield
            entered.append("out")

    model = BudgetModel(Scoped(model_of(provider)), session_of("$1.00"))
    await Agent(model, model_settings={"max_tokens": TOKENS}).run("go")
    assert entered == ["in", "out"]


def test_a_client_that_is_too_old_says_so_at_once(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """- a client whose SDK is too old: ValueError"""

    def refuse(*_: Any, **__: Any) -> Any:
        raise ValueError("openai 2.0 is too old")

    monkeypatch.setattr(Session, "guard", refuse)
    with pytest.raises(ValueError, match="too old"):
        BudgetModel(model_of(provider), session_of("$1.00"))


async def test_a_model_that_is_no_provider_is_refused_until_it_has_a_price() -> None:
    from budget_guard import UnknownPriceError

    with pytest.raises(UnknownPriceError):
        await Agent(BudgetModel(TestModel(), Budget("$1.00"))).run("go")
    session = Session(Budget("$1.00"), pricing={"test": (0.000001, 0.000001)})
    await Agent(BudgetModel(TestModel(), session)).run("go")
    assert 0 < session.spent_usd < Decimal("0.01")


def test_what_cannot_be_wrapped_says_so_at_once(provider: LocalProvider) -> None:
    """- a model that cannot be wrapped: TypeError"""
    with pytest.raises(TypeError, match="is a class"):
        BudgetModel(OpenAIChatModel, Budget("$1.00"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="FallbackModel"):
        BudgetModel(FallbackModel(model_of(provider), model_of(provider)), Budget("$1.00"))


async def test_a_stop_is_picklable_and_says_no_more_than_the_core_does(provider: LocalProvider) -> None:
    with pytest.raises(BudgetStop) as raised:
        await Agent(BudgetModel(model_of(provider), session_of("$0.05")), model_settings={"max_tokens": 10}).run("go")
    again = pickle.loads(pickle.dumps(raised.value))
    assert str(again) == str(raised.value) == raised.value.message
    assert "usage limits" not in str(again)


def test_a_session_of_two_event_loops_goes_on(provider: LocalProvider) -> None:
    session = session_of("$1.00")
    model = BudgetModel(
        OpenAIChatModel(DEAR, provider=OpenAIProvider(base_url=provider.base_url, api_key="x")), session
    )
    agent = Agent(model, model_settings={"max_tokens": TOKENS})
    for _ in range(3):
        asyncio.run(agent.run("go"))
    assert session.spent_usd == provider.bill_usd == Decimal("0.30")


def test_without_the_framework_the_pip_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """- the framework missing: ImportError"""
    monkeypatch.setitem(sys.modules, "pydantic_ai", None)
    for name in [name for name in sys.modules if name.startswith("budget_guard.integrations.pydantic_ai")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match=r"budget-guard-py\[pydantic-ai\]"):
        import budget_guard.integrations.pydantic_ai  # noqa: F401


def test_the_example_and_the_page_run() -> None:
    printed = example("pydantic_ai_agents")
    assert "Stopped by max_cost_usd=$0.1\nResearcher" in printed
    assert "Spent: $0.10\nThe provider's bill: $0.1\n" in printed
    page("pydantic-ai")
