"""LlamaIndex under a budget."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import pickle
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("llama_index.core")
pytest.importorskip("llama_index.llms.openai")
pytest.importorskip("uvicorn")

import httpx
import openai
from llama_index.core.agent.workflow import AgentStream, FunctionAgent
from llama_index.core.base.llms.types import ImageBlock
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]  # its documented place
from llama_index.core.llms import LLM, ChatMessage, CompletionResponse, CustomLLM, LLMMetadata, MockLLM
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI
from pydantic import BaseModel

from budget_guard import (
    Budget,
    BudgetExceeded,
    InvalidDowngradeError,
    Session,
    UnboundedCallError,
    UnknownPriceError,
)
from budget_guard.integrations.llama_index import BudgetStop, guard_llm
from budget_guard.integrations.llama_index import session_of as session_of_llm
from budget_guard.testing import LocalProvider, Reply
from budget_guard_llama_index.runs import watch_runs
from tests.integrations.frameworks import (
    CHEAP,
    DEAR,
    PRICES,
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

pytestmark = QUIET


def llm_of(
    provider: LocalProvider,
    model: str = DEAR,
    *,
    cap: int | None = TOKENS,
    retries: int = 0,
    guarded: Session | None = None,
) -> OpenAI:
    clients: dict[str, Any] = {}
    if guarded is not None:
        given: dict[str, Any] = {"base_url": provider.base_url, "api_key": "x", "max_retries": 0}
        clients["openai_client"] = guarded.guard(openai.OpenAI(**given))
        clients["async_openai_client"] = guarded.guard(openai.AsyncOpenAI(**given))
    return OpenAI(
        model=model,
        api_base=provider.base_url,
        api_key="x",
        max_tokens=cap,
        max_retries=retries,
        http_client=httpx.Client(verify=False),  # no certificates to load, a hundred times
        async_http_client=httpx.AsyncClient(verify=False),
        **clients,
    )


class TestLlamaIndex(FrameworkContract):
    adapter = "budget_guard_llama_index"
    base = BudgetStop
    leaves_open = ("cancel", "drop")

    async def run(
        self,
        provider: LocalProvider,
        guard: Session | Budget,
        *,
        tool: Tool | None = None,
        stream: bool = False,
        on: Any = None,
        **options: Any,
    ) -> str:
        llm = on or guard_llm(llm_of(provider, **options), guard)
        agent = FunctionAgent(tools=[] if tool is None else [tool], llm=llm, streaming=stream)
        return str(await agent.run("go"))

    def run_blocking(self, provider: LocalProvider, guard: Session | Budget, *, stream: bool = False) -> str:
        llm = guard_llm(llm_of(provider), guard)
        if stream:
            return str([piece.text for piece in llm.stream_complete("go")][-1])
        return str(llm.complete("go").text)

    async def stream(self, provider: LocalProvider, guard: Session) -> AsyncIterator[Any]:
        pieces = await guard_llm(llm_of(provider), guard).astream_chat([ChatMessage("go")])
        try:
            async for piece in pieces:
                yield piece.delta
        finally:
            await pieces.aclose()

    def pair(self, provider: LocalProvider, guard: Session) -> tuple[Any, Callable[[], Awaitable[Any]]]:
        llm = llm_of(provider)
        return guard_llm(llm, guard), lambda: llm.acomplete("go")


METHODS = (
    "chat",
    "stream_chat",
    "complete",
    "stream_complete",
    "achat",
    "astream_chat",
    "acomplete",
    "astream_complete",
)


async def called(llm: LLM, method: str) -> str:
    asked: Any = "go" if "complete" in method else [ChatMessage("go")]
    answer: Any = getattr(llm, method)(asked)
    if method.startswith("a"):
        answer = await answer
        if "stream" in method:
            answer = [piece async for piece in answer][-1]
    elif "stream" in method:
        answer = list(answer)[-1]
    return str(answer)


async def test_a_blocking_tool_that_swallows_a_stop_ends_the_outer_run(provider: LocalProvider) -> None:
    """2 swallowed by a blocking tool"""
    inner, outer = session_of("$0.05"), session_of("$2.00")

    def ask(q: str) -> str:
        """Ask an LLM with a budget of its own."""
        with contextlib.suppress(BudgetExceeded):
            guard_llm(llm_of(provider), inner).complete(q)
        return "no answer"

    agent = FunctionAgent(tools=[FunctionTool.from_defaults(ask)], llm=guard_llm(llm_of(provider), outer))
    with pytest.raises(BudgetExceeded) as stop:
        await agent.run("go")
    assert stop.value.limit == Decimal("0.05") and len(provider.calls) == 1


async def test_a_run_that_is_started_beside_another_one_does_not_stop_it(provider: LocalProvider) -> None:
    """2 runs side by side in one task"""
    stopped, going_on = session_of("$0.05"), session_of("$0.35")
    llm, other = guard_llm(llm_of(provider), going_on), guard_llm(llm_of(provider), stopped)
    first = FunctionAgent(tools=[search], llm=llm).run("go")
    second = FunctionAgent(tools=[search], llm=other).run("go")  # begins in the context that the first one left
    with pytest.raises(BudgetExceeded):
        other.complete("go")
    ends = await asyncio.gather(first, second, return_exceptions=True)
    assert [end.limit for end in ends if isinstance(end, BudgetExceeded)] == [Decimal("0.35"), Decimal("0.05")]
    assert len(provider.calls) == 3


def test_spans_that_are_not_of_tools_and_runs_leave_nothing_behind(provider: LocalProvider) -> None:
    watch_runs()
    guard_llm(llm_of(provider), session_of("$1.00")).complete("go")
    asyncio.run(TestLlamaIndex().run(provider, session_of("$1.00"), tool=None))
    handlers = [each for each in get_dispatcher().span_handlers if type(each).__module__ == watch_runs.__module__]
    (handler,) = handlers
    assert not handler.open_spans and not handler._inside  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", METHODS)
async def test_every_method_is_held_and_booked(provider: LocalProvider, method: str) -> None:
    """5 every method: held, booked, refused"""
    session = session_of("$0.15")
    llm = guard_llm(llm_of(provider), session)
    assert "ten" in await called(llm, method)
    assert session.spent_usd == provider.bill_usd == Decimal("0.10")
    with pytest.raises(BudgetExceeded):
        await called(llm, method)
    assert len(provider.calls) == 1 and session.reserved_usd == 0


@pytest.mark.parametrize("method", METHODS)
async def test_the_cap_that_the_budget_chose_is_sent(provider: LocalProvider, method: str) -> None:
    provider.reset(Reply(text="word " * 5_000, output_tokens=5_000))
    session = session_of("$9.00")
    with pytest.raises(BudgetExceeded) as raised:
        await called(guard_llm(llm_of(provider, cap=None), session), method)
    assert provider.calls[0].usage.output <= 900
    assert (raised.value.partial_output or "").startswith("word")
    assert session.spent_usd == provider.bill_usd and session.reserved_usd == 0


def test_a_blocking_stream_that_is_left_is_booked_as_held(provider: LocalProvider) -> None:
    """4 a blocking stream that is left"""
    provider.reset(Reply(text="word " * TOKENS, output_tokens=TOKENS, chunks=10))
    session = session_of("$1.00")
    for _ in guard_llm(llm_of(provider), session).stream_chat([ChatMessage("go")]):
        break
    provider.wait_until_idle()
    assert session.reserved_usd == 0 and session.spent_usd >= provider.bill_usd


async def test_a_stream_that_nobody_reads_holds_nothing(provider: LocalProvider) -> None:
    """4 a stream that nobody reads"""
    session = session_of("$1.00")
    llm = guard_llm(llm_of(provider), session)
    await llm.astream_chat([ChatMessage("go")])
    llm.stream_complete("go")
    assert session.reserved_usd == 0 and not provider.calls


async def test_an_agents_own_events_stream(provider: LocalProvider) -> None:
    session = session_of("$1.00")
    handler = FunctionAgent(tools=[], llm=guard_llm(llm_of(provider), session)).run("go")
    deltas = [event.delta async for event in handler.stream_events() if isinstance(event, AgentStream)]
    await handler
    assert "".join(deltas).endswith("ten")
    assert session.spent_usd == provider.bill_usd


async def test_structured_output_is_held(provider: LocalProvider) -> None:
    class Answer(BaseModel):
        q: str

    session = session_of("$1.00")
    llm = guard_llm(llm_of(provider), session).as_structured_llm(Answer)
    with contextlib.suppress(Exception):
        await llm.acomplete("go")
    assert session.spent_usd == provider.bill_usd > 0 and session.reserved_usd == 0


@pytest.mark.parametrize("same", [True, False])
async def test_a_guard_in_a_guard_counts_once_in_each_budget(provider: LocalProvider, same: bool) -> None:
    """8 a guard in a guard"""
    inner = session_of("$1.00")
    outer = inner if same else session_of("$1.00")
    llm = guard_llm(guard_llm(llm_of(provider), inner), outer)
    for method in METHODS:
        await called(llm, method)
    for session in (inner, outer):
        assert session.report().breakdown.llm.calls == len(METHODS)
        assert session.spent_usd == provider.bill_usd
        assert session.reserved_usd == 0


async def test_a_tools_text_that_is_no_stop_of_ours_stops_nothing(provider: LocalProvider) -> None:
    session, other = session_of("$0.25"), session_of("$0.05")
    with pytest.raises(BudgetExceeded) as raised:
        await guard_llm(llm_of(provider), other).acomplete("go")
    other.raise_limits(max_cost_usd="1.00")

    async def quoting(q: str) -> str:
        """Quote."""
        return f"It said: {raised.value}"

    with pytest.raises(BudgetExceeded) as stop:
        await TestLlamaIndex().run(provider, session, tool=quoting)
    assert stop.value.limit == Decimal("0.25")  # its own: two calls were made
    assert len(provider.calls) == 2


class Own(CustomLLM):
    """An LLM that has no field for its model, and no client."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name=CHEAP)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text="ten", raw={"usage": {"prompt_tokens": 3, "completion_tokens": 10}})

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        yield self.complete(prompt)


@pytest.mark.parametrize("method", METHODS)
async def test_an_llm_without_a_model_to_change_refuses_the_cheaper_one(method: str) -> None:
    """6 an LLM whose model cannot be changed"""
    session = Session(Budget("$40.00", downgrade={CHEAP: "gpt-4.1-nano"}), pricing=PRICES)
    session.charge("tool", "36")
    with pytest.raises(InvalidDowngradeError, match="Own has no name"):
        await called(guard_llm(Own(), session), method)
    assert session.spent_usd == 36 and session.reserved_usd == 0


def test_a_picture_that_nothing_bounds_is_refused_where_the_wire_is_not_seen() -> None:
    picture = ImageBlock(url="https://example.com/x.png")
    with pytest.raises(UnboundedCallError):
        guard_llm(Own(), session_of("$200.00")).chat([ChatMessage(role="user", blocks=[picture])])


def test_a_client_that_is_too_old_says_so_at_once(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """- a client whose SDK is too old: ValueError"""

    def refuse(*_: Any, **__: Any) -> Any:
        raise ValueError("openai 2.0 is too old")

    monkeypatch.setattr(Session, "guard", refuse)
    with pytest.raises(ValueError, match="too old"):
        guard_llm(llm_of(provider), session_of("$1.00"))


async def test_an_llm_that_has_only_a_completion_is_held_once_for_each_call() -> None:
    session = session_of("$200.00")
    llm = guard_llm(Own(), session)
    for method in METHODS:
        await called(llm, method)
    assert session.report().breakdown.llm.calls == len(METHODS)
    assert session.spent_usd == Decimal("0.08") and session.reserved_usd == 0


def test_the_llm_itself_is_not_changed_and_copies_stay_guarded(provider: LocalProvider) -> None:
    llm = llm_of(provider)
    guarded = guard_llm(llm, session_of("$0.05"))
    assert type(llm) is OpenAI and isinstance(guarded, OpenAI) and type(guarded).__name__ == "OpenAI"
    assert guarded.to_dict() == llm.to_dict()
    llm.complete("go")
    for each in (guarded, guarded.model_copy(), copy.copy(guarded)):
        with pytest.raises(BudgetExceeded):
            each.complete("go")
    assert len(provider.calls) == 1


def test_what_cannot_be_guarded_says_so_at_once() -> None:
    """- a model that cannot be wrapped: TypeError"""
    with pytest.raises(TypeError, match="is a class"):
        guard_llm(OpenAI, Budget("$1.00"))  # type: ignore[type-var]
    with pytest.raises(TypeError, match="is no LLM"):
        guard_llm("gpt-4o", Budget("$1.00"))  # type: ignore[type-var]
    with pytest.raises(TypeError, match="not guarded"):
        session_of_llm(MockLLM())


def test_a_model_without_a_price_is_refused() -> None:
    with pytest.raises(UnknownPriceError):
        guard_llm(MockLLM(), Budget("$1.00")).complete("go")


def test_a_budget_becomes_a_session_that_can_be_had(provider: LocalProvider) -> None:
    llm = guard_llm(llm_of(provider), Budget("$1.00"), agent="Poet")
    llm.complete("go")
    assert list(session_of_llm(llm).report().by_agent) == ["Poet"]


def test_a_stop_is_picklable(provider: LocalProvider) -> None:
    with pytest.raises(BudgetStop) as raised:
        guard_llm(llm_of(provider), session_of("$0.05")).complete("go")
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_a_blocking_call_on_an_event_loop_does_not_wait(provider: LocalProvider) -> None:
    session = session_of("$0.15")
    llm = guard_llm(llm_of(provider), session)

    async def main() -> None:
        with provider.paused():
            first = asyncio.ensure_future(llm.acomplete("go"))
            await provider.await_calls(1)
            with pytest.raises(BudgetExceeded):
                llm.complete("go")
        await first

    asyncio.run(main())
    assert session.spent_usd == provider.bill_usd == Decimal("0.10")


def test_without_the_framework_the_pip_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """- the framework missing: ImportError"""
    monkeypatch.setitem(sys.modules, "llama_index.core", None)
    monkeypatch.delitem(sys.modules, "budget_guard.integrations.llama_index")
    with pytest.raises(ImportError, match=r"budget-guard-py\[llama-index\]"):
        import budget_guard.integrations.llama_index  # noqa: F401


def test_the_example_and_the_page_run() -> None:
    printed = example("llama_index_agent")
    assert "Stopped by max_cost_usd=$0.1\n" in printed
    assert "LLM: $0.08" in printed and "The provider's bill: $0.08\n" in printed
    page("llama-index")
