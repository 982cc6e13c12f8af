"""uvicorn's fast HTTP protocol with limits to the head of a request, of which it has none, and with direct answers.

A head may be so long, and take so long: else whoever opens connections and never ends a head keeps them for ever, until
there are no more for others.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from budget_guard.protocol import problem
from budget_guard_gateway.direct_answer import direct_answer
from budget_guard_gateway.messages import DIRECT_ANSWER, encoded

_MOST = 64 * 1024
"""Bytes of a request's head."""
HEAD_WITHIN_S = 30.0
"""Seconds within which a head must be there, since the connection was opened or the head began."""


class BoundedHead(HttpToolsProtocol):
    """Refuses a request whose head has no end."""

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
                self._refuse()
                return
        super().data_received(data)
        if self._head and self._late is None:  # most heads come in one piece, and are never awaited
            self._await_head()

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

    def _refuse(self) -> None:
        refusal = problem("headers_too_large", f"The head of a request may have {_MOST} bytes.")
        transport: asyncio.Transport = self.transport
        lines = [b"HTTP/1.1 431 Request Header Fields Too Large"]
        lines += [name + b": " + value for name, value in encoded(refusal.headers)]
        lines += [b"content-length: %d" % len(refusal.body), b"connection: close", b"", refusal.body]
        transport.write(b"\r\n".join(lines))
        transport.close()

    def on_headers_complete(self) -> None:
        """The head is at its end."""
        self._in_head, self._head = False, 0
        self._head_is_there()
        super().on_headers_complete()
        answer = direct_answer(self.cycle)  # whose task begins later
        if answer is not None:
            extensions: dict[str, Any] = {DIRECT_ANSWER: answer}
            self.scope["extensions"] = extensions

    def on_message_complete(self) -> None:
        """The request is at its end."""
        self._in_head = True
        super().on_message_complete()
