"""The HTTP server: connections, and nothing about what is said on them. Needs the extra ``testing``."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, TypeAlias

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from budget_guard.testing.waiting import Signal

_START_TIMEOUT_S = 10


class Line:
    """One request's connection to its client."""

    def __init__(self, request: Request, send: Send, signal: Signal) -> None:
        self._receive = request.receive
        self._send = send
        self._signal = signal
        self._transport: asyncio.Transport = request.state.transport
        self.gone = False
        """Whether the client has closed the connection, or `cut` has."""

    async def open(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the status and the headers."""
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def send(self, data: bytes, *, last: bool) -> None:
        """Send a part of the body; *last* ends the response."""
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})

    async def cut(self) -> None:
        """Close the connection without ending the response. What was sent before still arrives."""
        self._transport.close()
        await self._signal.wait_async(lambda: self.gone)

    async def watch(self) -> None:
        """Wait for the end of the connection, and set `gone`."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        with self._signal.changing():
            self.gone = True


class Arrival(NamedTuple):
    """One request as it came."""

    path: str
    """Escaped."""
    query: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


Handler: TypeAlias = Callable[[Arrival, Line], Awaitable[None]]
"""Answers one request over its line."""


class _Endpoint:
    """The ASGI application of all paths."""

    def __init__(self, handler: Handler, signal: Signal) -> None:
        self._handler = handler
        self._signal = signal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            body = await request.body()
        except ClientDisconnect:
            return
        line = Line(request, send, self._signal)
        watch = asyncio.create_task(line.watch())
        try:
            path, query = (scope[name].decode("latin-1") for name in ("raw_path", "query_string"))
            await self._handler(Arrival(path, query, dict(request.headers), body), line)
        finally:
            watch.cancel()


class _Protocol(H11Protocol):
    """Hands its transport to the application, which ASGI gives no means to cut a connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn serves TCP alone
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


class _Uvicorn(uvicorn.Server):
    """Starts and stops at once, where uvicorn looks ten times a second and waits for idle clients."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.running = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        await super().startup(sockets)
        self.running.set()

    async def main_loop(self) -> None:
        await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # A connection that was just accepted is among the server's some turns of the loop later. To close the server
        # before would leave it open: asyncio makes no transport for a server that is closed, and forgets the socket.
        for listener in [listener for server in self.servers for listener in server.sockets]:
            self._loop.remove_reader(listener)
        for _ in range(3):
            await asyncio.sleep(0)
        for server in self.servers:
            server.close()
        while self.server_state.connections or self.server_state.tasks:
            for connection in list(self.server_state.connections):
                connection.transport.abort()
            # One turn of the loop: connections report their end, and handlers see it and return.
            await asyncio.sleep(0)

    def stop(self) -> None:
        """End the server, from any thread."""
        self.should_exit = True
        self._loop.call_soon_threadsafe(self._stopping.set)


class HttpServer:
    """A server on the loopback interface, in a thread of its own."""

    def __init__(self, handler: Handler, signal: Signal, port: int = 0) -> None:
        """Start it.

        Args:
            handler: What answers a POST.
            signal: Wakes those who wait for the end of a connection.
            port: Where it listens; a free one by default.

        Raises:
            OSError: If the port is taken.
            RuntimeError: If the server does not come up.
        """
        routes = [Route("/{path:path}", _Endpoint(handler, signal), methods=["POST"])]
        self._server = _Uvicorn(
            uvicorn.Config(
                Starlette(routes=routes),
                http=_Protocol,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_keep_alive=600,
            )
        )
        # The protocol is named because asyncio turns Nagle's algorithm off only where it is, and with it on
        # every reply of two packets waits 40 ms for the client's acknowledgement.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            listener.close()
            raise
        self.port: int = listener.getsockname()[1]
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name="budget_guard.testing", daemon=True
        )
        self._thread.start()
        if not self._server.running.wait(_START_TIMEOUT_S):
            listener.close()
            raise RuntimeError(f"the local provider did not start within {_START_TIMEOUT_S} s")

    def stop(self) -> None:
        """Close every connection and end the thread."""
        self._server.stop()
        self._thread.join()
