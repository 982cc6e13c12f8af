"""The body of an answer is read as it passes by: what comes out is what came in, and every way out of it settles."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any

import httpx
import pytest

pytest.importorskip("agents")

from budget_guard import Session
from budget_guard.adapter import GuardedCall, counting
from budget_guard.adapter.attempts import counting_nothing
from budget_guard_openai_agents.look import LookingTransport
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
