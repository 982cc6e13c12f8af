"""Who opens connections and never ends the head of a request stops nobody, and does not keep them."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import pytest

pytest.importorskip("httptools")

from budget_guard_gateway import bounded_head
from budget_guard_gateway.bounded_head import BoundedHead
from tests.integrations.gateway.support import serving

MANY = 200
BEGINNING = b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\nx-slow: "


class Waiting:
    """Answers to /waits when it is let, and at once to everything else."""

    def __init__(self) -> None:
        self.arrived, self.answers = threading.Event(), threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/waits":
            self.arrived.set()
            await asyncio.to_thread(self.answers.wait, 60)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


def test_slow_heads_stop_nobody_and_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Waiting()
    with serving(app, http=BoundedHead, lifespan="off", timeout_keep_alive=3_600) as server, ExitStack() as opened:
        host, _, port = server.url.removeprefix("http://").partition(":")

        def connected(sent: bytes = b"") -> socket.socket:
            made = opened.enter_context(socket.create_connection((host, int(port)), 60))
            with suppress(ConnectionError):  # it may be given up by then
                made.sendall(sent)
            return made

        monkeypatch.setattr(bounded_head, "HEAD_WITHIN_S", 3_600.0)
        patient = [connected(BEGINNING) for _ in range(MANY)]
        assert httpx.get(server.url).text == "ok"
        under_way = connected(b"GET /waits HTTP/1.1\r\nhost: h\r\n\r\n")
        assert app.arrived.wait(60)

        second = connected(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        assert second.recv(1)  # its first request is answered

        monkeypatch.setattr(bounded_head, "HEAD_WITHIN_S", 0.02)
        under_way.sendall(BEGINNING)  # of its next request, while the first one is answered
        second.sendall(BEGINNING)
        assert [_all_of(each) for each in (connected(), connected(BEGINNING))] == [b"", b""]
        assert _all_of(second).endswith(b"\r\n\r\nok")

        app.answers.set()
        assert _all_of(under_way).endswith(b"\r\n\r\nok")
        for each in patient:  # whose time is not up
            each.sendall(b"x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            assert _all_of(each).endswith(b"\r\n\r\nok")


def _all_of(connection: socket.socket) -> bytes:
    """All that comes until it is closed."""
    parts: list[bytes] = []
    with suppress(ConnectionResetError):  # where bytes were on the way to it
        while part := connection.recv(65_536):
            parts.append(part)
    return b"".join(parts)
