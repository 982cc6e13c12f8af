"""What is sent past the session of aiohttp is what the session would send, byte for byte, and is answered alike."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import pytest

pytest.importorskip("aiohttp")

import aiohttp
from yarl import URL

from budget_guard.wire.outcome import outcome_of_error
from budget_guard_gateway.direct_request import DirectRequests, direct_requests

PATH = "/v1/odd%2Fpath/%E2%98%83?alt=sse&q=%26"
HEADERS = [
    (b"content-type", b"application/json"),
    (b"user-agent", b"caller/1"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"identity"),
    (b"x-twice", b"a"),
    (b"x-twice", b'b \t; c="d"'),
    (b"x-empty", b""),
]
BODY = '{"text": "caf\u00e9 \U0001f600"}'.encode()
PACKED = gzip.compress(b"packed")
ANSWERS: dict[str, bytes] = {
    "whole": b"HTTP/1.1 200 OK\r\nX-Odd: caf\xc3\xa9\r\nx-odd: 2\r\nContent-Length: 3\r\n\r\nall",
    "chunked": b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nall\r\n6\r\n of it\r\n0\r\n\r\n",
    "nothing": b"HTTP/1.1 204 No Content\r\n\r\n",
    "early": b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "refused": b"HTTP/1.1 429 Too Many\r\nretry-after: 2\r\ncontent-length: 4\r\n\r\nlate",
    "packed": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b" % (len(PACKED), PACKED),
    "closing": b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
    "to the end": b"HTTP/1.0 200 OK\r\n\r\nuntil it is closed",
    "short": b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nall",
    "no end": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nall\r\n",
    "garbage": b"SSH-2.0-OpenSSH\r\n\r\n",
    "no answer": b"",
}
CUT_OFF = ("closing", "to the end", "short", "no end", "no answer")
"""What the provider closes the connection after."""


class Seen(NamedTuple):
    """What came of two requests, one after the other."""

    sent: tuple[bytes, ...]
    connections: int
    got: tuple[Any, ...]


class Provider:
    """Answers each request with the same bytes, and keeps what came."""

    def __init__(self, answer: bytes | None, closes: bool) -> None:
        self._answer, self._closes = answer, closes
        self.sent: list[bytes] = []
        self.connections = 0
        self.gone = asyncio.Event()
        self.serving: list[Any] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.serving.append(asyncio.current_task())
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.sent.append(head + await reader.readexactly(length))
                if self._answer is None:
                    continue
                writer.write(self._answer)
                if self._closes:
                    break
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        self.gone.set()


@asynccontextmanager
async def provider(answer: bytes | None, *, closes: bool = False) -> AsyncGenerator[tuple[Provider, str]]:
    made = Provider(answer, closes)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    async with server:
        yield made, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.gather(*made.serving)  # whose clients have closed their connections


def session(**timeouts: float) -> Any:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, **timeouts))


def requests_of(http: Any) -> DirectRequests:
    found = direct_requests(http)
    assert found is not None, "this version of aiohttp has no direct requests, so that each takes longer"
    return found


async def got(asked: Any) -> Any:
    """What a request gave: the answer as far as the gateway reads it, or the error and what that means."""
    try:
        answer = await asked
        try:
            read = answer.status, tuple(answer.headers.items()), tuple(answer.raw_headers), await answer.read()
        finally:
            answer.close()
    except Exception as error:
        return type(error), outcome_of_error(error)
    return read


async def seen(how: str, *, direct: bool) -> Seen:
    async with provider(ANSWERS[how], closes=how in CUT_OFF) as (there, origin), session() as http:
        url = URL(origin + PATH, encoded=True)
        found: list[Any] = []
        for _ in range(2):
            if direct:
                found.append(await got(requests_of(http).send("POST", url, HEADERS, BODY)))
            else:
                headers = [(name.decode(), value.decode()) for name, value in HEADERS]
                found.append(await got(http.request("POST", url, headers=headers, data=BODY, allow_redirects=False)))
    host = origin.removeprefix("http://").encode()
    return Seen(tuple(each.replace(host, b"host") for each in there.sent), there.connections, tuple(found))


@pytest.mark.parametrize("how", ANSWERS)
def test_a_direct_request_is_the_same_bytes_and_is_answered_alike(how: str) -> None:
    async def both() -> None:
        past, by_session = await seen(how, direct=True), await seen(how, direct=False)
        assert past == by_session
        assert past.sent[0].endswith(b"\r\n\r\n" + BODY) and len(past.sent) == 2
        assert past.connections == (2 if how in (*CUT_OFF, "garbage") else 1)

    asyncio.run(both())


def test_who_cannot_be_reached_is_told_as_ever() -> None:
    async def ask() -> None:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))  # and does not listen
            url = URL.build(scheme="http", host="127.0.0.1", port=nobody.getsockname()[1])
            async with session() as http:
                kind, outcome = await got(requests_of(http).send("POST", url, HEADERS, BODY))
        assert issubclass(kind, aiohttp.ClientConnectorError) and outcome.released

    asyncio.run(ask())


def test_a_provider_that_says_nothing_is_given_up() -> None:
    async def ask() -> None:
        async with provider(None) as (there, origin), session(sock_read=0.02) as http:
            kind, outcome = await got(requests_of(http).send("POST", URL(origin), HEADERS, BODY))
            await there.gone.wait()
        assert issubclass(kind, aiohttp.ServerTimeoutError) and outcome.uncertain

    asyncio.run(ask())


def test_a_connection_that_takes_too_long_is_never_sent_on() -> None:
    class Slow(aiohttp.TCPConnector):
        async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> Any:
            raise asyncio.TimeoutError

    async def ask() -> None:
        async with aiohttp.ClientSession(connector=Slow()) as http:
            kind, outcome = await got(requests_of(http).send("POST", URL("http://127.0.0.1:9"), HEADERS, BODY))
        assert issubclass(kind, aiohttp.ConnectionTimeoutError) and outcome.released

    asyncio.run(ask())


def test_a_cancelled_request_closes_its_connection() -> None:
    async def ask() -> None:
        async with provider(None) as (there, origin), session() as http:
            task = asyncio.ensure_future(requests_of(http).send("POST", URL(origin), HEADERS, BODY))
            while not there.sent:
                await asyncio.sleep(0)
            task.cancel()
            await there.gone.wait()
            assert task.cancelled()

    asyncio.run(ask())


def test_an_answer_that_is_closed_in_the_middle_closes_its_connection() -> None:
    async def ask() -> None:
        async with provider(ANSWERS["no end"]) as (there, origin), session() as http:
            answer = await requests_of(http).send("POST", URL(origin), HEADERS, BODY)
            assert answer is not None and await answer.content.readany() == b"all"
            answer.close()
            await there.gone.wait()

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("headers", "body", "url"),
    [
        (HEADERS, b"x" * 70_000, "http://h/"),
        (HEADERS, b"", "http://h/"),
        ([(b"x-odd", b"a\r\nx-smuggled: b")], BODY, "http://h/"),
        ([(b"x-odd\n", b"a")], BODY, "http://h/"),
        (HEADERS, BODY, "http://user:secret@h/"),
        (HEADERS, BODY, "http://h/\u2603"),
        (HEADERS, BODY, "http://h/a\x7fb"),
    ],
)
def test_what_is_out_of_the_ordinary_is_left_to_the_session(headers: Any, body: bytes, url: str) -> None:
    async def ask() -> None:
        async with session() as http:
            assert await requests_of(http).send("POST", URL(url, encoded=True), headers, body) is None

    asyncio.run(ask())
