"""Requests that are written to a connection of aiohttp's at once, past what its session would do for each of them.

All that is done for speed alone on the way of a request is here: head and body leave in one write, and of an answer
nothing is made but what is read of it. That takes half as long. Connections, TLS, timeouts and the reading of answers
are aiohttp's all the same, by the verbs that its session calls. `DirectRequests.send` says whether it could: where it
could not, say because the body is large, the same is sent by the session. A test compares both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache
from inspect import signature
from typing import Any, NamedTuple

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from budget_guard_gateway.messages import Headers, has_control

_MOST = 64 * 1024
"""Bytes that are written at once: a transport takes as many before it wants to be waited for."""
_HEAD_LIMITS = {"max_line_size": 64 * 1024, "max_field_size": 64 * 1024, "max_headers": 1_000}
_NEEDED: tuple[tuple[Any, set[str]], ...] = (
    (aiohttp.ClientRequest, {"method", "url", "loop", "session"}),
    (aiohttp.BaseConnector.connect, {"req", "traces", "timeout"}),
    (ResponseHandler.set_response_params, {"read_until_eof", "auto_decompress", "read_timeout"}),
    (ResponseHandler.start_timeout, set()),
)


def head_limits(verb: Callable[..., Any]) -> dict[str, Any]:
    """How long the head of an answer may be, as arguments of *verb*: its own 8 kB are less than clients take."""
    return {name: most for name, most in _HEAD_LIMITS.items() if name in signature(verb).parameters}


def direct_requests(session: aiohttp.ClientSession) -> DirectRequests | None:
    """The direct requests over a session's connections; None where this version of aiohttp does that another way."""
    known = all(names <= set(signature(verb).parameters) for verb, names in _NEEDED)
    return DirectRequests(session) if known else None


class DirectResponse:
    """The answer to one request, as far as it is read of an `aiohttp.ClientResponse`."""

    __slots__ = ("_connection", "content", "headers", "raw_headers", "status")

    def __init__(self, connection: Any, message: Any, content: aiohttp.StreamReader) -> None:
        self._connection = connection
        self.status: int = message.code
        self.headers = message.headers
        self.raw_headers: tuple[tuple[bytes, bytes], ...] = message.raw_headers
        self.content = content

    async def read(self) -> bytes:
        """The body, to its end."""
        content = self.content
        return content.read_nowait() if content.is_eof() else await content.read()  # most came whole, with the head

    def close(self) -> None:
        """Let go of the connection, which is closed where the answer is not at its end."""
        self._connection.close()


class _Address(NamedTuple):
    """What all requests to an address have in common."""

    request: aiohttp.ClientRequest
    """One of them, which is never sent: by it a connection is found, or made."""
    head: bytes
    """How their heads begin."""


class DirectRequests:
    """Sends requests over the connections of a session.

    Args:
        session: The session. It needs a running event loop.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._connector: Any = session.connector
        self._timeout: Any = session.timeout
        self._unpacks = session.auto_decompress
        self._limits = head_limits(ResponseHandler.set_response_params)
        self._address = lru_cache(maxsize=256)(self._address_of)

    async def send(self, method: str, url: URL, headers: Headers, body: bytes) -> DirectResponse | None:
        """Send a request, and wait for the head of its answer; None where the session has to see to it.

        Raises:
            aiohttp.ClientError: As the session.
        """
        if not body or len(body) > _MOST:
            return None
        address = self._address(method, url)
        if address is None:
            return None
        parts = [address.head]
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
        if has_control(b"".join([part for header in headers for part in header])):
            return None
        parts += (b"Content-Length: %d\r\n\r\n" % len(body), body)
        timeout = self._timeout
        try:
            connection = await self._connector.connect(address.request, traces=[], timeout=timeout)
        except asyncio.TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {url.host}") from error
        try:
            protocol, transport = connection.protocol, connection.transport
            if transport is None or transport.is_closing():  # nothing was sent: another connection will do
                connection.close()
                return None
            protocol.set_response_params(
                read_until_eof=True,
                auto_decompress=self._unpacks,
                read_timeout=timeout.sock_read,
                **self._limits,
            )
            transport.write(b"".join(parts))
            protocol.start_timeout()
            message, content = await protocol.read()
            while 100 <= message.code < 200 and message.code != 101:
                message, content = await protocol.read()
        except HttpProcessingError as error:
            connection.close()
            raise aiohttp.ClientResponseError(
                address.request.request_info, (), status=error.code, message=error.message, headers=error.headers
            ) from error
        except BaseException:
            connection.close()
            raise
        content.on_eof(connection.release)  # at once, where it is at its end
        return DirectResponse(connection, message, content)

    def _address_of(self, method: str, url: URL) -> _Address | None:
        if url.raw_user is not None or url.raw_password is not None:  # which is a credential
            return None
        request = aiohttp.ClientRequest(method, url, loop=asyncio.get_running_loop(), session=self._session)
        head = f"{method} {url.raw_path_qs} HTTP/1.1\r\nHost: {request.headers['Host']}\r\n"
        if not head.isascii() or has_control(head.replace("\r\n", "").encode()):
            return None
        return _Address(request, head.encode())
