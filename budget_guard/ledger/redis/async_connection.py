"""Connections to Redis to await."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from budget_guard.ledger.redis.connection import Address, Ask, Command, NoAnswer, NotSent, Place, packed


class AsyncRedisLink:
    """Connections to await, one for each event loop and node. What is asked during an answer goes out together.

    A caller that is cancelled leaves its request to be carried out, and no one else gets its answer.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._wires: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Address | None, _Wire]] = (
            weakref.WeakKeyDictionary()
        )

    async def ask(self, ask: Ask) -> list[Any]:
        """As `RedisLink.ask`."""
        wires = self._wires.setdefault(asyncio.get_running_loop(), {})
        wire = wires.get(ask.address)
        if wire is None:
            wire = wires[ask.address] = _Wire(self._place, ask.address)
        return await wire.ask(ask.commands)

    async def close(self) -> None:
        """Close the connections of the running loop."""
        for wire in self._wires.pop(asyncio.get_running_loop(), {}).values():
            await wire.close()


class _Wire:
    """One connection of one event loop."""

    def __init__(self, place: Place, address: Address | None) -> None:
        self._place = place
        self._address = address
        self._connection: Any = None
        self._closing: AsyncGenerator[None, None] | None = None
        self._waiting: list[tuple[Sequence[Command], asyncio.Future[list[Any]]]] = []
        self._sending: asyncio.Task[None] | None = None

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        loop = asyncio.get_running_loop()
        answers: asyncio.Future[list[Any]] = loop.create_future()
        self._waiting.append((commands, answers))
        if self._sending is None:
            self._sending = loop.create_task(self._send_all())
        return await answers

    async def close(self) -> None:
        if self._closing is not None:
            await self._closing.aclose()

    async def _send_all(self) -> None:
        batch: list[tuple[Sequence[Command], asyncio.Future[list[Any]]]] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                try:
                    await self._send(batch)
                except (NotSent, NoAnswer) as error:
                    for _, answers in batch:
                        if not answers.done():
                            answers.set_exception(error)
        except BaseException:  # the loop ends, and whoever waits with it
            for _, answers in (*batch, *self._waiting):
                answers.cancel()
            self._waiting = []
            await self._disconnect()
            raise
        finally:
            self._sending = None

    async def _send(self, batch: Sequence[tuple[Sequence[Command], asyncio.Future[list[Any]]]]) -> None:
        connection = await self._connected()
        try:
            everything = [command for commands, _ in batch for command in commands]
            await connection.send_packed_command(packed(everything), check_health=False)
            for commands, answers in batch:
                values = [await self._read(connection) for _ in commands]
                if not answers.done():
                    answers.set_result(values)
        except (self._place.redis.RedisError, OSError) as error:
            await self._disconnect()
            raise NoAnswer(str(error)) from error

    async def _connected(self) -> Any:
        if self._connection is None:
            self._connection = self._place.connection(self._address, "asyncio")
            try:
                await self._connection.connect()
            except (self._place.redis.RedisError, OSError) as error:
                await self._disconnect()
                raise NotSent(str(error)) from error
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
        except (self._place.redis.ResponseError, self._place.redis.BusyLoadingError) as error:
            return error
