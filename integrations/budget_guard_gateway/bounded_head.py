"""uvicorn's fast HTTP protocol with limits to the head of a request, of which it has none, and with direct answers.

A head may be so long, and take so long: else whoever opens connections and never ends a head keeps them for ever, until
there are no more for others. The same goes for what comes behind a chunked body, and for a body that nobody waits for.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from budget_guard.protocol import Problem, problem
from budget_guard_gateway.direct_answer import direct_answer
from budget_guard_gateway.messages import DIRECT_ANSWER, encoded

_MOST = 64 * 1024
"""Bytes of a request's head."""
_MOST_BESIDE = 1024 * 1024
"""Bytes that may come without any of a body among them, once it has begun: more than is read at once."""
HEAD_WITHIN_S = 30.0
"""Seconds within which a head must be there, since the connection was opened or the head began."""
_OF_AN_UPGRADE = (b"upgrade", b"http2-settings")


class _Trailers(list[tuple[bytes, bytes]]):
    """A list that stays empty: trailers, which uvicorn would add to the headers, are dropped (RFC 9110, 6.5.1)."""

    def append(self, object: tuple[bytes, bytes], /) -> None:
        """Forget one."""


_TRAILERS = _Trailers()


class BoundedHead(HttpToolsProtocol):
    """uvicorn's HTTP protocol with bounds to heads, trailers and unread bodies; upgrades are served as HTTP/1.1."""

    _head = 0  # bytes that came since a request began, while its head is not at its end
    _in_head = True
    _late: asyncio.TimerHandle | None = None  # closes the connection, while a head is awaited

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """A client has connected."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is no more."""
        self._head_is_there()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in bytes of the connection."""
        if self._in_head:
            self._head += len(data)
            if self._head > _MOST and not self._ends_in(data):
                self._refuse(problem("headers_too_large", f"The head of a request may have {_MOST} bytes."))
                return
        else:
            self._beside += len(data)
            if self._beside > _MOST_BESIDE:
                self._refuse(problem("headers_too_large", f"Beside a body there may be {_MOST_BESIDE} bytes."))
                return
        self._unset_keepalive_if_required()
        self._parse(data)
        # most heads come in one piece, and are never awaited; the rest of what is answered already is
        if self._late is None and (self._head or (not self._in_head and self.cycle.response_complete)):
            self._await_head()

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade(data[upgrade.args[0] :])
            except httptools.HttpParserError:
                self.send_400_response("")
                return

    def _without_upgrade(self, rest: bytes) -> bytes:
        """The request once more, that asks for another protocol, without that: nobody has to grant it.

        Java's own client asks for HTTP/2 in the first request of each connection.
        """
        method: str = self.scope["method"]
        if method == "CONNECT":  # that is all it asks for
            self.send_400_response("")
            return b""
        self.parser = httptools.HttpRequestParser(self)  # the other one may be at its end, by `Connection: close`
        head = [b"%b %b HTTP/1.1" % (method.encode(), self.url)]
        head += [name + b": " + value for name, value in self.scope["headers"] if name not in _OF_AN_UPGRADE]
        return b"\r\n".join([*head, b"", rest])

    def _should_upgrade(self) -> bool:
        """Nothing is done about a request that asks for another protocol, until it comes without that."""
        return True

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP/1.1."""
        self._refuse(problem("invalid_request", "This is no request of HTTP/1.1."))

    def _await_head(self) -> None:
        self._late = self.loop.call_later(HEAD_WITHIN_S, self._give_up)

    def _head_is_there(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        cycle: Any = self.cycle  # None before the first request
        if cycle is not None and not cycle.response_complete:
            self._await_head()  # an earlier request is being answered
        else:
            self.transport.close()

    def _ends_in(self, data: bytes) -> bool:
        """Whether the head ends in *data*, within the limit: the rest of it is the body."""
        end = data.find(b"\r\n\r\n")
        return end >= 0 and self._head - len(data) + end <= _MOST

    def _refuse(self, refusal: Problem) -> None:
        cycle: Any = self.cycle  # None before the first request
        if self._in_head and cycle is not None and not cycle.response_complete:
            cycle.keep_alive = False  # what was asked before is answered, and this is not
            self.flow.pause_reading()
            return
        transport: asyncio.Transport = self.transport
        if cycle is None or self._in_head or not cycle.response_started:
            lines = [STATUS_LINE[refusal.status].removesuffix(b"\r\n")]
            lines += [name + b": " + value for name, value in encoded(refusal.headers)]
            lines += [b"content-length: %d" % len(refusal.body), b"connection: close", b"", refusal.body]
            transport.write(b"\r\n".join(lines))
        transport.close()

    def on_headers_complete(self) -> None:
        """The head is at its end."""
        self._in_head, self._head = False, 0
        self._head_is_there()
        super().on_headers_complete()
        self.headers, self._beside = _TRAILERS, 0
        answer = direct_answer(self.cycle)  # whose task begins later
        if answer is not None:
            extensions: dict[str, Any] = {DIRECT_ANSWER: answer}
            self.scope["extensions"] = extensions

    def on_body(self, body: bytes) -> None:
        """A part of the body has come."""
        self._beside = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is at its end."""
        self._in_head = True
        if self._late is not None:  # the rest was awaited of what was answered before its end
            self._head_is_there()
        super().on_message_complete()
