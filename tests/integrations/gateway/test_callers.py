"""Who may ask for what: keys, names, pages, paths, and requests that are none."""

from __future__ import annotations

import json
import logging
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("aiohttp")

from budget_guard import Budget, DowngradePolicy
from budget_guard.integrations.gateway import (
    GatewaySettings,
    Keys,
    Upstream,
    add_key,
    read_keys,
    revoke_key,
    upstream_of,
)
from budget_guard.testing import FakeClock, LocalProvider
from budget_guard.wire import GENERATE_CONTENT
from budget_guard_gateway import messages
from budget_guard_gateway.command import main, settings_of
from budget_guard_gateway.routes import Router
from budget_guard_gateway.state import keys_of
from tests.integrations.gateway.support import PRICES, TOKEN, Asking, asked, gateway, serving


def refusal(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-budget-decision"] == "block"
    return answer.status_code, answer.json()["code"]


# Keys


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def test_without_a_key_nothing_is_served(asking: Asking, provider: LocalProvider) -> None:
    path, body = asked("chat")
    for headers in ({}, {"authorization": "Basic eDp5"}, {"authorization": "Bearer"}, {"x-api-key": ""}):
        assert refusal(asking.http.post(path, json=body, headers=headers)) == (401, "unauthorized")
    assert refusal(asking.http.post(f"{path}?key=bg-1", json=body)) == (401, "unauthorized")
    assert refusal(asking.http.post(f"{path}?key=bg-1", json=body, headers=TOKEN)) == (400, "invalid_request")
    assert provider.calls == [] and len(asking.gateway.runs) == 0


def test_each_sdks_way_of_sending_a_key_is_taken(asking: Asking) -> None:
    path, body = asked("chat")
    for name, value in (("Authorization", "bearer k"), ("X-Api-Key", "k"), ("x-goog-api-key", "k"), ("api-key", "k")):
        assert asking.http.post(path, json=body, headers={name: value}).status_code == 200
    assert asking.gateway.authority.snapshot("user", asking.gateway.keys.principal("k").name).spent_usd  # type: ignore[union-attr]


def test_a_cheaper_model_takes_over_only_where_the_key_may_use_it(provider: LocalProvider, keys: Path) -> None:
    one, both = (
        add_key(keys, "one", user="u1", models=["dime"]),
        add_key(keys, "both", user="u2", models=["dime", "ch*"]),
    )
    budget = Budget("$0.25", downgrade=DowngradePolicy(to="cheap", at=0.01))
    with gateway(provider, budget, keys=str(keys), ceilings={"user": Budget("$5.00")}) as asking:
        assert [asking.ask(token=one, run="a").status_code for _ in range(3)] == [200, 200, 402]
        assert {asking.ask(token=both, run="b").status_code for _ in range(3)} == {200}
    assert [call.model for call in provider.calls] == ["dime", "dime", "dime", "cheap", "cheap"]


def test_a_key_is_bound_to_its_principals_models_and_budget(provider: LocalProvider, keys: Path) -> None:
    alice = add_key(keys, "alice", user="u1", team="t1", feature="f", models=["dim*"], run_budget="$0.25")
    bob = add_key(keys, "bob", user="u2")
    with gateway(provider, keys=str(keys), ceilings={"user": Budget("$0.45")}) as asking:
        assert refusal(asking.ask(token="guess")) == (401, "unauthorized")
        assert asking.ask(token=alice, run="a").headers["x-budget-remaining-usd"] == "0.15"
        assert refusal(asking.ask(token=alice, run="a", model="cheap")) == (403, "model_not_allowed")
        assert asking.ask(token=bob, run="b", model="cheap").status_code == 200
        authority = asking.gateway.authority
        for kind, name in (("user", "u1"), ("key", "alice"), ("team", "t1")):
            assert f"{authority.snapshot(kind, name).spent_usd:f}" == "0.1"
        # a run is its principal's
        stolen = asking.ask(token=bob, run="a")
        assert refusal(stolen) == (403, "foreign_run") and "u1" not in stolen.text + str(stolen.headers)
        # the ceiling of the user, who is told of it, and nobody's name
        for run in ("c", "d", "e"):
            asking.ask(token=alice, run=run)
        refused = asking.ask(token=alice, run="f")
        assert refusal(refused) == (402, "user_ceiling_reached")
        assert refused.json()["budget"]["remaining_usd"] == "0.05" and "limit_usd" not in refused.json()["budget"]
        assert refused.headers["x-budget-blocking-scope"] == "user" and "u1" not in refused.text
        # revoked by an operator
        authority.revoke("key", "bob", reason="leaked")
        assert refusal(asking.ask(token=bob, run="b")) == (403, "revoked")
    assert all("authorization" not in call.headers for call in provider.calls)  # keys of ours go nowhere


def test_the_file_has_hashes_alone_and_a_change_of_it_counts_at_once(keys: Path) -> None:
    clock = FakeClock()
    secret = add_key(keys, "alice", user='o"\\neill\x7f\u2603')
    assert secret not in keys.read_text("utf-8") and stat.S_IMODE(keys.stat().st_mode) == 0o600
    ring = Keys(keys, clock=clock)
    alice = ring.principal(secret)
    assert alice is not None and (alice.name, alice.user) == ("alice", 'o"\\neill\x7f\u2603')
    other = add_key(keys, "bob")
    clock.advance(2)
    assert ring.principal(other) is not None and ring.principal("x") is None
    assert revoke_key(keys, "alice") and not revoke_key(keys, "alice")
    clock.advance(2)
    assert ring.principal(secret) is None and ring.principal(other) is not None
    keys.write_text("nonsense", "utf-8")
    clock.advance(2)
    assert ring.principal(other) is not None  # as it was


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1", "more than"),
        ("[keys.a]", "sha256"),
        ('[keys.a]\nsha256 = "00"', "sha256"),
        ('[keys."a b"]\nsha256 = "' + "0" * 64 + '"', "letters"),
        ('[keys.a]\nsha256 = "' + "0" * 64 + '"\nuser = ""', "user"),
        ('[keys.a]\nsha256 = "' + "0" * 64 + '"\nadmin = true', "admin"),
        ('[keys.a]\nsha256 = "' + "0" * 64 + '"\nmodels = "x"', "models"),
        ('[keys.a]\nsha256 = "' + "0" * 64 + '"\nrun_budget = "lots"', "run_budget"),
        ("[keys.a]\nsha256 = '" + "0" * 64 + "'\n[keys.b]\nsha256 = '" + "0" * 64 + "'", "same key"),
        ("[[", "TOML"),
        ("a = " + "[" * 100_000, "TOML"),
    ],
)
def test_a_file_of_keys_that_makes_no_sense_is_refused_with_its_reason(keys: Path, text: str, told: str) -> None:
    keys.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=told):
        read_keys(keys)


def test_names_of_any_kind_are_kept_in_the_file(keys: Path) -> None:
    odd = ("\U0001f600", 'x"]\n[keys.admin]', "\x00\x1f\x7f\x85\u2028\u202e", "a\\u0041", "\r\n\t#")
    for n, user in enumerate(odd):
        add_key(keys, f"k{n}", user=user, models=[user])
        assert read_keys(keys)[f"k{n}"]["user"] == read_keys(keys)[f"k{n}"]["models"][0] == user
    with pytest.raises(ValueError, match="user must be a text"):
        add_key(keys, "half", user="half \ud83d")
    assert len(read_keys(keys)) == 5


def test_many_who_change_the_file_at_once_take_back_nothing_of_each_other(keys: Path) -> None:
    for n in range(20):
        add_key(keys, f"old{n}")

    def change(n: int) -> None:
        add_key(keys, f"new{n}")
        assert revoke_key(keys, f"old{n}")

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(change, range(20)))
    assert sorted(read_keys(keys)) == sorted(f"new{n}" for n in range(20))


def test_a_name_is_given_once(keys: Path) -> None:
    add_key(keys, "alice")
    with pytest.raises(ValueError, match="there already"):
        add_key(keys, "alice")
    with pytest.raises(ValueError, match="letters"):
        add_key(keys, "a/b")


def test_a_key_under_no_ceiling_is_refused_at_the_start(provider: LocalProvider, keys: Path) -> None:
    add_key(keys, "alice")
    with (
        pytest.raises(ValueError, match="under none of the ceilings"),
        gateway(provider, keys=str(keys), ceilings={"user": Budget("$1")}),
    ):
        pass


# Names, pages, runs, paths


def test_a_page_cannot_have_a_browser_ask(asking: Asking) -> None:
    path, body = asked("chat")
    page = {**TOKEN, "origin": "https://evil.example"}
    assert refusal(asking.http.post(path, json=body, headers=page)) == (403, "browser_refused")
    rebound = {**TOKEN, "host": "evil.example:4000"}
    assert refusal(asking.http.post(path, json=body, headers=rebound)) == (421, "misdirected_request")
    for host in ("localhost", "127.0.0.1:80", "[::1]:4000", "LOCALHOST:1"):
        assert asking.http.post(path, json=body, headers={**TOKEN, "host": host}).status_code == 200


def test_a_page_that_is_named_may(provider: LocalProvider) -> None:
    with gateway(provider, allowed_origins=["https://app.example"], allowed_hosts=["gw.internal"]) as asking:
        path, body = asked("chat")
        headers = {**TOKEN, "origin": "https://app.example", "host": "gw.internal"}
        answer = asking.http.post(path, json=body, headers=headers)
        assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == "https://app.example"
        assert (answer.headers["access-control-expose-headers"], answer.headers["vary"]) == ("*", "origin")
        refused = asking.http.post(path, json={**body, "model": "unknown"}, headers=headers)
        assert refused.status_code == 422  # which a page may read as well
        assert refused.headers["access-control-allow-origin"] == "https://app.example"


def test_a_browser_that_asks_for_a_page_beforehand_is_told_without_a_key(provider: LocalProvider) -> None:
    asks = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-run-id",
        "access-control-request-private-network": "true",
    }
    path = "/v1/chat/completions"
    with gateway(provider, allowed_origins=["https://app.example"]) as asking:
        told = asking.http.options(path, headers={**asks, "origin": "https://app.example"})
        assert told.status_code == 200 and told.content == b""
        assert {name: value for name, value in told.headers.items() if name.startswith("access-control-")} == {
            "access-control-allow-origin": "https://app.example",
            "access-control-allow-methods": "POST",
            "access-control-allow-headers": "authorization,content-type,x-run-id",
            "access-control-allow-private-network": "true",
            "access-control-expose-headers": "*",
            "access-control-max-age": "600",
        }
        for origin in ("https://evil.example", "https://app.example.evil.example", "null"):
            other = asking.http.options(path, headers={**asks, "origin": origin})
            assert refusal(other) == (403, "browser_refused")
            assert "access-control-allow-origin" not in other.headers
        assert asking.http.options(path, headers=asks).status_code == 401  # no browser
    assert provider.calls == []


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_provider_says_to_browsers_is_not_said_twice(stream: bool) -> None:
    async def upstream(scope: Any, receive: Any, sending: Any) -> None:
        said = [(b"Access-Control-Allow-Origin", b"*"), (b"access-control-allow-credentials", b"true")]
        kind = (b"content-type", b"text/event-stream" if stream else b"application/json")
        await receive()
        await sending({"type": "http.response.start", "status": 200, "headers": [*said, kind]})
        await sending({"type": "http.response.body", "body": b"{}"})

    path, body = asked("chat", stream=stream)
    with serving(upstream, lifespan="off") as server:
        named = [Upstream(name="openai", url=server.url)]
        with gateway(None, upstreams=named, allowed_origins=["https://app.example"]) as asking:
            page = asking.http.post(path, json=body, headers={**TOKEN, "origin": "https://app.example"})
            assert page.headers.get_list("access-control-allow-origin") == ["https://app.example"]
            assert "access-control-allow-credentials" not in page.headers
            other = asking.http.post(path, json=body, headers=TOKEN)
            assert other.headers["access-control-allow-origin"] == "*"  # no browser asks: it is as the provider said


@pytest.mark.parametrize("run", ["../../x", "a b", "", "x" * 129, "a/b", "caf\u00e9", "a..b", "-a"])
def test_a_run_id_that_is_no_name_is_refused(asking: Asking, run: str) -> None:
    path, body = asked("chat")
    headers = [(b"authorization", b"Bearer k"), (b"x-run-id", run.encode("utf-8"))]
    assert refusal(asking.http.post(path, json=body, headers=headers)) == (400, "invalid_run_id")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/files"),
        ("POST", "/v1/images/generations"),
        ("POST", "/v1/batches"),
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/v1/models/ft:1"),
        ("GET", "/v1/files"),
        ("GET", "/v1/chat/completions"),
        ("POST", "/v1/moderations"),
        ("POST", "/v1/chat/completions/x"),
        ("POST", "/v1/threads/t1/v1/chat/completions"),
        ("POST", "/v1//chat/completions"),
        ("POST", "/v1/%2e%2e/v1/chat/completions"),
        ("POST", "/"),
        ("POST", "/v1beta/models/dime:embedContent"),
    ],
)
def test_what_is_not_known_is_sent_to_nobody(asking: Asking, provider: LocalProvider, method: str, path: str) -> None:
    answer = asking.http.request(method, path, json={"model": "dime"}, headers=TOKEN)
    assert refusal(answer) == (501, "not_metered")
    assert provider.calls == []


def test_what_is_free_or_let_through_passes_unheld() -> None:
    paths: list[str] = []

    async def provider(scope: Any, receive: Any, send: Any) -> None:
        paths.append(f"{scope['method']} {scope['path']}")
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"x/y")]})
        await send({"type": "http.response.body", "body": b"{}"})

    from tests.integrations.gateway.support import serving

    with serving(provider, lifespan="off") as server:
        upstreams = [Upstream(name=name, url=server.url) for name in ("openai", "anthropic")]
        with gateway(None, upstreams=upstreams, passthrough=["POST /v1/moderations"]) as asking:
            for method, path in (
                ("GET", "/v1/models"),
                ("GET", "/v1/models/gpt-4o"),
                ("POST", "/v1/messages/count_tokens"),
                ("POST", "/v1/moderations"),
            ):
                assert asking.http.request(method, path, json={}, headers=TOKEN).text == "{}"
            assert asking.http.get("/v1/models").status_code == 401
            assert len(asking.gateway.runs) == 0
    assert paths == [
        "GET /v1/models",
        "GET /v1/models/gpt-4o",
        "POST /v1/messages/count_tokens",
        "POST /v1/moderations",
    ]


def test_a_request_goes_to_who_speaks_its_dialect_or_whom_its_path_names() -> None:
    openai, anthropic = (
        Upstream(name="openai", url="https://api.openai.com"),
        Upstream(name="anthropic", url="https://a"),
    )
    groq = Upstream(name="groq", url="https://api.groq.com/openai", key="k")
    router = Router([anthropic, groq, openai])

    def found(path: str, query: str = "") -> tuple[str | None, str, str | None]:
        route = router.route("POST", path, query)
        named = None if route.upstream is None else route.upstream.name
        return named, route.path, None if route.dialect is None else route.dialect.name

    assert found("/v1/chat/completions") == ("openai", "/v1/chat/completions", "chat completions")
    assert found("/v1/messages")[0] == "anthropic" and found("/v1/responses")[0] == "openai"
    assert found("/groq/v1/chat/completions")[:2] == ("groq", "/openai/v1/chat/completions")
    assert found("/v1beta/models/m:generateContent") == (
        None,
        "/v1beta/models/m:generateContent",
        "generateContent",
    )
    assert router.route("POST", "/groq/v1/chat/completions", "").credential == ("authorization", "Bearer k")
    assert router.route("POST", "/groq/v1/chat/completions", "").endpoint.provider == "groq"
    only = Router([Upstream(name="vllm", url="http://localhost:8000")]).route("POST", "/v1/chat/completions", "")
    assert only.upstream is not None and only.upstream.name == "vllm" and only.endpoint.provider is None


def test_a_dialect_that_nobody_here_speaks_is_told_so(provider: LocalProvider) -> None:
    upstreams = [Upstream(name=name, url=provider.root_url) for name in ("anthropic", "groq")]
    with gateway(provider, upstreams=upstreams) as asking:
        assert refusal(asking.ask("google")) == (404, "not_found")


# Requests that are none


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'"x"', b"null", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(asking: Asking, provider: LocalProvider, body: bytes) -> None:
    answer = asking.http.post("/v1/chat/completions", content=body, headers={**TOKEN, "x-run-id": "r1"})
    assert refusal(answer) == (400, "invalid_request")
    assert asking.booked() == ("0", "0") and provider.calls == []


def test_unknown_models_and_what_has_no_bound_are_refused(asking: Asking, provider: LocalProvider) -> None:
    unknown = asking.ask(model="gpt-4oo")
    assert refusal(unknown) == (422, "unknown_price") and "gpt-4o" in unknown.json()["suggestions"]
    later = asking.ask("responses", background=True)
    assert refusal(later) == (422, "unbounded_call")
    content = [{"role": "user", "content": [{"type": "hologram", "data": "x"}]}]
    assert refusal(asking.ask(messages=content)) == (422, "unbounded_call")
    assert provider.calls == [] and asking.booked() == ("0", "0")


def test_what_is_too_large_or_compressed_is_refused(provider: LocalProvider) -> None:
    with gateway(provider, max_body=1_000) as asking:
        assert refusal(asking.ask(messages=[{"role": "user", "content": "x" * 1_000}])) == (413, "too_large")
        chunks = (b"x" * 100 for _ in range(20))
        assert refusal(asking.http.post("/v1/chat/completions", content=chunks, headers=TOKEN)) == (413, "too_large")
        packed = asking.http.post("/v1/chat/completions", content=b"x", headers={**TOKEN, "content-encoding": "gzip"})
        assert refusal(packed) == (415, "unsupported_encoding")


def test_no_more_requests_at_once_than_are_taken(provider: LocalProvider) -> None:
    with gateway(provider, max_concurrency=1) as asking:
        provider.pause()
        from tests.integrations.gateway.test_gone import send

        first = send(asking)
        provider.wait_for_calls(1)
        busy = asking.ask()
        assert (busy.status_code, busy.json()["code"]) == (503, "busy") and "retry-after" in busy.headers
        assert asking.http.get("/health/live").status_code == 200
        provider.resume()
        assert b"200 OK" in first.recv(4_096)
        first.close()


def raw(asking: Asking, data: bytes) -> bytes:
    host, _, port = asking.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.settimeout(10)
        found = b""
        try:
            connection.sendall(data)
            while more := connection.recv(65_536):
                found += more
        except (ConnectionResetError, BrokenPipeError, TimeoutError):
            pass
        return found


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/budget/decisions"])
@pytest.mark.parametrize("begun", [b"", b"{"])
def test_a_body_that_never_comes_to_its_end_keeps_no_place(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch, path: str, begun: bytes
) -> None:
    monkeypatch.setattr(messages, "_BODY_WITHIN_S", 0.1)
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer k\r\ncontent-length: 50\r\n\r\n"
    with gateway(provider, max_concurrency=1) as asking:
        answer = raw(asking, head.encode() + begun)  # to the end: the connection is closed
        assert answer.startswith(b"HTTP/1.1 400 ") and b"within 0.1 seconds" in answer
        assert asking.ask().status_code == 200


def test_two_lengths_are_two_requests_and_none_is_served(asking: Asking, provider: LocalProvider) -> None:
    body = json.dumps(asked("chat")[1]).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer k\r\nconnection: close\r\n"
    for lengths in (
        b"content-length: %d\r\ncontent-length: 1\r\n" % len(body),
        b"content-length: %d\r\ntransfer-encoding: chunked\r\n" % len(body),
    ):
        answer = raw(asking, head + lengths + b"\r\n" + body)
        assert answer.split(b" ")[1:2] in ([b"400"], []), answer
    twice = raw(asking, head + b"authorization: Bearer other\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    assert b" 400 " in twice and b"more than once" in twice
    assert provider.calls == []


def test_a_head_without_an_end_is_cut_off(asking: Asking) -> None:
    endless = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 10_000_000
    assert b" 431 " in raw(asking, endless) or b" 400 " in raw(asking, endless) or raw(asking, endless) == b""
    long = {**TOKEN, "x-long": "a" * 30_000}
    assert asking.http.post(*asked("chat")[:1], json=asked("chat")[1], headers=long).status_code == 200


def test_neither_keys_nor_prompts_are_logged(asking: Asking, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for fields in ({}, {"max_tokens": 999}, {"model": "nope"}):
            asking.ask(token="s3cret-key", messages=[{"role": "user", "content": "s3cret-prompt"}], **fields)
        asking.http.post("/v1/files?key=s3cret-query", json={})
    ours = [record.getMessage() for record in caplog.records if record.name in ("budget_guard", "uvicorn.error")]
    assert ours and "s3cret" not in "".join(ours)


# Settings


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"upstreams": []}, "no upstream"),
        ({"workers": 2}, "ledger in memory"),
        ({"leases": True}, "shared"),
        ({"host": "0.0.0.0"}, "without keys"),
        ({"host": "::"}, "without keys"),
        ({"workers": 0}, "workers"),
        ({"exceeded_status": 200}, "exceeded_status"),
        ({"on_disconnect": "x"}, "on_disconnect"),
        ({"max_body": 0}, "max_body"),
        ({"allowed_origins": ["*"]}, "allowed_origins"),
        ({"allowed_origins": ["https://app.example/"]}, "without a path"),
        ({"allowed_origins": ["https://App.example"]}, "small letters"),
        ({"upstreams": [Upstream(name="a", url="http://a"), Upstream(name="a", url="http://b")]}, "same name"),
    ],
)
def test_settings_that_cannot_be_held_are_refused(settings: dict[str, Any], told: str) -> None:
    given = {
        "run_budget": Budget("$1"),
        "upstreams": [Upstream(name="openai", url="https://api.openai.com")],
        **settings,
    }
    with pytest.raises(ValueError, match=told):
        GatewaySettings(**given)


@pytest.mark.parametrize(
    "text",
    ["openai", "OpenAI=https://a", "v1=https://a", "a=ftp://a", "a=https://u:p@a", "a=https://a?x=1", "a=https://"],
)
def test_an_upstream_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="upstream"):
        upstream_of(text)


def test_the_key_of_an_upstream_is_in_the_environment_and_in_no_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROQ_API_KEY", "gsk-1")
    groq = upstream_of("groq=https://api.groq.com/openai")
    assert groq.key == "gsk-1" and "gsk-1" not in repr(groq)
    assert groq.provider == "groq" and groq.base_path == "/openai" and groq.origin == "https://api.groq.com"
    assert Upstream(name="anthropic", url="http://x", key="k").credential == ("x-api-key", "k")
    assert Upstream(name="google", url="http://x", key="k").credential == ("x-goog-api-key", "k")
    assert Upstream(name="azure", url="http://x", key="k").credential == ("api-key", "k")


def typed(*arguments: str) -> GatewaySettings:
    import argparse

    from budget_guard_gateway.command import add_commands

    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    required = ["serve", "--run-budget", "$5", "--upstream", "openai=https://api.openai.com"]
    return settings_of(parser.parse_args([*required, *arguments]))


def test_what_is_typed_becomes_settings() -> None:
    found = typed(
        *("--ceiling", "user=$20/day", "--ceiling", "team=$300", "--price", "m=2.5,10", "--model", "prod=gpt-4o"),
        *("--max-live-runs", "key=3", "--max-output-tokens", "4000", "--mode", "soft_gate", "--downgrade", "a=b"),
        *("--alternative", "b", "--alternative", "c"),
    )
    assert found.alternatives == ["b", "c"]
    assert found.ceilings == {"user": Budget("$20", window="day"), "team": Budget("$300")}
    assert found.per_million == {"m": (2.5, 10)} and found.models == {"prod": "gpt-4o"}
    assert found.max_live_runs == {"key": 3}
    assert (found.run_budget.call_max_output_tokens, found.run_budget.clamp_output) == (4_000, "never")
    few = typed("--ceiling", "user=$20/day,max_runs=100,mode=advisory_estimate", "--ceiling", "key=max_runs=5/hour")
    assert few.ceilings == {
        "user": Budget("$20", window="day", max_runs=100, mode="advisory_estimate"),
        "key": Budget(max_runs=5, window="hour"),
    }
    soft = typed("--mode", "soft_gate", "--soft-margin", "$0.25").run_budget
    assert soft == Budget("$5", mode="soft_gate", soft_margin_usd="0.25")
    assert typed("--clamp-output", "reject").run_budget == Budget("$5", clamp_output="reject")
    assert typed().run_budget == Budget("$5") and typed().host == "127.0.0.1"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--ceiling", "user"),
        ("--ceiling", "user=$1/fortnight"),
        ("--ceiling", "user=$1,runs=3"),
        ("--ceiling", "user=$1,max_runs=x"),
        ("--price", "m=1"),
        ("--max-live-runs", "key=x"),
    ],
)
def test_what_is_mistyped_is_told(arguments: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=arguments[0]):
        typed(*arguments)


def test_keys_are_made_listed_and_revoked_by_commands(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = ["--keys", str(keys)]
    assert main(["key", "add", "alice", "--user", "u1", "--model", "gpt-4o*", *file]) == 0
    secret = capsys.readouterr().out.strip()
    alice = Keys(keys).principal(secret)
    assert alice is not None and alice.user == "u1" and alice.may_use("gpt-4o-mini") and not alice.may_use("o3")
    assert main(["key", "list", *file]) == 0
    listed = capsys.readouterr().out
    assert listed.startswith("alice user=u1") and "sha256" not in listed
    assert main(["key", "revoke", "alice", *file]) == 0 and main(["key", "revoke", "alice", *file]) == 1
    assert main(["key", "add", "a b", *file]) == 2
    assert "letters" in capsys.readouterr().err


def test_a_cheaper_model_without_a_price_is_told_at_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["serve", "--run-budget", "$5", "--upstream", "openai=https://a", "--downgrade", "gpt-4o=nope-9"]
    assert main(arguments) == 2
    assert "nope-9" in capsys.readouterr().err


def test_the_command_line_of_the_library_has_the_commands_too(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from budget_guard.cli.main import main as budget_guard

    assert budget_guard(["key", "add", "alice", "--keys", str(keys)]) == 0
    assert Keys(keys).principal(capsys.readouterr().out.strip()) is not None
    assert budget_guard(["serve", "--run-budget", "$5"]) == 2
    assert capsys.readouterr().err.startswith("budget-guard: no upstream is named")
    with pytest.raises(SystemExit):
        budget_guard(["serve", "--help"])
    assert "--run-budget" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("--grace", "nan", "such as 30"),
        ("--grace", "inf", "such as 30"),
        ("--grace", "-1", "such as 30"),
        ("--decisions-kept", "nan", "days above 0"),
        ("--decisions-kept", "inf", "days above 0"),
        ("--decisions-kept", "0", "days above 0"),
        ("--port", "65536", "0 for a free one"),
        ("--port", "-1", "0 for a free one"),
    ],
)
def test_a_number_that_no_server_can_take_is_told_with_one_that_it_can(name: str, value: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as told:
        typed(name, value)
    assert value.lstrip("-") in str(told.value)
    assert name.lstrip("-").replace("-", "_") in str(told.value)


def test_a_host_that_is_no_address_is_told(keys: Path) -> None:
    add_key(keys, "alice")
    with pytest.raises(ValueError, match=r"host='gw\.example' is no address to listen at: use one such as"):
        typed("--host", "gw.example", "--keys", str(keys))
    assert typed("--host", "::1").host == "::1"
    assert typed("--host", "localhost").host == "localhost"


def test_a_key_that_no_ceiling_holds_is_not_taken_while_it_serves_either(
    provider: LocalProvider, keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    alice, bob = add_key(keys, "alice", user="u1"), add_key(keys, "bob", user="u2")
    settings = GatewaySettings(
        run_budget=Budget("$1"),
        keys=str(keys),
        ceilings={"user": Budget("$5")},
        upstreams=[Upstream(name="openai", url=provider.root_url)],
    )
    found = keys_of(settings, clock)
    free = add_key(keys, "free")
    revoke_key(keys, "bob")
    clock.advance(2)

    assert found.principal(free) is None
    assert found.principal(bob) is None  # whom the new one does not keep from being revoked
    assert found.principal(alice) is not None
    assert [each.name for each in found.all()] == ["alice"]
    assert "the key 'free' is under none of the ceilings: give it a user" in caplog.text
    assert free not in caplog.text


def test_a_file_of_keys_that_cannot_be_read_is_told_of_once(keys: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    alice = add_key(keys, "alice")
    found, whole = Keys(keys, clock=clock), keys.read_text("utf-8")

    def looked() -> int:
        clock.advance(2)
        assert found.principal(alice) is not None
        return caplog.text.count("the keys are as they were")

    keys.write_text(whole[:-20], "utf-8")
    assert [looked() for _ in range(3)] == [1, 1, 1]
    keys.unlink()
    assert [looked() for _ in range(2)] == [2, 2]
    keys.write_text("", "utf-8")
    clock.advance(2)
    assert found.principal(alice) is None


def test_without_keys_a_ceiling_of_teams_alone_would_hold_nobody() -> None:
    upstreams = [Upstream(name="openai", url="http://127.0.0.1:9")]
    settings = GatewaySettings(run_budget=Budget("$1"), ceilings={"team": Budget("$5")}, upstreams=upstreams)
    with pytest.raises(ValueError, match="a ceiling of team alone holds nobody here"):
        keys_of(settings)
    both = GatewaySettings(
        run_budget=Budget("$1"), ceilings={"team": Budget("$5"), "key": Budget("$5")}, upstreams=upstreams
    )
    assert keys_of(both).all() == []


def test_a_key_may_use_no_deployment_of_another_model(provider: LocalProvider, keys: Path) -> None:
    """The address counts there: what the body says of the model is passed over."""
    cheap = add_key(keys, "one", user="u1", models=["cheap"])
    path = "/azure/openai/deployments/{}/chat/completions?api-version=2024-10-21"
    _, body = asked("chat", model="cheap")
    headers = {"authorization": f"Bearer {cheap}"}
    upstreams = [Upstream(name="azure", url=provider.root_url)]
    with gateway(
        None, "$5", keys=str(keys), upstreams=upstreams, models={"ours": "cheap"}, per_million=PRICES
    ) as asking:
        for named in ("dime", "prod"):
            answer = asking.http.post(path.format(named), json=body, headers=headers)
            assert refusal(answer) == (403, "model_not_allowed")
        for named in ("cheap", "ours"):
            assert asking.http.post(path.format(named), json=body, headers=headers).status_code == 200
    assert len(provider.calls) == 2


@pytest.mark.parametrize("path", ["/v1beta/tunedModels/dime", "/v1/projects/p/locations/l/endpoints/dime"])
def test_googles_models_of_ones_own_are_held_too(path: str) -> None:
    router = Router([Upstream(name="google", url="http://127.0.0.1:9")])
    for verb in ("generateContent", "streamGenerateContent"):
        route = router.route("POST", f"{path}:{verb}", "")
        assert route.dialect is GENERATE_CONTENT
    assert router.route("POST", f"{path}:predict", "").dialect is None
