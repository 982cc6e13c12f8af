"""Requests of every dialect through the gateway: what the caller gets, what is held, and what is booked."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import anthropic
import httpx
import openai
import pytest

from budget_guard import Budget
from budget_guard.integrations.gateway import Upstream
from budget_guard.protocol import problem_schema
from budget_guard.testing import LocalProvider, Reply
from budget_guard.testing.request import ProviderRequest
from budget_guard_gateway.network_proxy import network_proxy
from tests.integrations.gateway.support import MESSAGES, RATES, TOKEN, WIRES, Asking, asked, gateway, serving

jsonschema = pytest.importorskip("jsonschema")


STREAMED = (
    b'data: {"id":"1","model":"dime","choices":[{"index":0,"delta":{"content":"caf\xc3\xa9 \xe2\x98\x83"}}]}\r\n\r\n'
    b": a comment\n\n"
    b'event: odd\rdata: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}},'
    b'{"index":1,"delta":{"content":"n=2"},"logprobs":{"content":[]}}]}\r\r'
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data:{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":16,"total_tokens":17}}\n\ndata: [DONE]\n\n'
)
WHOLE = b'{ "odd" :  1.0, "model":"dime", "usage":{"prompt_tokens":1, "completion_tokens":16,"total_tokens":17}}\n'


class Raw:
    """A provider that answers given bytes, cut into pieces of one byte, and keeps what it was sent."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.heads: list[dict[str, str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self.heads.append({name.decode(): value.decode() for name, value in scope["headers"]})
        self.bodies.append((await receive())["body"])
        streams = b'"stream"' in self.bodies[-1]
        headers = [(b"content-type", b"text/event-stream" if streams else b"application/json")]
        headers += [(b"set-cookie", b"session=1"), (b"x-budget-decision", b"theirs"), (b"openai-version", b"v")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for byte in STREAMED if streams else WHOLE:
            await send({"type": "http.response.body", "body": bytes([byte]), "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@contextmanager
def raw_provider(**settings: Any) -> Iterator[tuple[Raw, Asking]]:
    raw = Raw()
    with serving(raw, lifespan="off") as server:
        upstream = Upstream(name="openai", url=server.url + "/base", key="sk-ours")
        with gateway(None, upstreams=[upstream], **settings) as asking:
            yield raw, asking


def check(response: httpx.Response, code: str, status: int = 402) -> dict[str, Any]:
    """The problem that *response* is."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    jsonschema.validate(document, problem_schema())
    assert document["code"] == code and response.headers["x-budget-decision"] == "block"
    return document


# What the caller gets


@pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
@pytest.mark.parametrize("wire", WIRES)
def test_a_call_is_answered_with_the_providers_own_bytes_and_booked_by_them(
    asking: Asking, provider: LocalProvider, wire: str, stream: bool
) -> None:
    seen: list[bytes] = []
    path, body = asked(wire, stream=stream)
    if stream and wire == "chat":
        body["stream_options"] = {"include_usage": True}
    answer = asking.http.post(path, json=body, headers={**TOKEN, "x-run-id": "r1"})
    seen.append(answer.content)
    assert answer.status_code == 200, answer.text
    (call,) = provider.calls
    assert call.body == body
    assert provider.bill_usd == Decimal("0.1") and asking.booked() == ("0.1", "0")
    assert answer.headers["x-budget-decision"] == "allow" and answer.headers["x-run-id"] == "r1"
    assert answer.headers["x-budget-remaining-usd"] == "0.9"
    assert answer.headers["x-budget-decision-id"] == answer.headers["x-budget-reservation-id"]
    assert answer.headers["x-request-id"].startswith("req_")  # the provider's
    direct = httpx.post(provider.root_url + path, json=body)
    varying = {"id", "created", "system_fingerprint", "responseId", "response_id", "item_id", "request_id"}
    assert _without(answer.text, varying) == _without(direct.text, varying)


def _without(text: str, names: set[str]) -> str:
    """*text* without what a provider makes up anew each time."""

    def cut(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: cut(inner) for name, inner in value.items() if name not in names}
        return [cut(inner) for inner in value] if isinstance(value, list) else value

    lines = text.split("\n")
    for i, line in enumerate(lines):
        head, brace, rest = line.partition("{")
        if brace and head in ("", "data: "):
            lines[i] = head + json.dumps(cut(json.loads(brace + rest)))
    return "\n".join(lines)


@pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
def test_bytes_go_both_ways_as_they_are_however_they_are_cut(stream: bool) -> None:
    asks = b', "stream" : true, "stream_options":{"include_usage":true}' if stream else b""
    sent = (
        b'{ "model":"dime",\n "max_tokens" : 16, "messages":[{"role":"user","content":"\\u00e9 \xe2\x98\x83"}]%b }'
        % asks
    )
    with raw_provider() as (raw, asking):
        headers = {**TOKEN, "content-type": "application/json", "x-run-id": "r1"}
        answer = asking.http.post("/v1/chat/completions", content=sent, headers=headers)
        assert raw.bodies == [sent]
        assert answer.content == (STREAMED if stream else WHOLE)
        assert asking.booked() == ("0.1", "0")


def test_headers_are_those_of_the_caller_and_of_the_provider_but_for_keys_and_what_is_the_gateways() -> None:
    with raw_provider() as (raw, asking):
        sent = {
            "x-run-id": "r1",
            "openai-beta": "b",
            "cookie": "c=1",
            "x-budget-x": "1",
            "idempotency-key": "i",
            "x-api-key": "k",
        }
        answer = asking.http.post("/v1/chat/completions", json=asked("chat")[1], headers={**TOKEN, **sent})
    (head,) = raw.heads
    assert head["authorization"] == "Bearer sk-ours" and head["accept-encoding"] == "identity"
    assert (head["openai-beta"], head["idempotency-key"]) == ("b", "i")
    assert not {"cookie", "x-run-id", "x-budget-x", "x-api-key"} & set(head)
    assert head["host"] != answer.request.headers["host"]
    assert answer.headers["openai-version"] == "v" and "set-cookie" not in answer.headers
    assert answer.headers.get_list("x-budget-decision") == ["allow"]


def test_usage_that_nobody_asked_for_is_asked_for_and_held_back(asking: Asking, provider: LocalProvider) -> None:
    answer = asking.ask("chat", stream=True)
    assert provider.calls[0].body["stream_options"] == {"include_usage": True}
    assert '"usage":{' not in answer.text.replace(" ", "") and answer.text.endswith("data: [DONE]\n\n")
    asked_for = asking.ask("chat", stream=True, stream_options={"include_usage": True})
    assert '"usage":{' in asked_for.text.replace(" ", "")
    assert asking.booked() == ("0.2", "0")


def test_a_call_without_a_cap_gets_the_one_that_the_budget_pays_for(asking: Asking, provider: LocalProvider) -> None:
    for wire, path in (
        ("chat", "max_completion_tokens"),
        ("responses", "max_output_tokens"),
        ("messages", "max_tokens"),
    ):
        field = "max_tokens" if wire == "chat" else path
        fields: dict[str, Any] = {field: None, "model": "cheap"}
        answer = asking.ask(wire, run=wire, **fields)
        assert answer.headers["x-budget-output-clamped"] == "true"
        assert provider.calls[-1].body[path] == 1_600


def test_a_cheaper_model_takes_over_near_the_end(provider: LocalProvider) -> None:
    with gateway(provider, Budget("$1.00", downgrade={"dime": "cheap"}, max_wait_s=0)) as asking:
        for _ in range(8):
            asking.ask("chat")
        cheaper = asking.ask("chat")
    assert cheaper.headers["x-budget-decision"] == "downgrade"
    named = cheaper.headers["x-budget-requested-model"], cheaper.headers["x-budget-selected-model"]
    assert named == ("dime", "cheap") and provider.calls[-1].body["model"] == "cheap"


def test_a_run_that_is_not_named_is_made_up_and_can_be_gone_on_with(asking: Asking) -> None:
    first = asking.ask(run=None)
    named = first.headers["x-run-id"]
    assert asking.ask(run=None).headers["x-run-id"] != named
    assert asking.ask(run=named).headers["x-budget-remaining-usd"] == "0.8"
    assert len(asking.gateway.runs) == 1  # those made up are put away with their calls


# What does not fit


@pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
@pytest.mark.parametrize("wire", WIRES)
def test_of_many_calls_at_once_as_many_are_admitted_as_fit(
    asking: Asking, provider: LocalProvider, wire: str, stream: bool
) -> None:
    path, body = asked(wire, stream=stream)

    async def ask_all() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=asking.url, timeout=20) as http:
            headers = {**TOKEN, "x-run-id": "r1"}
            return await asyncio.gather(*(http.post(path, json=body, headers=headers) for _ in range(30)))

    answers = asyncio.run(ask_all())
    assert Counter(answer.status_code for answer in answers) == {200: 10, 402: 20}
    assert provider.bill_usd == 1 and len(provider.calls) == 10 and asking.booked() == ("1", "0")
    for answer in answers:
        if answer.status_code == 402:
            budget = check(answer, "run_ceiling_reached")["budget"]
            parts = [Decimal(budget[f"{name}_usd"]) for name in ("committed", "reserved", "remaining")]
            assert sum(parts) == Decimal(budget["limit_usd"])


def test_openais_client_raises_once_and_reads_the_code(asking: Asking, provider: LocalProvider) -> None:
    client = openai.OpenAI(base_url=f"{asking.url}/v1", api_key="bg-1", default_headers={"X-Run-Id": "sdk"})
    raw = client.chat.completions.with_raw_response.create(model="dime", messages=[], max_tokens=16)
    assert raw.headers["x-budget-remaining-usd"] == "0.9"
    for create in (
        lambda: client.chat.completions.create(model="dime", messages=[], max_tokens=999),
        lambda: client.responses.create(model="dime", input="hi", max_output_tokens=999, stream=True),
        lambda: client.chat.completions.create(model="nope-9", messages=[], max_tokens=16),
    ):
        with pytest.raises(openai.APIStatusError) as caught:
            create()
        document: Any = caught.value.response.json()
        assert caught.value.code == document["code"] and document["alternatives"] == []
    assert len(asking.gateway.authority.decisions(action="block")) == 3 and len(provider.calls) == 1
    client.close()


def test_anthropics_client_raises_once_and_has_the_whole_problem(asking: Asking, provider: LocalProvider) -> None:
    headers = {"X-Run-Id": "r1"}
    client = anthropic.Anthropic(base_url=asking.url, api_key="bg-1", default_headers=headers)
    answer = client.messages.create(model="dime", max_tokens=16, messages=MESSAGES)  # type: ignore[arg-type]
    assert answer.usage.output_tokens == 16
    with client.messages.stream(model="dime", max_tokens=16, messages=MESSAGES) as stream:  # type: ignore[arg-type]
        assert stream.get_final_message().usage.output_tokens == 16
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(model="dime", max_tokens=999, messages=MESSAGES)  # type: ignore[arg-type]
    body: Any = caught.value.body
    assert caught.value.status_code == 402 and body["code"] == "run_ceiling_reached"
    assert len(asking.gateway.authority.decisions(action="block")) == 1 and len(provider.calls) == 2
    client.close()


def test_the_status_of_a_refusal_can_be_another_one_and_is_not_retried_either(provider: LocalProvider) -> None:
    with gateway(provider, exceeded_status=429) as asking:
        client = openai.OpenAI(base_url=f"{asking.url}/v1", api_key="bg-1")
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(model="dime", messages=[], max_tokens=999)
        assert len(asking.gateway.authority.decisions(action="block")) == 1
        client.close()


def test_a_client_of_x402_has_nothing_to_pay(asking: Asking) -> None:
    refused = asking.ask(max_tokens=999)
    check(refused, "run_ceiling_reached")
    assert "payment-required" not in refused.headers and "x402Version" not in refused.json()


# What the provider does


@contextmanager
def failing(reply: Reply) -> Iterator[tuple[LocalProvider, Asking]]:
    with LocalProvider(lambda _: reply, prices=RATES) as provider, gateway(provider) as asking:
        yield provider, asking


@pytest.mark.parametrize(
    ("reply", "stream", "status", "booked"),
    [
        (Reply(status=429), False, 429, "0"),
        (Reply(status=400), True, 400, "0"),
        (Reply(status=500), False, 500, "0.1"),
        (Reply(status=503), False, 503, "0"),
        (Reply(output_tokens=16, usage="missing"), False, 200, "0.1"),
        (Reply(output_tokens=8, usage="missing"), True, 200, "0.1"),
        (Reply(output_tokens=8, encoding="gzip"), False, 200, "0.05"),
        (Reply(output_tokens=8, encoding="gzip"), True, 200, "0.05"),
    ],
)
def test_what_the_provider_answers_is_passed_on_and_booked_by_what_it_means(
    reply: Reply, stream: bool, status: int, booked: str
) -> None:
    with failing(reply) as (_, asking):
        answer = asking.ask(stream=stream)
        assert answer.status_code == status and asking.booked() == (booked, "0")
        assert answer.headers["x-budget-decision"] == "allow"
        assert "content-encoding" not in answer.headers


def test_a_stream_that_breaks_is_cut_for_the_caller_too_and_booked_at_its_bound() -> None:
    with failing(Reply(text="y " * 16, output_tokens=16, chunks=8, drop_after=2)) as (_, asking):
        with pytest.raises(httpx.RemoteProtocolError):
            asking.ask(stream=True)
        assert asking.booked() == ("0.1", "0")


def test_an_answer_that_breaks_is_a_problem_and_booked_at_its_bound() -> None:
    with failing(Reply(output_tokens=16, drop_after=0)) as (_, asking):
        answer = asking.ask()
        assert (answer.status_code, answer.json()["code"]) == (502, "upstream_failed")
        assert asking.booked() == ("0.1", "0")


def test_a_provider_that_is_not_there_costs_nothing() -> None:
    with LocalProvider(prices=RATES) as provider:
        served = gateway(provider)
        asking = served.__enter__()
    try:
        answer = asking.ask()
        assert (answer.status_code, answer.json()["code"]) == (502, "upstream_unreachable")
        assert asking.booked() == ("0", "0")
    finally:
        served.__exit__(None, None, None)


def test_a_provider_that_says_nothing_is_given_up_and_its_bound_is_booked(provider: LocalProvider) -> None:
    provider.pause()
    with gateway(provider, read_timeout_s=0.2) as asking:
        answer = asking.ask()
        assert (answer.status_code, answer.json()["code"]) == (504, "upstream_timeout")
        assert asking.booked() == ("0.1", "0")
    provider.resume()


def test_a_revoked_run_ends_its_stream_with_an_error_that_clients_raise(provider: LocalProvider) -> None:
    provider.reset(lambda _: Reply(text="z " * 16, output_tokens=16, chunks=8, gate_chunks=True))
    with gateway(provider) as asking:
        client = openai.OpenAI(base_url=f"{asking.url}/v1", api_key="a", default_headers={"X-Run-Id": "r1"})
        stream = client.chat.completions.create(model="dime", messages=[], max_tokens=16, stream=True)
        provider.release_chunk(2)
        next(stream), next(stream)  # both are through: whatever comes after, comes after the revocation
        (run,) = asking.gateway.runs.all()
        run.session.revoke("enough")
        provider.release_chunk(2)
        with pytest.raises(openai.APIError, match="enough"):
            for _ in stream:
                pass
        client.close()
        provider.wait_until_idle()
        assert asking.booked() == ("0.1", "0")


def chosen(request: ProviderRequest) -> Reply:
    return Reply(output_tokens=16, status=429 if request.attempt == 0 else 200)


def test_each_attempt_of_a_client_that_retries_is_held_by_itself() -> None:
    with LocalProvider(chosen, prices=RATES) as provider, gateway(provider) as asking:
        client = openai.OpenAI(base_url=f"{asking.url}/v1", api_key="a", default_headers={"X-Run-Id": "r1"})
        client = client.with_options(max_retries=1)
        client.chat.completions.create(model="dime", messages=[], max_tokens=16, extra_headers={"Idempotency-Key": "i"})
        client.close()
        assert [call.status for call in provider.calls] == [429, 200]
        assert asking.run().committed["max_requests"] == 1 and asking.booked() == ("0.1", "0")


# Output caps


@pytest.mark.parametrize(
    ("clamp", "asked", "most", "sent", "clamped"),
    [
        ("never", 20, 8, 8, True),
        ("never", 8, 8, 8, False),
        ("never", None, 8, 8, True),
        ("never", 20, None, 20, False),
        ("reject", 8, 8, 8, False),
        ("reject", None, 8, 8, True),
    ],
)
def test_a_cap_that_is_the_budgets_is_told(
    provider: LocalProvider, clamp: Any, asked: int | None, most: int | None, sent: int, clamped: bool
) -> None:
    budget = Budget("$1.00", clamp_output=clamp, call_max_output_tokens=most)
    with gateway(provider, budget) as asking:
        answer = asking.ask(max_tokens=asked)
        assert answer.status_code == 200
        assert ("x-budget-output-clamped" in answer.headers) is clamped
        body = provider.calls[-1].body
        assert (body.get("max_completion_tokens") or body.get("max_tokens")) == sent
        record = asking.http.get(f"/budget/decisions/{answer.headers['x-budget-decision-id']}", headers=TOKEN).json()
        caps = ("client_requested_max_output_tokens", "effective_max_output_tokens", "output_clamped")
        assert [record[name] for name in caps] == [asked, sent, clamped]


@pytest.mark.parametrize("wire", WIRES)
def test_a_cap_above_what_the_budget_allows_is_refused_and_named(provider: LocalProvider, wire: str) -> None:
    with gateway(provider, Budget("$5.00", clamp_output="reject", call_max_output_tokens=15)) as asking:
        answer = asking.ask(wire)
        document = check(answer, "output_cap_too_high", status=422)
        assert "at most 15 tokens, and this one sets 16" in document["detail"]
        assert (document["budget"]["limit"], document["budget"]["client_requested_max_output_tokens"]) == (15, 16)
        assert document["alternatives"] == [] and answer.headers["x-should-retry"] == "false"
        assert provider.calls == [] and asking.booked() == ("0", "0")


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Raw, str]]:
    """What stands in for the proxy of a network, with its address, which the environment names."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    raw = Raw()
    with serving(raw, lifespan="off") as server:
        monkeypatch.setenv("http_proxy", server.url)
        network_proxy.cache_clear()
        yield raw, server.url
        network_proxy.cache_clear()


@pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
def test_a_provider_is_reached_through_the_proxy_of_the_network(
    proxy: tuple[Raw, str], monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")  # for the test's own client
    with gateway(None, upstreams=[Upstream(name="openai", url="http://models.example")]) as asking:
        answer = asking.ask("chat", stream=stream)
        assert answer.status_code == 200
        assert asking.booked() == ("0.1", "0")
    assert [head["host"] for head in proxy[0].heads] == ["models.example"]


def test_no_proxy_is_asked_for_this_machine_nor_for_hosts_that_the_environment_excepts(
    proxy: tuple[Raw, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "inside.example")
    assert network_proxy("http", "models.example") == proxy[1]
    assert network_proxy("https", "models.example") is None
    assert network_proxy("http", "inside.example") is None
    assert [network_proxy("http", host) for host in ("localhost", "127.0.0.1", "::1")] == [None] * 3
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:9")
    network_proxy.cache_clear()
    assert network_proxy("https", "models.example") is None  # it speaks no HTTP
