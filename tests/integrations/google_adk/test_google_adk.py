"""Google ADK under a budget."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from decimal import Decimal
from typing import Any, ClassVar

import pytest

pytest.importorskip("google.adk.agents.llm_agent")  # not "google.adk", which imports late, when warnings are errors
pytest.importorskip("uvicorn")

import httpx
from google.adk.agents import LlmAgent, run_config
from google.adk.agents.run_config import RunConfig
from google.adk.events import Event
from google.adk.models.google_llm import Gemini
from google.adk.models.llm_request import LlmRequest
from google.adk.runners import InMemoryRunner
from google.adk.tools.agent_tool import AgentTool
from google.adk.tools.google_search_tool import google_search
from google.genai import Client, types

from budget_guard import Allowance, Budget, BudgetExceeded, Session, UnboundedCallError
from budget_guard.integrations.google_adk import BudgetLlm, BudgetPlugin, BudgetStop
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

pytestmark = [
    *QUIET,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


class HereGemini(Gemini):
    """Gemini at the local provider."""

    _here: Any = None

    @property
    def api_client(self) -> Client:
        client: Client = self._here
        return client


def model_of(provider: LocalProvider, model: str = DEAR, *, guarded: Session | None = None) -> HereGemini:
    sync, over = httpx.Client(verify=False), httpx.AsyncClient(verify=False)
    if guarded is not None:
        sync, over = guarded.guard(sync), guarded.guard(over)
    options = types.HttpOptions(base_url=provider.root_url, httpx_client=sync, httpx_async_client=over)
    gemini = HereGemini(model=model)
    gemini._here = Client(api_key="x", http_options=options)
    return gemini


def _mode(stream: bool) -> Any:
    return vars(run_config)["StreamingMode"]("sse" if stream else None)


async def events_of(agent: LlmAgent, *, stream: bool = False, plugins: Any = ()) -> AsyncIterator[Event]:
    runner = InMemoryRunner(agent=agent, app_name="app", plugins=list(plugins))
    session = await runner.session_service.create_session(app_name="app", user_id="u")
    mode = _mode(stream)
    asked = types.Content(role="user", parts=[types.Part(text="go")])
    running = runner.run_async(
        user_id="u", session_id=session.id, new_message=asked, run_config=RunConfig(streaming_mode=mode)
    )
    async with aclosing(running):
        async for event in running:
            yield event


def text_of(event: Event | None) -> str:
    parts = event.content.parts if event is not None and event.content is not None else None
    return "".join(part.text or "" for part in parts or ())


def agent_of(model: Any, *tools: Any, cap: int | None = TOKENS, name: str = "helper") -> LlmAgent:
    config = types.GenerateContentConfig(max_output_tokens=cap)
    return LlmAgent(name=name, description="d", model=model, tools=list(tools), generate_content_config=config)


async def answer_of(agent: LlmAgent, **options: Any) -> str:
    last = None
    async for event in events_of(agent, **options):
        last = event
    return text_of(last)


class TestGoogleADK(FrameworkContract):
    adapter = "budget_guard_google_adk"
    base = BudgetStop
    left_out: ClassVar = {
        "test_every_attempt_of_the_client_is_held": "ADK tries again only if it is asked to, and the page says not to",
    }

    async def run(
        self,
        provider: LocalProvider,
        guard: Session | Budget,
        *,
        tool: Tool | None = None,
        stream: bool = False,
        cap: int = TOKENS,
        on: Any = None,
        retries: int = 0,
        **options: Any,
    ) -> str:
        model = on or BudgetLlm(model_of(provider, **options), guard)
        return await answer_of(agent_of(model, *([] if tool is None else [tool]), cap=cap), stream=stream)

    def run_blocking(self, provider: LocalProvider, guard: Session | Budget, *, stream: bool = False) -> str:
        import asyncio

        runner = InMemoryRunner(agent=agent_of(BudgetLlm(model_of(provider), guard)), app_name="app")
        session = asyncio.run(runner.session_service.create_session(app_name="app", user_id="u"))
        mode = _mode(stream)
        asked = types.Content(role="user", parts=[types.Part(text="go")])
        events = runner.run(
            user_id="u", session_id=session.id, new_message=asked, run_config=RunConfig(streaming_mode=mode)
        )
        return text_of(list(events)[-1])

    async def stream(self, provider: LocalProvider, guard: Session) -> AsyncIterator[Any]:
        agent = agent_of(BudgetLlm(model_of(provider), guard))
        async with aclosing(events_of(agent, stream=True)) as events:  # type: ignore[type-var]
            async for event in events:
                yield text_of(event)

    def pair(self, provider: LocalProvider, guard: Session) -> tuple[Any, Callable[[], Awaitable[Any]]]:
        model = model_of(provider)
        return BudgetLlm(model, guard), lambda: answer_of(agent_of(model))


async def test_an_agent_tool_is_stopped_with_the_agent_around_it(provider: LocalProvider) -> None:
    """2 AgentTool"""
    inner, outer = session_of("$0.25"), session_of("$2.00")
    inside = agent_of(BudgetLlm(model_of(provider), inner), search, name="inside")
    with pytest.raises(BudgetExceeded):
        await answer_of(agent_of(BudgetLlm(model_of(provider), outer), AgentTool(inside)))
    assert (inner.report().breakdown.llm.calls, outer.report().breakdown.llm.calls) == (2, 1)


async def test_the_plugin_ends_the_run_politely(provider: LocalProvider) -> None:
    """7 the plugin's polite end"""
    session = session_of("$0.25")
    agent = agent_of(BudgetLlm(model_of(provider), session), search)
    last = None
    async for event in events_of(agent, plugins=[BudgetPlugin(session, message="That is all.")]):
        last = event
    assert last is not None and last.error_code == "BUDGET_EXCEEDED"
    assert "max_cost_usd=$0.25" in (last.error_message or "")
    assert text_of(last) == "That is all."
    assert len(provider.calls) == 2 and session.spent_usd == provider.bill_usd


async def test_the_plugin_leaves_other_errors_and_other_sessions_alone(provider: LocalProvider) -> None:
    agent = agent_of(BudgetLlm(model_of(provider), session_of("$0.05")))
    with pytest.raises(BudgetExceeded):
        await answer_of(agent, plugins=[BudgetPlugin(session_of("$1.00"))])
    provider.reset(Reply(status=400))
    with pytest.raises(Exception, match="400"):
        await answer_of(
            agent_of(BudgetLlm(model_of(provider), session_of("$1.00"))), plugins=[BudgetPlugin(session_of("$1.00"))]
        )


@pytest.mark.parametrize("stream", [False, True])
async def test_the_cap_that_the_budget_chose_is_sent_and_its_cut_is_a_stop(
    provider: LocalProvider, stream: bool
) -> None:
    provider.reset(Reply(text="word " * 5_000, output_tokens=5_000))
    session = session_of("$9.00")
    request_config = agent_of(BudgetLlm(model_of(provider), session), cap=None)
    with pytest.raises(BudgetExceeded) as raised:
        await answer_of(request_config, stream=stream)
    assert provider.calls[0].usage.output <= 900
    assert (raised.value.partial_output or "").startswith("word")
    assert session.spent_usd == provider.bill_usd and session.reserved_usd == 0


async def test_a_tool_of_the_providers_needs_an_allowance(provider: LocalProvider) -> None:
    model = model_of(provider, "gemini-2.5-flash")
    with pytest.raises(UnboundedCallError):
        await answer_of(agent_of(BudgetLlm(model, Budget("$1.00")), google_search))
    assert not provider.calls
    allowed = Budget("$5.00", allowance=Allowance(input_tokens=1_000, hosted_tool_calls=2))
    guarded = BudgetLlm(model, allowed)
    provider.reset(Reply(text="ten", output_tokens=TOKENS, input_tokens=20))
    await answer_of(agent_of(guarded, google_search))
    assert guarded.session.spent_usd > 0


@pytest.mark.parametrize(
    "more",
    [
        {"contents": [types.Content(parts=[types.Part.from_uri(file_uri="gs://x/y.png", mime_type="image/png")])]},
        {"contents": [types.Content(parts=[types.Part.from_bytes(data=b"x", mime_type="audio/wav")])]},
        {"config": types.GenerateContentConfig(cached_content="cachedContents/x")},
        {"previous_interaction_id": "x"},
    ],
    ids=["a file named", "a file given", "a cache", "an interaction kept"],
)
async def test_what_only_the_provider_can_weigh_needs_an_allowance(provider: LocalProvider, more: Any) -> None:
    model = BudgetLlm(model_of(provider, "gemini-2.5-flash"), Budget("$1.00"))
    with pytest.raises(UnboundedCallError):
        async for _ in model.generate_content_async(LlmRequest(**more)):
            pass
    assert not provider.calls


@pytest.mark.parametrize("same", [True, False])
async def test_a_guard_in_a_guard_counts_once_in_each_budget(provider: LocalProvider, same: bool) -> None:
    """8 a guard in a guard"""
    inner = session_of("$1.00")
    outer = inner if same else session_of("$1.00")
    await answer_of(agent_of(BudgetLlm(BudgetLlm(model_of(provider), inner), outer)))
    for session in (inner, outer):
        assert session.report().breakdown.llm.calls == 1
        assert session.spent_usd == provider.bill_usd == Decimal("0.10")
        assert session.reserved_usd == 0


def test_what_cannot_be_guarded_says_so_at_once() -> None:
    """- a model that cannot be wrapped: TypeError"""
    with pytest.raises(TypeError, match="is a class"):
        BudgetLlm(Gemini, Budget("$1.00"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no model of ADK"):
        BudgetLlm(5, Budget("$1.00"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not found"):
        BudgetLlm("no-such-model", Budget("$1.00"))
    with pytest.raises(TypeError, match="neither a Budget nor a Session"):
        BudgetPlugin("5.00")  # type: ignore[arg-type]


def test_a_live_connection_is_refused() -> None:
    with pytest.raises(UnboundedCallError, match="live"):
        BudgetLlm("gemini-2.5-flash", Budget("$1.00")).connect(LlmRequest())


def test_without_the_framework_the_pip_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """- the framework missing: ImportError"""
    monkeypatch.setitem(sys.modules, "google.adk", None)
    monkeypatch.delitem(sys.modules, "budget_guard.integrations.google_adk")
    with pytest.raises(ImportError, match=r"budget-guard-py\[google-adk\]"):
        import budget_guard.integrations.google_adk  # noqa: F401


def test_the_example_and_the_page_run() -> None:
    printed = example("google_adk_agent")
    assert "Ended: BUDGET_EXCEEDED" in printed
    page("google-adk")
