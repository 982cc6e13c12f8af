"""A guarded client is the client that it was, but for its requests: each is held, and settled by its answer."""

from __future__ import annotations

import gc
import pickle
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("openai")
pytest.importorskip("anthropic")

import anthropic
import httpx
import openai
from openai import OpenAI

from budget_guard import Allowance, Budget, BudgetExceeded, Session, UnboundedCallError, UnknownPriceError, Usage, weigh
from budget_guard.adapter import GuardedCall, counting
from budget_guard.calls.call import ModelCall
from budget_guard.testing import Attempts, LocalProvider, Reply
from budget_guard_clients.allow_list import is_free
from tests.integrations.clients.support import (
    CHEAP,
    CLAUDE,
    GPT,
    MESSAGES,
    OPENED,
    agree,
    ask,
    ask_claude,
    async_claude,
    async_open_ai,
    claude,
    drained,
    open_ai,
)

FIVE = Reply(status=500)


def test_the_same_type_comes_back_and_the_client_itself_is_as_it_was(provider: LocalProvider) -> None:
    session = Budget("$1").session()
    plain = open_ai(provider)
    guarded = session.guard(plain)
    assert isinstance(guarded, openai.OpenAI) and type(guarded).__name__ == "OpenAI"
    assert type(plain) is openai.OpenAI
    ask(plain)
    assert session.report().breakdown.llm.calls == 0
    ask(guarded)
    assert session.report().breakdown.llm.calls == 1
    other = session.guard(claude(provider))
    assert isinstance(other, anthropic.Anthropic) and type(other).__name__ == "Anthropic"


@pytest.mark.parametrize(
    "call",
    [
        lambda c: ask(c),
        lambda c: drained(ask(c, stream=True)),
        lambda c: drained(ask(c, stream=True, stream_options={"include_usage": True})),
        lambda c: c.responses.create(model=GPT, input="Hi"),
        lambda c: drained(c.responses.create(model=GPT, input="Hi", stream=True)),
        lambda c: c.completions.create(model="gpt-3.5-turbo-instruct", prompt="Hi", max_tokens=50),
        lambda c: c.chat.completions.with_raw_response.create(model=GPT, messages=MESSAGES).parse(),
        lambda c: c.with_options(timeout=9).copy().chat.completions.create(model=GPT, messages=MESSAGES),
        lambda c: c.post(
            "/chat/completions", cast_to=object, body={"model": GPT, "messages": MESSAGES}, options={"headers": {}}
        ),
        lambda c: c._client.post("chat/completions", json={"model": GPT, "messages": MESSAGES}).raise_for_status(),
    ],
)
def test_every_surface_of_openai_is_booked_as_it_is_billed(call: Any) -> None:
    from budget_guard.testing import Rates

    prices = {"gpt-3.5-turbo-instruct": Rates(input="1.50", output="2.00")}
    with LocalProvider(Reply(text="Hello", input_tokens=20, output_tokens=10), prices=prices) as provider:
        session = Budget("$1").session()
        call(session.guard(open_ai(provider)))
        assert len(provider.calls) == 1
        agree(provider, session)
        assert session.spent_usd > 0


@pytest.mark.parametrize(
    "call",
    [
        ask_claude,
        lambda c: drained(ask_claude(c, stream=True)),
        lambda c: c.beta.messages.create(model=CLAUDE, messages=MESSAGES, max_tokens=100),
        lambda c: c.messages.with_raw_response.create(model=CLAUDE, messages=MESSAGES, max_tokens=100).parse(),
        lambda c: c.with_options(timeout=9).messages.create(model=CLAUDE, messages=MESSAGES, max_tokens=100),
    ],
)
def test_every_surface_of_anthropic_is_booked_as_it_is_billed(provider: LocalProvider, call: Any) -> None:
    session = Budget("$1").session()
    call(session.guard(claude(provider)))
    agree(provider, session)
    assert session.spent_usd > 0


async def test_the_async_clients_as_well(provider: LocalProvider) -> None:
    session = Budget("$1").session()
    async with session.guard(async_open_ai(provider)) as client:
        await client.chat.completions.create(model=GPT, messages=MESSAGES)
        async with client.chat.completions.with_streaming_response.create(model=GPT, messages=MESSAGES) as response:
            assert response.status_code == 200  # and its body is not read
    async with session.guard(async_claude(provider)) as other:
        await other.messages.create(model=CLAUDE, messages=MESSAGES, max_tokens=100)
        async with other.messages.stream(model=CLAUDE, messages=MESSAGES, max_tokens=100) as stream:
            assert await stream.get_final_text() == "Hello there"
    agree(provider, session)
    assert len(provider.calls) == 4


def test_an_answer_that_nobody_reads_is_booked_as_it_is_billed(provider: LocalProvider) -> None:
    session = Budget("$1").session()
    client = session.guard(open_ai(provider))
    with client.chat.completions.with_streaming_response.create(model=GPT, messages=MESSAGES) as response:
        assert response.status_code == 200
    agree(provider, session)


@pytest.mark.parametrize("clone", ["copy", "with_options"])
def test_a_clone_with_another_http_client_stays_guarded(provider: LocalProvider, clone: str) -> None:
    from tests.integrations.clients.walk import http_of

    session = Budget("$1").session()
    with http_of(openai).Client() as http, http_of(anthropic).Client() as other:
        ask(getattr(session.guard(open_ai(provider)), clone)(http_client=http).with_options(timeout=9))
        ask_claude(getattr(session.guard(claude(provider)), clone)(http_client=other).with_options(timeout=9))
        ask(session.guard(session.guard(open_ai(provider))).copy(http_client=session.guard(http)))
    assert session.report().breakdown.llm.calls == 3
    agree(provider, session)


async def test_an_async_clone_with_another_http_client_stays_guarded(provider: LocalProvider) -> None:
    from tests.integrations.clients.walk import http_of

    session = Budget("$1").session()
    async with http_of(openai).AsyncClient() as http, session.guard(async_open_ai(provider)) as client:
        await client.copy(http_client=http).chat.completions.create(model=GPT, messages=MESSAGES)
    assert session.report().breakdown.llm.calls == 1
    agree(provider, session)


def test_a_clone_is_not_sent_to_an_address_that_tells_nothing_about_prices(provider: LocalProvider) -> None:
    session = Budget("$1").session()
    with pytest.raises(ValueError, match="models="):
        session.guard(open_ai(provider)).with_options(base_url="https://llm.example.com/v1")
    session.guard(open_ai(provider), models={"house": GPT}).with_options(base_url="https://llm.example.com/v1")


# Attempts


def test_each_attempt_is_held_by_itself() -> None:
    with LocalProvider(Attempts(FIVE, FIVE, Reply(input_tokens=20, output_tokens=10))) as provider:
        session = Budget("$1").session()
        ask(session.guard(open_ai(provider, max_retries=2)), max_tokens=1_000)
        assert len(provider.calls) == 3
        report = session.report()
        assert report.breakdown.llm.calls == 3
        assert session.spent_usd > provider.bill_usd > 0  # two of unknown outcome are booked as held
        assert session.reserved_usd == 0


def test_server_errors_are_not_booked_for_who_trusts_the_provider() -> None:
    with LocalProvider(Attempts(FIVE, FIVE, Reply(input_tokens=20, output_tokens=10))) as provider:
        session = Budget("$1", server_errors="release").session()
        ask(session.guard(open_ai(provider, max_retries=2)), max_tokens=1_000)
        assert len(provider.calls) == 3
        agree(provider, session)


@pytest.mark.parametrize("status", [429, 307])
def test_what_is_refused_or_sent_on_is_not_booked(status: int) -> None:
    with LocalProvider([Reply(status=status, retry_after_s=0), Reply(input_tokens=20, output_tokens=10)]) as provider:
        session = Budget("$1").session()
        ask(session.guard(open_ai(provider, max_retries=1)))
        assert len(provider.calls) == 2
        agree(provider, session)
        assert session.report().breakdown.llm.calls == 1


def test_a_retry_that_does_not_fit_is_not_sent() -> None:
    with LocalProvider(FIVE) as provider:
        session = Budget("$0.15").session()
        with pytest.raises(BudgetExceeded):
            ask(session.guard(open_ai(provider, max_retries=2)), max_tokens=10_000)
        assert len(provider.calls) == 1 and session.reserved_usd == 0


# Stops


@pytest.mark.parametrize("root", [openai.OpenAIError, anthropic.AnthropicError])
def test_a_stop_is_an_error_of_the_sdk_and_is_not_retried(provider: LocalProvider, root: type[Exception]) -> None:
    session = Budget("$0.01").session()
    with pytest.raises(BudgetExceeded) as stop:
        if root is openai.OpenAIError:
            ask(session.guard(open_ai(provider, max_retries=5)), max_tokens=16_000)
        else:
            ask_claude(session.guard(claude(provider, max_retries=5)), max_tokens=20_000)
    assert isinstance(stop.value, root)
    assert len(session.decisions()) == 1 and stop.value.decision_id == session.decisions()[0].id
    assert provider.calls == []
    again = pickle.loads(pickle.dumps(stop.value))
    assert type(again) is type(stop.value) and str(again) == str(stop.value)


def test_a_stop_of_a_bare_http_client_is_an_error_of_every_sdk_that_is_loaded(provider: LocalProvider) -> None:
    session = Budget("$0.01").session()
    with session.guard(httpx.Client()) as client, pytest.raises(BudgetExceeded) as stop:
        body = {"model": GPT, "messages": MESSAGES, "max_tokens": 16_000}
        client.post(provider.base_url + "/chat/completions", json=body)
    assert isinstance(stop.value, openai.OpenAIError) and isinstance(stop.value, anthropic.AnthropicError)


def test_what_cannot_be_held_is_refused_with_the_way_out(provider: LocalProvider) -> None:
    client = Budget("$1").session().guard(open_ai(provider))
    with pytest.raises(UnboundedCallError, match=r"/v1/images/generations.*not guarded.*session\.charge"):
        client.images.generate(prompt="x", model="gpt-image-1")
    with pytest.raises(UnboundedCallError, match="background"):
        client.responses.create(model=GPT, input="Hi", background=True)
    assert provider.calls == []


def test_an_endpoint_that_an_sdk_adds_is_refused(provider: LocalProvider) -> None:
    client = Budget("$1").session().guard(open_ai(provider))
    with pytest.raises(UnboundedCallError):
        client.post("/chat/completions/of/tomorrow", cast_to=object, body={"model": GPT})


@pytest.mark.parametrize(
    ("path", "free"),
    [
        ("/upload/v1beta/files", True),
        ("/v1beta/files", True),
        ("/v1beta/models/gemini-2.5-flash:countTokens", True),
        ("/v1beta/cachedContents", False),  # storage by the hour
        ("/v1beta/models/gemini-2.5-flash:batchGenerateContent", False),
        ("/upload/v1beta/files/../models/veo:predict", False),
    ],
)
def test_of_geminis_endpoints_what_is_free_of_charge_passes(path: str, free: bool) -> None:
    assert is_free("POST", "generativelanguage.googleapis.com", path) is free
    assert not is_free("POST", "api.anthropic.com", "/upload/v1beta/files")


def test_a_field_of_ours_that_is_refused_is_explained() -> None:
    reply = Reply(status=400, body={"error": {"message": "unknown field: stream_options"}})
    with LocalProvider(reply) as provider:
        client = Budget("$1").session().guard(open_ai(provider))
        with pytest.raises(openai.BadRequestError, match=r"add_fields=\('output_cap',\)"):
            ask(client, stream=True)
        plain = Budget("$1").session().guard(open_ai(provider), add_fields=("output_cap",))
        with pytest.raises(openai.BadRequestError) as error:
            ask(plain, stream=True)
        assert "add_fields" not in str(error.value)


# Budgets


def test_the_cheaper_model_is_what_the_provider_sees() -> None:
    with LocalProvider(Reply(input_tokens=100, output_tokens=10_000)) as provider:
        session = Budget("$1.00", downgrade={GPT: CHEAP}).session()
        client = session.guard(open_ai(provider))
        for _ in range(12):
            ask(client, max_tokens=10_000)
        models = [call.model for call in provider.calls]
        assert models == [GPT] * 8 + [CHEAP] * 4
        agree(provider, session)


def test_what_the_cheaper_model_refuses_is_left_out(provider: LocalProvider) -> None:
    session = Budget("$1.00", downgrade={"gpt-5": CHEAP}).session()
    session.charge("search", "0.85")
    ask(session.guard(open_ai(provider)), model="gpt-5", reasoning_effort="low", max_completion_tokens=100)
    (call,) = provider.calls
    assert call.model == CHEAP and "reasoning_effort" not in call.body


def test_guarded_twice_by_one_session_it_counts_once(provider: LocalProvider) -> None:
    session = Budget("$1").session()
    client = session.guard(session.guard(open_ai(provider)))
    ask(client)
    assert session.report().breakdown.llm.calls == 1
    agree(provider, session)


def test_a_guarded_http_client_within_a_guarded_client_counts_once(provider: LocalProvider) -> None:
    from tests.integrations.clients.walk import http_of

    session = Budget("$1").session()
    with http_of(openai).Client() as http:
        ask(session.guard(open_ai(provider, http_client=session.guard(http))))
    assert session.report().breakdown.llm.calls == 1
    agree(provider, session)


def test_guarded_by_two_sessions_it_is_held_in_both(provider: LocalProvider) -> None:
    parent = Budget("$1").session()
    with parent.child(Budget("$0.50")) as child:
        client = child.guard(parent.guard(open_ai(provider)))
        ask(client)
        agree(provider, child)
        assert [each.report().breakdown.llm.calls for each in (parent, child)] == [1, 1]
        poor = Budget("$0.000001").session()
        with pytest.raises(BudgetExceeded):
            ask(poor.guard(client), max_tokens=1_000)
        assert len(provider.calls) == 1 and child.reserved_usd == 0
    assert parent.reserved_usd == 0


def test_an_adapter_above_counts_once(provider: LocalProvider) -> None:
    session = Budget("$1").session()
    client = session.guard(open_ai(provider, max_retries=0))
    call = GuardedCall([session])
    assert call.hold(ModelCall(GPT, weigh(messages=MESSAGES), "openai")) is None
    with counting(call):
        answer = ask(client)
    call.commit(Usage(input=answer.usage.prompt_tokens, output=answer.usage.completion_tokens))
    assert session.report().breakdown.llm.calls == 1
    agree(provider, session)


def test_an_unknown_deployment_says_how_to_name_its_model() -> None:
    session = Budget("$1").session()
    options: dict[str, Any] = {"api_key": "x", "api_version": "2024-10-21", "max_retries": 0}
    with LocalProvider(Reply(input_tokens=20, output_tokens=10), prices={}) as provider:
        azure = openai.AzureOpenAI(azure_endpoint=provider.root_url, **options)
        OPENED.append(azure)
        with pytest.raises(UnknownPriceError, match=r'models=\{"prod-chat": "gpt-4o"\}'):
            ask(session.guard(azure), model="prod-chat")
        assert provider.calls == []
        ask(session.guard(azure, models={"prod-chat": GPT}), model="prod-chat")
        assert session.spent_usd == Decimal("0.00015") and list(session.report().breakdown.llm.by_model) == [GPT]


def test_calls_are_attributed_to_the_agent(provider: LocalProvider) -> None:
    session = Budget("$1").session()
    ask(session.guard(open_ai(provider), agent="Researcher"))
    assert list(session.report().by_agent) == ["Researcher"]


# Connections


def test_either_may_be_closed_or_forgotten_before_the_other(provider: LocalProvider) -> None:
    session = Budget("$1").session()
    plain = OpenAI(base_url=provider.base_url, api_key="x")
    guarded = session.guard(plain)
    guarded.close()
    ask(plain)
    guarded = session.guard(plain)
    stream = ask(guarded, stream=True)
    del plain
    gc.collect()
    assert len(drained(stream)) == 6
    ask(guarded)
    guarded.close()
    plain = open_ai(provider)
    stream = ask(plain, stream=True)
    guarded = session.guard(plain)
    del guarded
    gc.collect()
    assert len(drained(stream)) == 6


def test_the_last_to_close_closes_the_connections(provider: LocalProvider) -> None:
    closed: list[bool] = []

    class Noting(httpx.HTTPTransport):
        def close(self) -> None:
            closed.append(True)
            super().close()

    session = Budget("$1").session()
    with session.guard(httpx.Client(transport=Noting())) as client:
        client.get(provider.base_url)
    assert closed == [True]
    plain = httpx.Client(transport=Noting())
    session.guard(plain).close()
    assert closed == [True]
    plain.close()


# What bad input gets


def test_what_is_no_client_is_refused() -> None:
    session = Budget("$1").session()
    for wrong in (None, 1, "client", object(), openai.OpenAI):
        with pytest.raises(TypeError, match="OpenAI"):
            session.guard(wrong)


def test_an_sdk_that_hides_stops_is_refused(monkeypatch: pytest.MonkeyPatch, provider: LocalProvider) -> None:
    monkeypatch.setattr(openai, "__version__", "2.32.9")
    monkeypatch.setattr(anthropic, "__version__", "0.99.1")
    session = Budget("$1").session()
    with pytest.raises(ValueError, match=r'pip install -U "openai>=2.33"'):
        session.guard(open_ai(provider))
    with pytest.raises(ValueError, match=r'pip install -U "anthropic>=0.100"'):
        session.guard(claude(provider))


def test_an_address_that_tells_nothing_about_prices_needs_names() -> None:
    session = Budget("$1").session()
    client = openai.OpenAI(base_url="https://llm.example.com/v1", api_key="x")
    with pytest.raises(ValueError, match="models="):
        session.guard(client)
    session.guard(client, models={"house-model": GPT})


def search(session: Session, costs: Any, uses: int = 2) -> LocalProvider:
    """Ask for an answer that took *uses* web searches, in *session*."""
    item = {"type": "web_search_call", "id": "w", "status": "completed", "action": {"type": "search"}}
    said = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": []}
    usage = {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110}
    body = {"id": "r", "object": "response", "model": GPT, "output": [item] * uses + [said], "usage": usage}
    with LocalProvider(Reply(body=body)) as provider:
        client = session.guard(session.guard(open_ai(provider), tool_costs=costs))
        client.responses.create(model=GPT, input="Hi", max_output_tokens=100, tools=[{"type": "web_search"}])
    return provider


def test_what_a_use_of_the_providers_tool_costs_can_be_named() -> None:
    allowance = Allowance(input_tokens=1_000, hosted_tool_calls=3)
    text = Decimal("0.00035")
    by_table, named, free = (Budget("$1", allowance=allowance).session() for _ in range(3))
    search(by_table, None)
    search(named, {"web_search": "0.04"})
    search(free, {"web_search": 0})
    assert [session.spent_usd for session in (by_table, named, free)] == [
        text + Decimal(n) for n in ("0.02", "0.08", "0")
    ]
    held = named.decisions()[0].held.cost
    assert held - free.decisions()[0].held.cost == 3 * 40_000_000
    poor = Budget("$0.10", allowance=allowance).session()
    with pytest.raises(BudgetExceeded):
        search(poor, {"web_search": "0.04"})
    assert poor.spent_usd == poor.reserved_usd == 0


def test_a_tool_without_a_price_in_the_table_is_admitted_where_its_cost_is_named(provider: LocalProvider) -> None:
    tools: Any = [{"type": "x_search"}]
    budget = Budget("$1", allowance=Allowance(input_tokens=1_000, hosted_tool_calls=3))
    with pytest.raises(UnknownPriceError, match="x_search"):
        budget.session().guard(open_ai(provider)).responses.create(model=GPT, input="Hi", tools=tools)
    session = budget.session()
    client = session.guard(open_ai(provider), tool_costs={"x_search": "0.005"})
    client.responses.create(model=GPT, input="Hi", tools=tools)
    agree(provider, session)


@pytest.mark.parametrize(
    ("costs", "words"),
    [
        ({"search": "0.01"}, r"tool_costs\['search'\] is no tool that a provider runs.*track_tool"),
        ({"web_search": lambda result: 1}, r"tool_costs\['web_search'\] is a function"),
        ({"web_search": "dear"}, r"tool_costs\['web_search'\]"),
        ({"web_search": -1}, r"tool_costs\['web_search'\]"),
    ],
)
def test_a_cost_of_a_tool_that_cannot_be_is_refused(provider: LocalProvider, costs: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Budget("$1").session().guard(open_ai(provider), tool_costs=costs)


def test_unknown_fields_to_add_are_refused(provider: LocalProvider) -> None:
    session = Budget("$1").session()
    with pytest.raises(ValueError, match="add_fields="):
        session.guard(open_ai(provider), add_fields=("cap",))  # type: ignore[arg-type]  # a wrong name on purpose
