"""Answers that are written to a connection of uvicorn at once, past what ASGI would do for each part of them.

All that is done for speed alone on the way of an answer is here: a whole answer leaves in one write, headers are
checked together and not one by one, and no event is made of a part of a body. Each verb says whether it could: where
it could not, say because the client is slow to read, the same is sent by ASGI, which waits. A test compares both.
"""

from __future__ import annotations

import re
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from budget_guard_gateway.messages import has_control

_NOT_A_NAME = re.compile(rb"[^a-z0-9!#$%&'*+.^_`|~-]")
_WITHOUT_BODY = (204, 304)
_NO_END = 2**62
"""Bytes of an answer that ends with its connection, as uvicorn counts them down."""
_NEEDED = (
    "chunked_encoding default_headers disconnected expected_content_length flow keep_alive message_event more_body "
    "on_response response_complete response_started scope transport waiting_for_100_continue"
).split()
_known: dict[type[object], bool] = {}
"""Classes of uvicorn's request cycle, and whether they have all that is needed: looked up once for each."""
_names: dict[bytes, bytes] = {}
"""Names of headers that are well-formed, and how they are written."""
_MOST_NAMES = 1_000


def direct_answer(cycle: object) -> DirectAnswer | None:
    """The answer of a request that uvicorn serves as *cycle*; None where this version of it does that another way."""
    known = _known.get(type(cycle))
    if known is None:
        known = _known[type(cycle)] = all(hasattr(cycle, name) for name in _NEEDED)
    return DirectAnswer(cycle) if known else None


class DirectAnswer:
    """The answer of one request.

    Args:
        cycle: Uvicorn's own state of the request.
    """

    __slots__ = ("_cycle",)

    def __init__(self, cycle: Any) -> None:
        self._cycle = cycle

    @property
    def request_ended(self) -> bool:
        """True once the request has come to its end, so that its body need not be waited for."""
        return not self._cycle.more_body

    def whole(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bool:
        """Write an answer and be done with it. Its headers must tell its length."""
        cycle = self._cycle
        head = self._head(status, headers, b"")
        if head is None:
            return False
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        head.append(body)
        self._over(b"".join(head))
        return True

    def begin(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bool:
        """Write the head of an answer whose length is not known, and the beginning of its *body*."""
        cycle = self._cycle
        is_chunked = cycle.scope["http_version"] == "1.1"
        if not is_chunked:  # it knows no chunks: the end of the connection is the end of the answer
            cycle.keep_alive = False
        head = self._head(status, headers, b"transfer-encoding: chunked\r\n" if is_chunked else b"")
        if head is None:
            return False
        cycle.response_started = True
        cycle.chunked_encoding = is_chunked
        cycle.expected_content_length = 0 if is_chunked else _NO_END
        cycle.waiting_for_100_continue = False
        if body:
            head.append(self._framed(body))
        cycle.transport.write(b"".join(head))
        return True

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self._cycle.chunked_encoding else data

    def part(self, data: bytes) -> bool:
        """Write the next part of a body that was begun here. It must not be empty."""
        cycle = self._cycle
        if cycle.flow.write_paused or cycle.disconnected or cycle.response_complete:
            return False
        cycle.transport.write(self._framed(data))
        return True

    def end(self, data: bytes) -> bool:
        """Write the last part of a body that was begun here."""
        cycle = self._cycle
        if not cycle.chunked_encoding:
            cycle.expected_content_length = len(data)  # it ends here, for whoever writes it
        if cycle.flow.write_paused or cycle.disconnected or cycle.response_complete:
            return False
        self._over((self._framed(data) if data else b"") + (b"0\r\n\r\n" if cycle.chunked_encoding else b""))
        return True

    def _over(self, data: bytes) -> None:
        cycle = self._cycle
        cycle.transport.write(data)
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()

    def _head(self, status: int, headers: list[tuple[bytes, bytes]], last: bytes) -> list[bytes] | None:
        """The head of an answer; None where ASGI has to see to it."""
        cycle = self._cycle
        if cycle.response_started or cycle.disconnected or cycle.flow.write_paused:
            return None
        if status in _WITHOUT_BODY or cycle.scope["method"] == "HEAD" or (line := STATUS_LINE.get(status)) is None:
            return None
        head = [line]
        for name, value in (*cycle.default_headers, *headers):
            written = _names.get(name) or _written(name)
            if written is None:
                return None
            head += (written, value, b"\r\n")
        if has_control(b"".join(head[2::3])):
            return None
        head += (b"" if cycle.keep_alive else b"connection: close\r\n", last, b"\r\n")
        return head


def _written(name: bytes) -> bytes | None:
    """How a name of a header is written; None where it is none, or changes how the answer is written."""
    lower = name.lower()
    if not lower or lower == b"connection" or _NOT_A_NAME.search(lower) is not None:
        return None
    if len(_names) >= _MOST_NAMES:
        _names.clear()
    written = _names[name] = lower + b": "
    return written
