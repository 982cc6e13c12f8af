"""uvicorn's fast HTTP protocol with a limit to the head of a request, of which it has none, and with direct answers."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from budget_guard.protocol import problem
from budget_guard_gateway.direct_answer import direct_answer
from budget_guard_gateway.messages import DIRECT_ANSWER, encoded

_MOST = 64 * 1024
"""Bytes of a request's head."""


class BoundedHead(HttpToolsProtocol):
    """Refuses a request whose head has no end."""

    _head = 0  # bytes that came since a request began, while its head is not at its end
    _in_head = True

    def data_received(self, data: bytes) -> None:
        """Take in bytes of the connection."""
        if self._in_head:
            self._head += len(data)
            if self._head > _MOST and not self._ends_in(data):
                self._refuse()
                return
        super().data_received(data)

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
        self._in_head = False
        super().on_headers_complete()
        answer = direct_answer(self.cycle)  # whose task begins later
        if answer is not None:
            extensions: dict[str, Any] = {DIRECT_ANSWER: answer}
            self.scope["extensions"] = extensions

    def on_message_complete(self) -> None:
        """The request is at its end."""
        self._in_head, self._head = True, 0
        super().on_message_complete()
