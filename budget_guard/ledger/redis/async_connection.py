"""Connections to Redis to await: one for each event loop and node."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Sequence
from typing import Any, NamedTuple

from budget_guard.ledger.redis.connection import Address, Command, NoResponse, NotConnected, Request, Server, packed
from budget_guard.ledger.waiters import Waiters


class AsyncConnections:
    """Connections to await, one for each event loop and node. Requests made during a response go out together.

    A caller that is cancelled leaves its request to be carried out, and no other gets its response.

    Args:
        server: Where to connect to.
        waiters: What waits for room in this process.
    """

    def __init__(self, server: Server, waiters: Waiters) -> None:
        self._server = server
        self.pause = waiters.wait_async
        """As `Connections.pause`."""
        self._of_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Address | None, _Connection]] = (
            weakref.WeakKeyDictionary()
        )

    async def send(self, request: Request) -> list[Any]:
        """As `Connections.send`."""
        connections = self._of_loop.setdefault(asyncio.get_running_loop(), {})
        connection = connections.get(request.address)
        if connection is None:
            connection = connections[request.address] = _Connection(self._server, request.address)
        return await connection.send(request.commands)

    async def close(self) -> None:
        """Close the connections of the running loop."""
        for connection in self._of_loop.pop(asyncio.get_running_loop(), {}).values():
            await connection.close()


class _Waiting(NamedTuple):
    """Commands that a task waits for."""

    commands: Sequence[Command]
    responses: asyncio.Future[list[Any]]


class _Connection:
    """One connection of one event loop."""

    def __init__(self, server: Server, address: Address | None) -> None:
        self._server = server
        self._address = address
        self._connection: Any = None
        self._closing: AsyncGenerator[None, None] | None = None
        self._waiting: list[_Waiting] = []
        self._sending: asyncio.Task[None] | None = None

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        loop = asyncio.get_running_loop()
        responses: asyncio.Future[list[Any]] = loop.create_future()
        self._waiting.append(_Waiting(commands, responses))
        if self._sending is None:
            self._sending = loop.create_task(self._send_all())
        return await responses

    async def close(self) -> None:
        if self._closing is not None:
            await self._closing.aclose()

    async def _send_all(self) -> None:
        batch: list[_Waiting] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                try:
                    await self._send(batch)
                except (NotConnected, NoResponse) as error:
                    for each in batch:
                        if not each.responses.done():
                            each.responses.set_exception(error)
        except BaseException:  # the loop ends, and the tasks that wait with it
            for each in (*batch, *self._waiting):
                each.responses.cancel()
            self._waiting = []
            await self._disconnect()
            raise
        finally:
            self._sending = None

    async def _send(self, batch: Sequence[_Waiting]) -> None:
        connection = await self._connected()
        try:
            everything = [command for each in batch for command in each.commands]
            await connection.send_packed_command(packed(everything), check_health=False)
            for commands, responses in batch:
                values = [await self._read(connection) for _ in commands]
                if not responses.done():
                    responses.set_result(values)
        except (self._server.redis.RedisError, OSError) as error:
            await self._disconnect()
            raise NoResponse(str(error)) from error

    async def _connected(self) -> Any:
        if self._connection is None:
            self._connection = self._server.connection(self._address, "asyncio")
            try:
                await self._connection.connect()
            except (self._server.redis.RedisError, OSError) as error:
                await self._disconnect()
                raise NotConnected(str(error)) from error
            if self._closing is None:
                # a loop ends its generators before it closes, and so this connection
                self._closing = self._close_with_loop()
                await self._closing.__anext__()
        return self._connection

    async def _close_with_loop(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._closing = None
            await self._disconnect()

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def _read(self, connection: Any) -> Any:
        try:
            return await connection.read_response()
        except (self._server.redis.ResponseError, self._server.redis.BusyLoadingError) as error:
            return error
