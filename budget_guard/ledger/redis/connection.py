"""Blocking connections to Redis: requests, responses, and what can fail in between.

A request is sent on one connection and its responses are read there. Nothing is repeated: `NotConnected` and
`NoResponse` let `ScriptRunner` judge whether a command may have been carried out. redis-py's connections do the rest:
passwords, TLS, sockets. Its pools and clients are left out, because they try again by themselves, ten times, and say
nothing of it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

from budget_guard.ledger.waiters import Waiters

if TYPE_CHECKING:
    import redis

Command: TypeAlias = Sequence[bytes]
Address: TypeAlias = tuple[str, int]


class NotConnected(Exception):
    """The server cannot be reached: nothing was sent."""


class NoResponse(Exception):
    """The request was sent, wholly or in part, and no response came."""


class Request(NamedTuple):
    """Commands that are sent together. Each has a response: a value, or the error that the server answered with."""

    commands: Sequence[Command]
    address: Address | None = None
    """The node of a cluster to send it to; None for the one that the ledger was given."""


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
        raise ImportError('RedisLedger needs redis-py: pip install "budget-guard-py[redis]"') from error
    return redis


class Server:
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
    _KINDS = ("Connection", "SSLConnection", "UnixDomainSocketConnection")

    def __init__(self, client_or_url: redis.Redis | str, timeout_s: float) -> None:
        self.redis = redis_module()
        self.timeout_s = timeout_s
        if isinstance(client_or_url, str):
            try:
                pool: Any = self.redis.ConnectionPool.from_url(client_or_url)
            except Exception as error:  # which may show the password, as its own cause may
                raise ValueError(
                    f"client_or_url is no URL that redis-py can read ({type(error).__name__}): "
                    "use redis://user:password@host:6379/0, with everything quoted that is not a letter or a digit"
                ) from None
        else:
            pool = getattr(client_or_url, "connection_pool", None)
        kind = next((kind for kind in self._KINDS if _is(pool, getattr(self.redis.connection, kind))), None)
        if kind is None:
            raise TypeError(
                f"client_or_url, of type {type(client_or_url).__name__}, must be a URL or a redis.Redis: for a cluster "
                "the URL of any of its nodes, for Sentinel an address that follows the master"
            )
        self._kind = kind
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
        settings = self._settings
        if address is not None:
            host, port = address
            settings = {**settings, "host": host, "port": port}
        module = self.redis.connection if kind == "blocking" else self.redis.asyncio.connection
        retry = self.redis.asyncio.retry.Retry if kind == "asyncio" else self.redis.retry.Retry
        return getattr(module, self._kind)(**settings, retry=retry(self.redis.backoff.NoBackoff(), 0))


def _is(pool: Any, kind: type) -> bool:
    return getattr(pool, "connection_class", None) is kind


def packed(commands: Sequence[Command]) -> list[bytes]:
    """*commands* as they are sent; the connection's own packing takes four times as long."""
    return [
        b"*%d\r\n%b" % (len(command), b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in command]))
        for command in commands
    ]


class Connections:
    """Blocking connections, as many as there are threads with a request at the same time. Survives a fork.

    Args:
        server: Where to connect to.
        waiters: What waits for room in this process.
    """

    def __init__(self, server: Server, waiters: Waiters) -> None:
        self._server = server
        self.pause = waiters.wait
        """What happens between two requests where there is nothing to send."""
        self._idle: dict[Address | None, list[_Connection]] = {}
        self._pid = os.getpid()

    def send(self, request: Request) -> list[Any]:
        """Send *request*; return the responses, in order.

        Raises:
            NotConnected, NoResponse: If there are none.
        """
        if self._pid != os.getpid():
            self.close()  # the parent's: closing this process' copies leaves them to it
            self._pid = os.getpid()
        connection = self._connected(request.address)
        try:
            connection.send_packed_command(packed(request.commands), check_health=False)
            responses = [self._read(connection) for _ in request.commands]
        except (self._server.redis.RedisError, OSError) as error:
            connection.disconnect()
            self.close()  # the others have most likely lost the server as well
            raise NoResponse(str(error)) from error
        except BaseException:  # in the middle of a response: the next request must not read the rest of it
            connection.disconnect()
            raise
        self._idle.setdefault(request.address, []).append(connection)
        return responses

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
        connection: _Connection = self._server.connection(address, "blocking")
        try:
            connection.connect()
        except (self._server.redis.RedisError, OSError) as error:
            connection.disconnect()
            raise NotConnected(str(error)) from error
        return connection

    def _read(self, connection: _Connection) -> Any:
        try:
            return connection.read_response()
        except (self._server.redis.ResponseError, self._server.redis.BusyLoadingError) as error:
            return error
