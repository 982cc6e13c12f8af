"""Connections to Redis, and what can become of a request.

A link sends commands on one connection and reads their answers. It repeats nothing: `NotSent` and `NoAnswer` let
`ScriptRunner` judge whether a command may have been carried out. redis-py's connections do the rest: passwords, TLS,
sockets. Its pools and clients are left out, because they try again by themselves, ten times, and say nothing of it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
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
        raise ImportError('RedisLedger needs redis-py: pip install "budget-guard-py[redis]"') from error
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


def packed(commands: Sequence[Command]) -> list[bytes]:
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
            connection.send_packed_command(packed(ask.commands), check_health=False)
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
