"""A guarded HTTP client is the way into any SDK that takes one, and keeps all that its user gave it."""

from __future__ import annotations

import warnings
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("openai")
pytest.importorskip("anthropic")
pytest.importorskip("httpx2")

import anthropic
import httpx
import httpx2
import openai

from budget_guard import Budget, BudgetExceeded, UnboundedCallError
from budget_guard.testing import LocalProvider, Reply
from tests.integrations.clients.support import CHEAP, CLAUDE, GPT, MESSAGES, OPENED, agree, ask, open_ai

BODY = {"model": GPT, "messages": MESSAGES, "max_tokens": 100}


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_either_library(provider: LocalProvider, library: Any) -> None:
    session = Budget("$1").session()
    with session.guard(library.Client()) as client:
        assert type(client) is library.Client
        url = provider.base_url + "/chat/completions"
        assert client.post(url, json=BODY).json()["choices"][0]["message"]["content"] == "Hello there"
        with client.stream("POST", url, json={**BODY, "stream": True}) as response:
            assert b"".join(response.iter_raw()).endswith(b"data: [DONE]\n\n")
        with client.stream("POST", url, json=BODY) as response:
            assert b"Hello there" in b"".join(response.iter_raw())
        assert client.get(provider.base_url + "/models").status_code in (200, 404, 405)
    calls = [call for call in provider.calls if call.cost_nano]
    assert len(calls) == 3 and session.report().breakdown.llm.calls == 3
    assert session.reserved_usd == 0 and session.spent_usd == Decimal(sum(c.cost_nano or 0 for c in calls)) / 10**9


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_either_library_async(provider: LocalProvider, library: Any) -> None:
    session = Budget("$1").session()
    async with session.guard(library.AsyncClient()) as client:
        assert type(client) is library.AsyncClient
        await client.post(provider.base_url + "/chat/completions", json=BODY)
    agree(provider, session)


def test_hooks_cookies_headers_mounts_and_transport_still_act() -> None:
    seen: list[str] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(f"{request.headers['x-mine']} {request.headers.get('cookie')}")
        return httpx2.Response(400, json={"error": {"message": "no"}}, headers={"set-cookie": "b=2"})

    mine = httpx2.Client(
        headers={"x-mine": "yes"},
        cookies={"a": "1"},
        event_hooks={"request": [lambda request: seen.append("hook")]},
        mounts={"https://proxied.example": httpx2.MockTransport(handler)},
        transport=httpx2.MockTransport(handler),
    )
    session = Budget("$1").session()
    guarded = session.guard(mine)
    guarded.post("https://api.openai.com/v1/chat/completions", json=BODY)
    guarded.post("https://proxied.example/v1/chat/completions", json=BODY)
    assert seen == ["hook", "yes a=1", "hook", "yes a=1; b=2"] or len(seen) == 4
    assert len(session.decisions()) == 2 and session.spent_usd == 0  # both are held, and refused by the provider
    with pytest.raises(UnboundedCallError):
        guarded.post("https://proxied.example/v1/images/generations", json=BODY)
    mine.post("https://proxied.example/v1/images/generations", json=BODY)


def test_the_proxies_of_the_environment_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    client: Any = httpx2.Client()
    guarded: Any = Budget("$1").session().guard(client)
    assert list(guarded._mounts) == list(client._mounts)
    assert [each and type(each.inner) for each in guarded._mounts.values()] == [
        each and type(each) for each in client._mounts.values()
    ]


def test_a_free_endpoint_of_a_server_that_nothing_is_known_of_passes() -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json={"input_tokens": 3})

    session = Budget("$1").session()
    client = session.guard(httpx2.Client(transport=httpx2.MockTransport(handler)))
    assert client.post("http://gateway/v1/messages/count_tokens", json={}).status_code == 200
    with pytest.raises(UnboundedCallError):
        client.post("http://gateway/v1/conversations", json={})  # storage at OpenAI, a paid answer at Mistral
    with pytest.raises(UnboundedCallError):
        client.post("https://api.openai.com/v1/threads/1/messages/of", json={})
    assert session.spent_usd == 0


def test_embeddings_are_held_and_booked() -> None:
    from budget_guard.testing import Rates

    with LocalProvider(
        Reply(input_tokens=1_000), prices={"text-embedding-3-small": Rates(input="0.02", output="0")}
    ) as provider:
        session = Budget("$1").session()
        session.guard(open_ai(provider)).embeddings.create(model="text-embedding-3-small", input=["Hi", "there"])
        agree(provider, session)


def test_langchain_over_a_guarded_http_client(provider: LocalProvider) -> None:
    chat = pytest.importorskip("langchain_openai")
    session = Budget("$1").session()
    with session.guard(httpx2.Client()) as http:
        model = chat.ChatOpenAI(model=GPT, base_url=provider.base_url, api_key="x", http_client=http, max_retries=0)
        assert model.invoke("Hi").content == "Hello there"
        assert "".join(chunk.content for chunk in model.stream("Hi")) == "Hello there"
        agree(provider, session)
        poor = Budget("$0.00001").session()
        with poor.guard(http) as both:
            model = chat.ChatOpenAI(model=GPT, base_url=provider.base_url, api_key="x", http_client=both, max_retries=2)
            with pytest.raises(BudgetExceeded):
                model.invoke("Hi")


def test_google_genai_over_a_guarded_http_client(provider: LocalProvider) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        genai = pytest.importorskip("google.genai")
    session = Budget("$1").session()
    with session.guard(httpx.Client()) as http:
        options = genai.types.HttpOptions(base_url=provider.root_url, httpx_client=http)
        client = genai.Client(api_key="x", http_options=options)
        assert client.models.generate_content(model="gemini-2.5-flash", contents="Hi").text == "Hello there"
        chunks = client.models.generate_content_stream(model="gemini-2.5-flash", contents="Hi")
        assert "".join(chunk.text or "" for chunk in chunks) == "Hello there"
        agree(provider, session)
        with pytest.raises(TypeError, match="httpx_async_client"):
            session.guard(client)


# Clouds


def bedrock(provider: LocalProvider) -> Any:
    pytest.importorskip("boto3")
    client = anthropic.AnthropicBedrock(
        aws_access_key="x", aws_secret_key="x", aws_region="us-east-1", base_url=provider.root_url, max_retries=0
    )
    OPENED.append(client)
    return client


BEDROCK = "anthropic.claude-haiku-4-5-20251001-v1:0"


@pytest.mark.parametrize("stream", [False, True])
def test_a_signed_body_is_sent_as_it_is(stream: bool) -> None:
    from budget_guard.testing import Rates

    reply = Reply(text="Hello there", input_tokens=20, output_tokens=10)
    # in one region it costs a tenth more than anywhere
    with LocalProvider(reply, prices={BEDROCK: Rates(input="1.1", output="5.5")}) as provider:
        session = Budget("$1.00", downgrade={BEDROCK: CHEAP}).session()
        session.charge("search", "0.85")
        found = session.guard(bedrock(provider)).messages.create(
            model=BEDROCK, messages=MESSAGES, max_tokens=1_000, stream=stream
        )
        if stream:
            list(found)
        provider.wait_until_idle()
        (call,) = provider.calls
        assert call.model == BEDROCK and call.body["max_tokens"] == 1_000
        assert session.reserved_usd == 0
        assert session.spent_usd - Decimal("0.85") == provider.bill_usd


def test_vertex_is_switched_to_the_cheaper_model_by_its_path() -> None:
    pytest.importorskip("google.auth")
    seen: list[str] = []
    usage = {"input_tokens": 20, "output_tokens": 10}
    answer = {"id": "1", "type": "message", "role": "assistant", "model": CLAUDE, "content": [], "usage": usage}

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.url.path)
        return httpx2.Response(200, json=answer)

    http = httpx2.Client(transport=httpx2.MockTransport(handler))
    session = Budget("$1.00", downgrade={"claude-sonnet-4-5": CLAUDE}).session()
    client = session.guard(
        anthropic.AnthropicVertex(region="us-east5", project_id="p", access_token="x", http_client=http)
    )
    session.charge("search", "0.85")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        client.messages.create(model="claude-sonnet-4-5", messages=MESSAGES, max_tokens=100)
    assert seen == [f"/v1/projects/p/locations/us-east5/publishers/anthropic/models/{CLAUDE}:rawPredict"]


def test_an_azure_deployment_is_not_switched_where_none_is_known_for_the_cheaper_model() -> None:
    options: dict[str, Any] = {"api_key": "x", "api_version": "2024-12-01", "max_retries": 0}
    with LocalProvider(Reply(input_tokens=20, output_tokens=10)) as provider:
        azure = openai.AzureOpenAI(azure_endpoint=provider.root_url, **options)
        OPENED.append(azure)
        session = Budget("$1.00", downgrade={GPT: CHEAP}).session()
        session.charge("search", "0.85")
        ask(session.guard(azure, models={"big": GPT}), model="big", max_tokens=100)
        ask(session.guard(azure, models={"big": GPT, "small": CHEAP}), model="big", max_tokens=100)
        assert [call.path.split("/")[3] for call in provider.calls] == ["big", "small"]
        assert [call.body["model"] for call in provider.calls] == ["big", "small"]
