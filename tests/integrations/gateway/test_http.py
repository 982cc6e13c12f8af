"""Requests that are odd as HTTP: what is none is refused with a problem, and what is one is served as what it is."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("httptools")

from budget_guard.testing import LocalProvider
from budget_guard_gateway import bounded_head
from tests.integrations.gateway.support import Asking, asked, gateway

BODY = json.dumps(asked("chat")[1]).encode()
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
KEY = b"authorization: Bearer anybody\r\nx-run-id: r1\r\n"
LENGTH = b"content-length: %d\r\n" % len(BODY)
CHUNKED = b"transfer-encoding: chunked\r\n"
IN_CHUNKS = b"5;a=b\r\n%b\r\n%x\r\n%b\r\n0\r\n" % (BODY[:5], len(BODY) - 5, BODY[5:])
BYE = b"connection: close\r\n"
UPGRADE = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
"""What Java's client begins each connection with."""


@contextmanager
def connected(asking: Asking) -> Iterator[socket.socket]:
    host, _, port = asking.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 60) as connection:
        yield connection


def all_of(connection: socket.socket) -> bytes:
    """What comes until the connection is closed."""
    parts: list[bytes] = []
    try:
        while part := connection.recv(65_536):
            parts.append(part)
    except ConnectionError:  # more was on the way to it
        pass
    return b"".join(parts)


def said(asking: Asking, *requests: bytes) -> bytes:
    with connected(asking) as connection:
        connection.sendall(b"".join(requests))
        return all_of(connection)


NONE = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"CONNECT api.openai.com:443 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    POST.replace(b"POST", b"FOO") + KEY + LENGTH + b"\r\n" + BODY,
    POST + KEY + b"x-folded: a\r\n b\r\n" + LENGTH + b"\r\n" + BODY,
    POST + KEY + b"content-length: +5\r\n\r\n" + BODY,
    POST + KEY + LENGTH + CHUNKED + b"\r\n" + IN_CHUNKS + b"\r\n",
    POST + KEY + CHUNKED + b"\r\n-1\r\n" + BODY,
    POST + KEY + CHUNKED + b"\r\nfffffffffffffffff\r\n" + BODY,
    POST.replace(b"completions", b"completions\xff") + KEY + LENGTH + b"\r\n" + BODY,
]
"""Requests that are none."""


def test_what_is_no_request_is_told_so_in_one_problem(asking: Asking, provider: LocalProvider) -> None:
    for request in NONE:
        head, _, body = said(asking, request).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ") and b"application/problem+json" in head, request
        assert json.loads(body)["code"] == "invalid_request"
    assert provider.calls == []


def test_what_was_asked_before_is_answered_and_then_nothing_more(asking: Asking, provider: LocalProvider) -> None:
    asked_before = POST + KEY + LENGTH + b"\r\n" + BODY
    answers = said(asking, asked_before, asked_before, b"nonsense\r\n\r\n", asked_before)
    assert answers.count(b"HTTP/1.1 200 OK") == answers.count(b"HTTP/1.1 ") == 2
    assert answers.count(b"connection: close\r\n") == 1  # which the last one says
    assert asking.booked() == ("0.2", "0") and provider.bill_usd * 10 == 2


def test_who_would_rather_speak_another_protocol_is_served_in_this_one(asking: Asking, provider: LocalProvider) -> None:
    wanting = POST + KEY + UPGRADE + LENGTH + b"\r\n" + BODY
    last = POST + KEY + UPGRADE + CHUNKED + BYE + b"\r\n" + IN_CHUNKS + b"\r\n"
    for cut in (10, len(wanting) - len(BODY), len(wanting) - 10, len(wanting)):
        with connected(asking) as connection:
            for part in (wanting[:cut], wanting[cut:], last):
                connection.sendall(part)
            answers = all_of(connection)
        assert answers.count(b"HTTP/1.1 200 OK") == answers.count(b"HTTP/1.1 ") == 2
    assert [call.body for call in provider.calls] == [asked("chat")[1]] * 8
    web_socket = b"GET /v1/realtime HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade, close\r\nupgrade: websocket\r\n"
    assert said(asking, web_socket, KEY, b"\r\n").startswith(b"HTTP/1.1 501 ")


def test_what_comes_behind_a_body_is_no_header(asking: Asking, provider: LocalProvider) -> None:
    behind = b"authorization: Bearer another\r\nx-run-id: r2\r\nx-other: a\r\n\r\n"
    answer = said(asking, POST, KEY, CHUNKED, BYE, b"\r\n", IN_CHUNKS, behind)
    assert answer.startswith(b"HTTP/1.1 200 ") and asking.booked() == ("0.1", "0")
    assert "x-other" not in provider.calls[0].headers
    unknown = said(asking, POST, CHUNKED, BYE, b"\r\n", IN_CHUNKS, behind)
    assert unknown.startswith(b"HTTP/1.1 401 ") and len(provider.calls) == 1


def test_what_comes_beside_a_body_has_an_end(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_head, "_MOST_BESIDE", 100)
    for beside in (b"0\r\n" + b"x: yyyyyyyyyyyy\r\n" * 10, b"0\r\nx: " + b"y" * 999, b"1;" + b"y" * 999):
        for key in (KEY, b""):
            with connected(asking) as connection:
                connection.sendall(POST + key + CHUNKED + b"expect: 100-continue\r\n\r\n")
                assert connection.recv(12) == (b"HTTP/1.1 100" if key else b"HTTP/1.1 401")  # it has seen the head
                connection.sendall(beside)
                assert (b"HTTP/1.1 431" in all_of(connection)) is bool(key)  # there is one answer


def test_a_body_is_as_long_as_it_may_be_however_little_may_come_beside_it(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_head, "_MOST_BESIDE", 600_000)  # more than is read at once
    chunk = b"7d0\r\n" + b" " * 2_000 + b"\r\n"
    for framing, spaces, body in (
        (b"content-length: %d\r\n" % (900_000 + len(BODY)), b" " * 900_000, BODY),
        (CHUNKED, chunk * 450, IN_CHUNKS + b"\r\n"),
    ):
        assert said(asking, POST, KEY, BYE, framing, b"\r\n", spaces, body).startswith(b"HTTP/1.1 200 ")


def test_a_body_for_which_nobody_waits_has_an_end(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(asking) as connection:
        connection.sendall(POST + b"content-length: 9\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 401"
        monkeypatch.setattr(bounded_head, "HEAD_WITHIN_S", 0.02)
        connection.sendall(b"x")
        all_of(connection)  # to the end
    monkeypatch.undo()
    with connected(asking) as connection:  # which may be as long as the request is under way
        connection.sendall(POST + b"content-length: 9\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 401"
        connection.sendall(b"x")
        connection.sendall(b"12345678" + POST + KEY + BYE + LENGTH + b"\r\n" + BODY)
        assert b"HTTP/1.1 200 OK" in all_of(connection)


def test_a_body_that_is_announced_as_too_large_is_refused_before_it_comes(provider: LocalProvider) -> None:
    with gateway(provider, max_body=1_000) as asking:
        for path in (b"/v1/chat/completions", b"/budget/decisions"):
            head = b"POST %b HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n" % path
            answer = said(asking, head, b"content-length: 1001\r\n", KEY, BYE, b"\r\n")
            assert answer.startswith(b"HTTP/1.1 413 ") and b'"too_large"' in answer
