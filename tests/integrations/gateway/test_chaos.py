"""Providers that break off, hang or talk nonsense, clients that hang up, and secrets that must be in no log."""

from __future__ import annotations

import gzip
import json
import logging
import socket
import socketserver
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import Any

import httpx
import pytest

from budget_guard import Budget
from budget_guard.integrations.gateway import Upstream
from tests.integrations.gateway.support import TOKEN, Asking, asked, gateway
from tests.integrations.gateway.test_gone import send, until

pytest.importorskip("aiohttp")

USAGE: Any = {"prompt_tokens": 5, "completion_tokens": 8, "total_tokens": 13}
"""Eight tokens cost $0.05, of $0.10 that are held."""
WHOLE = json.dumps({"id": "1", "model": "dime", "choices": [{"message": {"content": "é"}}], "usage": USAGE}).encode()
EVENTS = [
    b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"caf\xc3\xa9"},"finish_reason":null}]}\n\n',
    b'data: {"id":"1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\r\n\r\n',
    b'data: {"id":"1","choices":[],"usage":' + json.dumps(USAGE).encode() + b"}\n\n",
    b"data: [DONE]\n\n",
]
JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(WHOLE), WHOLE)
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n" + b"".join(
    [b"%x\r\n%b\r\n" % (len(event), event) for event in (*EVENTS, b"")]
)
PACKED = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n" + gzip.compress(WHOLE)
Answer = Callable[[socket.socket, bytes], None]
"""Answers a request, given its body, and says what it likes."""


class Wild:
    """A provider that answers with bytes, whatever they are, and hangs up."""

    def __init__(self) -> None:
        self.answer: Answer = lambda connection, _: connection.sendall(JSON)
        self.url = ""
        self.hung_up = threading.Semaphore(0)
        """Released each time it has closed a connection. Before, the next request may meet one that is being closed."""

    def says(self, data: bytes) -> None:
        """Answer with *data* from now on, and hang up."""
        self.answer = lambda connection, _: connection.sendall(data)


@contextmanager
def wild_provider(budget: Any = "$1000", **settings: Any) -> Iterator[tuple[Wild, Asking]]:
    wild = Wild()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                length = 0
                while line := self.rfile.readline().strip().lower():
                    if line.startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                wild.answer(self.request, self.rfile.read(length))

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True
        request_queue_size = 200

        def shutdown_request(self, request: Any) -> None:
            super().shutdown_request(request)
            wild.hung_up.release()

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        wild.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            with gateway(None, budget, upstreams=[Upstream(name="openai", url=wild.url)], **settings) as asking:
                yield wild, asking
        finally:
            server.shutdown()


def got(asking: Asking, *, stream: bool = False, run: str = "r1") -> tuple[int, bytes, bool]:
    """The status, the body, and whether it came to its end."""
    path, body = asked("chat", stream=stream, **({"stream_options": {"include_usage": True}} if stream else {}))
    parts: list[bytes] = []
    with asking.http.stream("POST", path, json=body, headers={**TOKEN, "x-run-id": run}) as answer:
        try:
            parts.extend(answer.iter_raw())
        except httpx.TransportError:
            return answer.status_code, b"".join(parts), False
    return answer.status_code, b"".join(parts), True


@pytest.mark.parametrize(("answer", "stream"), [(JSON, False), (SSE, True)], ids=["json", "sse"])
def test_wherever_a_provider_breaks_off_the_bound_is_booked_and_nothing_stays_held(answer: bytes, stream: bool) -> None:
    body = b"".join(EVENTS) if stream else WHOLE
    with wild_provider() as (wild, asking):
        for offset in range(len(answer) + 1):
            wild.says(answer[:offset])
            status, seen, complete = got(asking, stream=stream, run=f"r{offset}")
            spent, held = asking.booked(f"r{offset}")
            told = (stream and EVENTS[2].strip()[:-1] in answer[:offset]) or offset == len(answer)
            # a stream that broke after it told its usage is known, and one that told none is not
            assert held == "0" and Decimal(spent) in (Decimal("0.05"), Decimal("0.1")), offset
            assert Decimal(spent) == Decimal("0.1") or told, offset
            if status == 502:
                assert json.loads(seen)["code"] == "upstream_failed", offset
            else:
                assert status == 200 and body.startswith(seen) and (seen == body or not complete), offset
        assert complete and spent == "0.05"


@pytest.mark.parametrize(
    ("answer", "status", "booked"),
    [
        (b"", 502, "0.1"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", 502, "0.1"),
        (b"\x16\x03\x01\x02\x00" * 100, 502, "0.1"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}", 502, "0.1"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{}", 502, "0.1"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000 + b"\r\n\r\n{}", 502, "0.1"),
        (JSON.replace(b"content-length: %d" % len(WHOLE), b"content-length: 9999"), 502, "0.1"),
        (JSON.replace(b"content-length: %d" % len(WHOLE), b"content-length: 20"), 502, "0.1"),
        (JSON.replace(b"content-length: %d\r\n" % len(WHOLE), b""), 200, "0.05"),
        (JSON.replace(b"application/json", b"text/html"), 200, "0.05"),
        (b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + JSON, 200, "0.05"),
        (JSON.replace(b"content-type", b"x-long: " + b"y" * 40_000 + b"\r\ncontent-type"), 200, "0.05"),
        (JSON.replace(b"content-type", b"x-one-of-many: y\r\n" * 300 + b"content-type"), 200, "0.05"),
        (JSON.replace(b"content-type", b"x-odd: a\x01b\r\ncontent-type"), 200, "0.05"),
        (JSON.replace(b"200 OK", b"101 Switching Protocols"), 502, "0.1"),
        (JSON.replace(b"200 OK", b"600 Odd"), 502, "0.1"),
        (JSON.replace(b"200 OK", b"999 Request Denied"), 502, "0.1"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", 302, "0"),
        (b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", 307, "0"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, "0.1"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 8\r\n\r\nnonsense", 200, "0.1"),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\nplain", 502, "0.1"),
        (PACKED[:-9], 502, "0.1"),
        (PACKED.replace(b"gzip", b"GZip"), 200, "0.05"),
        (JSON.replace(b'"total_tokens": 13', b'"total_tokens": -1'), 200, "0.1"),
    ],
)
def test_whatever_a_provider_answers_is_settled(answer: bytes, status: int, booked: str) -> None:
    with wild_provider() as (wild, asking):
        wild.says(answer)
        assert got(asking)[0] == status
        assert asking.booked() == (booked, "0")
        assert wild.hung_up.acquire(timeout=10)
        wild.says(JSON)
        assert got(asking) == (200, WHOLE, True)  # and nothing of it is taken for the next answer


def test_an_answer_that_is_packed_in_a_way_that_nobody_here_knows_is_passed_on_as_it_is() -> None:
    unreadable = b"\x0b\x02\x80packed\x03"
    with wild_provider() as (wild, asking):
        for n, encoding in enumerate((b"br", b"zstd", b"gzip, br", b"br")):
            kind = b"application/json" if n else b"text/event-stream"
            path, body = asked("chat", stream=not n)
            head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-encoding: %b\r\n\r\n" % (kind, encoding)
            wild.says(head + unreadable)
            with asking.http.stream("POST", path, json=body, headers={**TOKEN, "x-run-id": f"r{n}"}) as answer:
                assert b"".join(answer.iter_raw()) == unreadable
            assert answer.status_code == 200 and answer.headers["content-encoding"] == encoding.decode()
            assert asking.booked(f"r{n}") == ("0.1", "0")  # it is paid for, and nobody can see how much
        for status, booked in ((429, "0"), (500, "0.1"), (503, "0.1")):  # whose is that?
            wild.says(head.replace(b"200 OK", b"%d Odd" % status) + unreadable)
            odd = asking.http.post(path, json=body, headers={**TOKEN, "x-run-id": f"s{status}"})
            assert (odd.status_code, odd.content, odd.headers["content-encoding"]) == (status, unreadable, "br")
            assert asking.booked(f"s{status}") == (booked, "0")
        wild.says(head + unreadable)
        models = asking.http.get("/v1/models", headers=TOKEN)  # httpx shows what it cannot read as it is
        assert (models.content, models.headers["content-encoding"]) == (unreadable, "br")


def test_a_stream_that_is_packed_is_passed_on_unpacked() -> None:
    much = b": " + b"x" * 3_000_000 + b"\n\n"  # which is packed in few bytes
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: deflate\r\n\r\n"
    with wild_provider() as (wild, asking):
        for run, bits in (("r1", 15), ("r2", -15)):  # some servers leave out the header of deflate
            packer = zlib.compressobj(wbits=bits)
            wild.says(head + packer.compress(much + b"".join(EVENTS)) + packer.flush())
            assert got(asking, stream=True, run=run) == (200, much + b"".join(EVENTS), True)
            assert asking.booked(run) == ("0.05", "0")


def test_a_stream_that_falls_silent_is_cut_and_its_bound_is_booked() -> None:
    gone = threading.Event()

    def begins(connection: socket.socket, _: bytes) -> None:
        connection.sendall(SSE[: SSE.index(b"finish_reason")])
        gone.wait(10)

    with wild_provider(read_timeout_s=0.5) as (wild, asking):
        wild.answer = begins
        status, seen, complete = got(asking, stream=True)
        gone.set()
        assert (status, complete) == (200, False) and EVENTS[0].startswith(seen)
        assert asking.booked() == ("0.1", "0")


def test_a_client_that_hangs_up_after_any_piece_leaves_nothing_held() -> None:
    """Where the provider has told the usage by then it may be known; else the bound is booked."""
    with wild_provider() as (wild, asking):
        asking.ask()
        assert wild.hung_up.acquire(timeout=10)
        for pieces in range(len(EVENTS) + 1):
            turn, arrived = threading.Semaphore(0), threading.Event()

            def in_turns(connection: socket.socket, _: bytes, turn: Any = turn, arrived: Any = arrived) -> None:
                arrived.set()
                connection.sendall(SSE[: SSE.index(b"\r\n\r\n") + 4])
                for event in (*EVENTS, b""):
                    turn.acquire(timeout=5)
                    connection.sendall(b"%x\r\n%b\r\n" % (len(event), event))

            wild.answer = in_turns
            before = Decimal(asking.booked()[0])
            connection = send(asking, stream=True, stream_options={"include_usage": True})
            assert arrived.wait(10)
            seen = b""
            for event in EVENTS[:pieces]:
                turn.release()
                while event not in seen:
                    seen += connection.recv(4_096)
            connection.close()
            turn.release(9)
            assert wild.hung_up.acquire(timeout=10)
            until(lambda: asking.booked()[1] == "0" and not any(each.calls for each in asking.gateway.runs.all()))
            assert Decimal(asking.booked()[0]) - before in (Decimal("0.05"), Decimal("0.1")), pieces


def test_secrets_are_in_no_log_at_any_level_whatever_goes_wrong(caplog: pytest.LogCaptureFixture) -> None:
    """Prompts, answers, keys of callers and of providers; with every logger at its most talkative."""
    caplog.set_level(logging.DEBUG)
    for name in ("budget_guard", "uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "aiohttp", "asyncio"):
        caplog.set_level(logging.DEBUG, name)
    secrets = ("SECRET-PROMPT", "SECRET-KEY", "SECRET-ANSWER", "SECRET-HEADER", "SECRET-QUERY")
    answers = [
        JSON.replace(b"\\u00e9", b"SECRET"),
        SSE.replace(b"caf\xc3\xa9", b"SECRE"),
        b"HTTP/1.1 400 Bad\r\ncontent-length: 13\r\n\r\nSECRET-ANSWER",
        b"HTTP/1.1 500 Bad\r\nx-odd: SECRET-HEADER\r\ncontent-length: 13\r\n\r\nSECRET-ANSWER",
        b"HTTP/1.1 200 OK\r\nx-odd: SECRET-HEADER\x01\r\ncontent-length: 13\r\n\r\nSECRET-ANSWER",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nSECRET-ANSWER",
        b"SECRET-ANSWER\r\n\r\n",
        b"",
    ]
    with wild_provider(Budget("$0.55", max_wait_s=0)) as (wild, asking):
        headers = {"authorization": "Bearer SECRET-KEY", "x-run-id": "r1", "x-odd": "SECRET-HEADER"}
        path, body = asked("chat", messages=[{"role": "user", "content": "SECRET-PROMPT"}])
        for answer in (*answers, *answers):
            wild.says(answer)
            for fields in ({}, {"stream": True}, {"messages": "SECRET-PROMPT"}):
                with suppress(httpx.TransportError):
                    asking.http.post(path, json={**body, **fields}, headers=headers)
        for query in ("?key=SECRET-KEY", "?x=SECRET-QUERY"):
            with suppress(httpx.TransportError):
                asking.http.post(path + query, json=body, headers=headers)
        with suppress(httpx.TransportError):
            asking.http.post(path, content=b"SECRET-PROMPT{", headers=headers)
        asking.http.get("/SECRET-QUERY/x", headers={**headers, "host": "SECRET-HEADER"})
        for garbage in (b"SECRET-PROMPT\r\n\r\n", b"POST / HTTP/1.1\r\nSECRET-HEADER\r\n\r\n"):
            host, _, port = asking.url.removeprefix("http://").partition(":")
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(garbage)
                connection.settimeout(5)
                with suppress(OSError):
                    connection.recv(4_096)
        assert asking.booked()[1] == "0"
    of_this_test = ("httpx", "httpcore")
    records = [record for record in caplog.records if not record.name.startswith(of_this_test)]
    logged = "\n".join(f"{record.getMessage()} {record.exc_text} {record.args}" for record in records)
    assert "blocked dime" in logged and not [secret for secret in secrets if secret in logged]
