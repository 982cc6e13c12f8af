"""What is written past ASGI is what ASGI would write, byte for byte."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from types import MappingProxyType, SimpleNamespace
from typing import Any

import httpx
import pytest

pytest.importorskip("httptools")

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from budget_guard_gateway.bounded_head import BoundedHead
from budget_guard_gateway.direct_answer import DirectAnswer, direct_answer
from budget_guard_gateway.messages import DIRECT_ANSWER, Client
from tests.garbage import left_to_the_collector
from tests.integrations.gateway.support import Asking, serving

HEADERS = [(b"Content-Type", b"text/plain"), (b"x-odd", b'caf\xe9 \t; a="b"'), (b"x-odd", b"")]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers as its path says."""
    client = Client(receive, send, scope.get("extensions", {}).get(DIRECT_ANSWER))
    await client.body(1_000, {})
    if scope["path"] == "/whole":
        await client.answer(200, list(HEADERS), b"all of it")
    elif scope["path"] == "/empty":
        await client.answer(500, list(HEADERS), b"")
    elif scope["path"] == "/closes":
        await client.answer(402, [*HEADERS, (b"connection", b"close")], b"bye")
    elif scope["path"] == "/nothing":
        await client.start(204, [])
        await client.send(b"")
    elif scope["path"] == "/broken":
        await client.answer(200, [(b"x-odd", b"a\r\nx-smuggled: b")], b"never")
    else:
        await client.start(201, list(HEADERS), b"with the head" if scope["path"] == "/begun" else b"")
        await client.send(b"one", more=True)
        await client.send(b"x" * 70_000, more=True)
        await client.send(b"the last" if scope["path"] == "/begun" else b"")


def raw(protocol: Any, request: bytes) -> bytes:
    """All that the server writes for *request* before it closes the connection."""
    with serving(app, http=protocol, lifespan="off") as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(request)
            connection.settimeout(10)
            parts: list[bytes] = []
            while part := connection.recv(65_536):
                parts.append(part)
    return b"".join(parts)


def get(path: str, *more: str, method: str = "GET", version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", "host: h", *more, "", ""]).encode()


@pytest.mark.parametrize(
    "request_",
    [
        get("/whole") + get("/stream") + get("/begun", "connection: close"),
        get("/empty") + get("/closes"),
        get("/nothing") + get("/whole", "connection: close"),
        get("/whole", method="HEAD") + get("/stream", method="HEAD") + get("/whole", "connection: close"),
        get("/whole", version="1.0"),
        get("/broken", "connection: close"),
        get("/whole", "expect: 100-continue", "content-length: 2", "connection: close", method="POST") + b"{}",
    ],
)
def test_a_direct_answer_is_the_same_bytes(request_: bytes) -> None:
    direct = raw(BoundedHead, request_)
    assert direct == raw(HttpToolsProtocol, request_)
    assert b"HTTP/1.1 " in direct
    assert b"smuggled" not in direct  # a header that no server writes is left out, and the answer is not


@pytest.mark.parametrize("path", ["/stream", "/begun"])
@pytest.mark.parametrize("paused", ["", "part", "end"])
def test_a_stream_to_an_older_client_has_no_chunks_whoever_writes_it(
    path: str, paused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a client knows none: it would take what frames them for the answer. nginx asks so, by default."""
    if paused:  # as where the client is slow to read: then ASGI sees to it
        monkeypatch.setattr(DirectAnswer, paused, _not_now(getattr(DirectAnswer, paused)))

    head, _, body = raw(BoundedHead, get(path, "connection: keep-alive", version="1.0")).partition(b"\r\n\r\n")

    begun = path == "/begun"
    assert body == (b"with the head" if begun else b"") + b"one" + b"x" * 70_000 + (b"the last" if begun else b"")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head


def _not_now(verb: Callable[[DirectAnswer, bytes], bool]) -> Callable[[DirectAnswer, bytes], bool]:
    def tried(answer: DirectAnswer, data: bytes) -> bool:
        flow = answer._cycle.flow  # pyright: ignore[reportPrivateUsage]
        flow.pause_writing()
        try:
            return verb(answer, data)
        finally:
            flow.resume_writing()

    return tried


def test_the_server_has_direct_answers() -> None:
    """Where a version of uvicorn has not, each part of an answer goes by ASGI, which takes longer."""
    found: list[Any] = []

    async def looking(scope: Any, receive: Any, send: Any) -> None:
        found.append(scope["extensions"][DIRECT_ANSWER])
        await app(scope, receive, send)

    with serving(looking, http=BoundedHead, lifespan="off") as server:
        assert httpx.get(f"{server.url}/whole").text == "all of it"
    assert found[0] is not None and direct_answer(object()) is None


def test_a_part_waits_where_the_client_is_slow() -> None:
    class Cycle:
        """What uvicorn keeps of a request whose client does not read."""

        response_started = disconnected = response_complete = waiting_for_100_continue = False
        default_headers = ()
        more_body = True
        chunked_encoding = expected_content_length = keep_alive = message_event = on_response = None
        scope = MappingProxyType({"method": "GET", "http_version": "1.1"})
        transport = None

        flow = SimpleNamespace(write_paused=True)

    direct = direct_answer(Cycle())
    assert direct is not None
    assert not direct.whole(200, [], b"x") and not direct.begin(200, [], b"x")
    assert not direct.part(b"x") and not direct.end(b"")
    assert not direct.request_ended  # its body is still to come, and may be waited for in vain
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def answer() -> None:
        client = Client(asyncio.Event().wait, send, direct)  # type: ignore[arg-type]  # nothing is received
        await client.start(200, [], b"x")
        await client.send(b"y", more=True)
        await client.send(b"")

    asyncio.run(answer())
    assert sent == ["http.response.start", *["http.response.body"] * 3]


def test_a_request_leaves_nothing_to_the_garbage_collector(asking: Asking) -> None:
    """Else it has to stop all calls again and again, to look for circles."""
    with left_to_the_collector(RequestResponseCycle) as left:
        for stream in (False, True) * 5:
            assert asking.ask("chat", stream=stream).status_code in (200, 402)
    assert left == set()
