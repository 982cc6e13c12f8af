"""Connections to Redis, and what can become of a request.

A link sends commands on one connection and reads their answers. It repeats nothing: `NotSent` and `NoAnswer` let
`RedisCourier` judge whether a command may have been carried out. redis-py's connections do the rest: passwords, TLS,
sockets. Its pools and clients are left out, because they try again by themselves, ten times, and say nothing of it.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    import redis

Command: TypeAlias = Sequence[bytes]
Address: TypeAlias = tuple[str, int]


class NotSent(Exception):
    """Nothing was sent: the server cannot be reached."""


class NoAnswer(Exception):
    """The commands were sent, wholly or in part, and no answer came."""


class Ask(NamedTuple):
    """Send *commands*, and read an answer for each: a value, or the error that the server answered with."""

    commands: Sequence[Command]
    address: Address | None = None
    """The node of a cluster to ask; None for the one that the ledger was given."""


class _Connection(Protocol):
    def connect(self) -> Any: ...
    def disconnect(self) -> Any: ...
    def send_packed_command(self, command: Any, check_health: bool) -> Any: ...
    def read_response(self) -> Any: ...


def redis_module() -> Any:
    """redis-py.

    Raises:
        ImportError: If it is not there, with the line that installs it.
    """
    try:
        import redis
    except ImportError as error:
        raise ImportError('RedisLedger needs redis-py: pip install "budget-guard[redis]"') from error
    return redis


class Place:
    """Where the server is, and how to connect to it.

    Args:
        client_or_url: ``redis://``, ``rediss://`` or ``unix://``, or a `redis.Redis` whose address, password and TLS
            settings are taken over.
        timeout_s: Seconds to wait for a connection, and for an answer.
    """

    _TAKEN_OVER = (
        "host",
        "port",
        "path",
        "db",
        "username",
        "password",
        "credential_provider",
        "client_name",
        "socket_keepalive",
        "socket_keepalive_options",
    )
    _KINDS: tuple[Literal["Connection", "SSLConnection", "UnixDomainSocketConnection"], ...] = (
        "Connection",
        "SSLConnection",
        "UnixDomainSocketConnection",
    )

    def __init__(self, client_or_url: redis.Redis | str, timeout_s: float) -> None:
        self.redis = redis_module()
        self.timeout_s = timeout_s
        if isinstance(client_or_url, str):
            pool: Any = self.redis.ConnectionPool.from_url(client_or_url)
        else:
            pool = getattr(client_or_url, "connection_pool", None)
        self._kind = next((kind for kind in self._KINDS if _is(pool, getattr(self.redis.connection, kind))), None)
        if self._kind is None:
            raise TypeError(
                f"client_or_url={client_or_url!r} must be a URL or a redis.Redis: for a cluster the URL of any of its "
                "nodes, for Sentinel an address that follows the master"
            )
        given: dict[str, Any] = pool.connection_kwargs
        self._settings = {
            name: value for name, value in given.items() if name in self._TAKEN_OVER or name.startswith("ssl_")
        }
        self._settings |= {
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "protocol": 2,  # the cheaper one, and nothing is pushed
        }

    def connection(self, address: Address | None, kind: Literal["blocking", "asyncio"]) -> Any:
        """A new connection, not yet connected."""
        settings = self._settings if address is None else {**self._settings, "host": address[0], "port": address[1]}
        module = self.redis.connection if kind == "blocking" else self.redis.asyncio.connection
        assert self._kind is not None
        retry = self.redis.asyncio.retry.Retry if kind == "asyncio" else self.redis.retry.Retry
        return getattr(module, self._kind)(**settings, retry=retry(self.redis.backoff.NoBackoff(), 0))


def _is(pool: Any, kind: type) -> bool:
    return getattr(pool, "connection_class", None) is kind


def _packed(commands: Sequence[Command]) -> list[bytes]:
    """*commands* as they go over the wire; the connection's own packing takes four times as long."""
    return [
        b"*%d\r\n%b" % (len(command), b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in command]))
        for command in commands
    ]


class RedisLink:
    """Connections with blocking requests, as many as there are threads that ask at the same time. Survives a fork."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._idle: dict[Address | None, list[_Connection]] = {}
        self._pid = os.getpid()

    def ask(self, ask: Ask) -> list[Any]:
        """The answers, in order.

        Raises:
            NotSent, NoAnswer: If there are none.
        """
        if self._pid != os.getpid():
            self.close()  # the parent's: closing this process' copies leaves them to it
            self._pid = os.getpid()
        connection = self._connected(ask.address)
        try:
            connection.send_packed_command(_packed(ask.commands), check_health=False)
            answers = [self._read(connection) for _ in ask.commands]
        except (self._place.redis.RedisError, OSError) as error:
            connection.disconnect()
            self.close()  # the others have most likely lost the server as well
            raise NoAnswer(str(error)) from error
        except BaseException:  # in the middle of an answer: nobody else may read the rest of it
            connection.disconnect()
            raise
        self._idle.setdefault(ask.address, []).append(connection)
        return answers

    def close(self) -> None:
        """Close every connection that is not in use."""
        for idle in list(self._idle.values()):
            while idle:
                try:
                    idle.pop().disconnect()
                except IndexError:  # another thread took the last one
                    break

    def _connected(self, address: Address | None) -> _Connection:
        try:
            return self._idle[address].pop()
        except (KeyError, IndexError):
            pass
        connection: _Connection = self._place.connection(address, "blocking")
        try:
            connection.connect()
        except (self._place.redis.RedisError, OSError) as error:
            connection.disconnect()
            raise NotSent(str(error)) from error
        return connection

    def _read(self, connection: _Connection) -> Any:
        try:
            return connection.read_response()
        except (self._place.redis.ResponseError, self._place.redis.BusyLoadingError) as error:
            return error


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
            await connection.send_packed_command(_packed(everything), check_health=False)
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
