"""The body of an answer is read as it passes by: what comes out is what came in, and every way out of it settles."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

pytest.importorskip("agents")

from openai import OpenAIError

from budget_guard import Session, UnboundedCallError
from budget_guard.adapter import GuardedCall, Stop, counting
from budget_guard.adapter.attempts import counting_nothing
from budget_guard_openai_agents.look import LookingTransport, _changed, look_at_client
from tests.builders import ZERO, call, session
from tests.integrations.openai_agents.on_the_wire import chat_answer, chat_chunks, chat_usage

ASKED = {"model": "large", "max_tokens": 5_000, "messages": [{"role": "user", "content": "Hi"}]}
ANSWER = json.dumps(chat_answer(chat_usage(10, 5), model="large")).encode()
BILLED = Decimal("0.00006")  # ten tokens in at $1 a million, five out at $10


class Body(httpx.AsyncByteStream):
    """What a provider sends, piece by piece, and how that ends."""

    def __init__(self, *pieces: bytes | BaseException) -> None:
        self._pieces = pieces
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    async def aclose(self) -> None:
        self.closed = True


async def answered(run: Session, body: Body, encoding: str = "", *, stream: bool = False) -> httpx.Response:
    """The answer to a request for which a layer above holds 500 tokens in and 5,000 out."""
    headers = {"content-type": "text/event-stream" if stream else "application/json"}
    if encoding:
        headers["content-encoding"] = encoding
    transport = LookingTransport(httpx.MockTransport(lambda _: httpx.Response(200, headers=headers, stream=body)))
    above = GuardedCall([run])
    assert above.hold(call("large", tokens=500, cap=5_000)) is None
    request = httpx.Request("POST", "https://api.openai.com/v1/chat/completions", json={**ASKED, "stream": stream})
    with counting_nothing(), counting(above):  # and whatever another test has left open
        response: httpx.Response = await transport.handle_async_request(request)
    assert isinstance(response.stream, httpx.AsyncByteStream) and not isinstance(response.stream, Body)
    return response


async def read(response: httpx.Response) -> list[bytes]:
    stream: Any = response.stream
    return [data async for data in stream]


def halves(data: bytes) -> Sequence[bytes]:
    return data[: len(data) // 2], data[len(data) // 2 :]


@pytest.mark.parametrize(
    ("encoding", "sent", "told"),
    [
        ("", ANSWER, True),
        (" Identity ", ANSWER, True),
        ("gzip", gzip.compress(ANSWER), True),
        ("deflate", zlib.compress(ANSWER), True),
        ("br", ANSWER, False),
        ("gzip, br", gzip.compress(ANSWER), False),
        ("gzip", ANSWER, False),
        ("gzip", gzip.compress(ANSWER)[:-20] + b"x" * 20, False),
    ],
    ids=["plain", "identity", "gzip", "deflate", "unknown", "two codings", "no gzip", "broken gzip"],
)
async def test_a_body_is_passed_on_as_it_came_and_booked_by_what_can_be_read_of_it(
    encoding: str, sent: bytes, told: bool
) -> None:
    run = session()
    body = Body(*halves(sent))
    response = await answered(run, body, encoding)
    held = run.reserved_usd
    assert await read(response) == list(halves(sent))
    assert (run.spent_usd, run.reserved_usd) == (BILLED if told else held, ZERO)
    await response.aclose()
    assert body.closed and run.spent_usd == (BILLED if told else held)


async def test_proxies_of_a_client_are_looked_at_once_and_what_is_none_stays_none() -> None:
    proxy, plain = (
        httpx.MockTransport(lambda _: httpx.Response(200)),
        httpx.MockTransport(lambda _: httpx.Response(200)),
    )
    async with httpx.AsyncClient(transport=plain, mounts={"https://": proxy, "all://localhost": None}) as http:
        client = SimpleNamespace(_client=http)
        look_at_client(client)
        mounts: dict[str, Any] = {pattern.pattern: mounted for pattern, mounted in http._mounts.items()}
        assert mounts["all://localhost"] is None
        assert type(mounts["https://"]) is LookingTransport and mounts["https://"]._inner is proxy
        look_at_client(client)
        assert list(http._mounts.values()) == list(mounts.values())


async def test_it_stands_for_the_transport_that_sends() -> None:
    entered: list[str] = []

    class Inner(httpx.MockTransport):
        colour = "green"

        async def __aenter__(self) -> Inner:
            entered.append("in")
            return self

        async def __aexit__(self, *raised: Any) -> None:
            entered.append(f"out with {len(raised)}")

        async def aclose(self) -> None:
            entered.append("closed")

    transport: Any = LookingTransport(Inner(lambda _: httpx.Response(200)))
    async with transport as itself:
        assert itself is transport and transport.colour == "green"
    await transport.aclose()
    assert entered == ["in", "out with 3", "closed"]
    with pytest.raises(AttributeError, match="shape"):
        _ = transport.shape


class Above(GuardedCall):
    """A model's call, which is told why a request was not sent."""

    __slots__ = ("stops",)

    def __init__(self, run: Session) -> None:
        super().__init__([run])
        self.stops: list[Stop] = []

    def note_refusal(self, stop: Stop) -> None:
        self.stops.append(stop)


@pytest.mark.parametrize(
    "content", [b"<html>", json.dumps({**ASKED, "background": True}).encode()], ids=["unreadable", "in the background"]
)
async def test_a_request_that_cannot_be_held_is_not_sent_and_its_model_is_told_why(content: bytes) -> None:
    sent: list[Any] = []

    def send(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200)

    transport = LookingTransport(httpx.MockTransport(send))
    run = session()
    above = Above(run)
    assert above.hold(call("large", tokens=500, cap=5_000)) is None
    request = httpx.Request("POST", "https://api.openai.com/v1/chat/completions", content=content)
    with counting_nothing(), counting(above), pytest.raises(UnboundedCallError) as raised:
        await transport.handle_async_request(request)
    assert isinstance(raised.value, OpenAIError) and sent == []
    (stop,) = above.stops
    assert isinstance(stop.error, UnboundedCallError) and stop.session is run


def test_a_request_that_is_changed_goes_where_its_model_is() -> None:
    request = httpx.Request(
        "POST", "https://me.azure.com/deployments/big/chat?v=1", content=b"{}", headers={"x-id": "7"}
    )
    for path in ("/deployments/small/chat?v=1", "/deployments/big/chat?v=1"):
        attempt: Any = SimpleNamespace(path=path, body=b'{"a": 1}')
        changed = _changed(request, attempt, "/deployments/big/chat?v=1")
        assert str(changed.url) == f"https://me.azure.com{path}"
        assert (changed.method, changed.content, changed.headers["content-length"]) == ("POST", attempt.body, "8")
        assert changed.headers["x-id"] == "7"


@pytest.mark.parametrize("on_cancel", ["bound", "seen"])
async def test_a_body_that_is_closed_before_its_end_is_settled_then(on_cancel: Any) -> None:
    run = session(on_cancel=on_cancel)
    events = [
        f"data: {json.dumps(event)}\n\n".encode() for event in chat_chunks(None, "word " * 40, model="large")[:-2]
    ]
    body = Body(*events)
    response = await answered(run, body, stream=True)
    held = run.reserved_usd
    pieces = aiter(response.stream)  # type: ignore[arg-type]  # of its two kinds the one for async code
    assert [await anext(pieces) for _ in events] == events
    assert run.reserved_usd == held and not body.closed
    await response.aclose()
    assert body.closed and run.reserved_usd == 0
    assert ZERO < run.spent_usd < held / 5 if on_cancel == "seen" else run.spent_usd == held


async def test_a_body_that_breaks_off_is_booked_as_held_and_raises_what_it_raised() -> None:
    run = session()
    error = httpx.ReadError("gone")
    response = await answered(run, Body(ANSWER[:9], error))
    held = run.reserved_usd
    with pytest.raises(httpx.ReadError) as raised:
        await read(response)
    assert raised.value is error
    assert (run.spent_usd, run.reserved_usd) == (held, ZERO)


async def test_a_connection_that_fails_to_close_is_settled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    run = session()
    body = Body(ANSWER)
    response = await answered(run, body)

    async def failing() -> None:
        raise OSError("it is gone")

    monkeypatch.setattr(body, "aclose", failing)
    with suppress(OSError):
        await response.aclose()
    assert run.reserved_usd == 0 and run.spent_usd > 0
