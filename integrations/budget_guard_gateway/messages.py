"""Requests and answers as ASGI has them: what is read of a request, and what is passed on of either."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from budget_guard.protocol import Problem, problem
from budget_guard.units.printable import printable

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

_OF_THE_CONNECTION = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade".split()
)
"""https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1: they concern one connection alone."""
_CREDENTIALS = frozenset((b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key"))
_NOT_SENT = _OF_THE_CONNECTION | frozenset(
    (b"host", b"content-length", b"accept-encoding", b"expect", b"cookie", b"x-run-id")
)
_NOT_SENT_WITH_A_KEY = _NOT_SENT | _CREDENTIALS
_NOT_PASSED_ON = _OF_THE_CONNECTION | frozenset((b"content-length", b"content-encoding", b"set-cookie", b"x-run-id"))
_OURS = b"x-budget-"
_CONTROL = bytes((*range(9), *range(10, 32), 127))
"""Control characters, which end a header or let a server fail; a tab does neither."""
_ONCE = (b"host", b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key", b"x-run-id", b"content-length")
"""Headers of which two would let two servers see two requests."""


DIRECT_ANSWER = "budget_guard.direct_answer"
"""What a `DirectAnswer` is called among the extensions of a request's scope, where the server has them."""
_BODY_WITHIN_S = 120.0
"""Seconds within which a body must be there: a client that is cut off in it would else keep its place for ever."""
_WATCHED_AFTER_S = 0.05
"""Seconds after which it is watched whether the client goes."""


class Refused(Exception):
    """The request is answered with a problem."""

    def __init__(self, refusal: Problem, headers: Sequence[tuple[str, str]] = ()) -> None:
        self.problem = refusal
        self.headers = headers
        """What the answer carries besides."""
        super().__init__(refusal.code)


class ClientGone(Exception):
    """The client has closed the connection."""


class Client:
    """The connection to who asks.

    Once it is watched, the task that serves it is cancelled when the client goes, but only while it `may_stop`.
    """

    cors: Headers | None = None
    """CORS headers of the answer to a browser's script, in place of the provider's; None where no browser asks."""

    def __init__(self, receive: Receive, send: Send, direct: Any = None) -> None:
        self._receive = receive
        self._send = send
        self._direct = direct  # a `DirectAnswer`, where the server has one
        self._task: asyncio.Task[Any] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._later: asyncio.TimerHandle | None = None
        self._is_late = False
        self.gone = False
        """Whether it has gone."""
        self.may_stop = False
        """Whether nothing is lost where the request is given up now."""
        self.started = False
        """Whether the head of an answer was sent."""

    async def body(self, most: int, headers: Mapping[bytes, bytes]) -> bytes:
        """The body of the request.

        Args:
            most: Bytes that it may have.
            headers: The request's, which may say that it has more.

        Raises:
            Refused: If it has more than *most* bytes, or is not there in time.
            ClientGone: If the client is gone before its end.
        """
        if self._direct is not None and self._direct.request_ended:
            return await self._whole_body(most)
        if int(headers.get(b"content-length", 0)) > most:  # the server has seen that it is a number
            raise Refused(_too_large(most))
        task: Any = asyncio.current_task()
        late = asyncio.get_running_loop().call_later(_BODY_WITHIN_S, self._give_up, task)
        try:
            return await self._whole_body(most)
        except asyncio.CancelledError:
            if not self._is_late:
                raise
            words = f"The body was not there within {_BODY_WITHIN_S:g} seconds."
            raise Refused(problem("invalid_request", words), [("Connection", "close")]) from None
        finally:
            late.cancel()

    def _give_up(self, task: asyncio.Task[Any]) -> None:
        self._is_late = True
        task.cancel()

    async def _whole_body(self, most: int) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.gone = True
            raise ClientGone
        body: bytes = message.get("body", b"")
        if message.get("more_body"):
            parts, size = [body], len(body)
            while message.get("more_body") and size <= most:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    self.gone = True
                    raise ClientGone
                parts.append(message.get("body", b""))
                size += len(parts[-1])
            body = b"".join(parts)
        if len(body) > most:
            raise Refused(_too_large(most))
        return body

    def watch(self, task: asyncio.Task[Any] | None) -> None:
        """Notice from now on when the client goes: within `_WATCHED_AFTER_S`, so that a short call is not watched.

        Args:
            task: The one that serves it.
        """
        self._task = task
        self._later = asyncio.get_running_loop().call_later(_WATCHED_AFTER_S, self._begin)

    def _begin(self) -> None:
        self._watch = asyncio.ensure_future(self._until_gone())

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        if self.may_stop and self._task is not None:
            self._task.cancel()

    def unwatch(self) -> None:
        """Notice it no more."""
        self.may_stop = False
        if self._later is not None:
            self._later.cancel()
        if self._watch is not None:
            self._watch.cancel()

    async def start(self, status: int, headers: Headers, body: bytes = b"") -> None:
        """Send the head of an answer, and the beginning of its body."""
        self.started = True
        if self.cors:
            headers = _with_cors(headers, self.cors)
        if self._direct is not None:
            if self._direct.begin(status, headers, body):
                return
            self._direct = None
        await self._send({"type": "http.response.start", "status": status, "headers": writable(headers)})
        if body:
            await self.send(body, more=True)

    async def send(self, data: bytes, *, more: bool = False) -> None:
        """Send a part of the body; waits while the client is slow."""
        direct = self._direct
        if direct is not None and (direct.part(data) if more else direct.end(data)):
            return
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole answer."""
        headers.append((b"content-length", b"%d" % len(body)))
        self.started = True
        if self.cors:
            headers = _with_cors(headers, self.cors)
        if self._direct is not None and self._direct.whole(status, headers, body):
            return
        self._direct = None
        await self._send({"type": "http.response.start", "status": status, "headers": writable(headers)})
        await self.send(body)

    async def refuse(self, refusal: Problem, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Answer with a problem."""
        await self.answer(refusal.status, encoded((*headers, *refusal.headers)), refusal.body)


def has_control(text: bytes) -> bool:
    """True if *text* has a control character, which no header may have. A pattern would take ten times as long."""
    return len(text.translate(None, _CONTROL)) != len(text)


def _too_large(most: int) -> Problem:
    return problem("too_large", f"The body has more than {most} bytes.")


def writable(headers: Headers) -> Headers:
    """Those of *headers* that a server writes: it fails on control characters, which some providers send."""
    return [header for header in headers if not has_control(header[1])]


def encoded(headers: Iterable[tuple[str, str]]) -> Headers:
    """Headers in bytes."""
    return [(_name(name), value.encode("latin-1", "replace")) for name, value in headers]


@lru_cache(maxsize=256)
def _name(name: str) -> bytes:
    return name.lower().encode("ascii")


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """The headers of a request by name.

    Raises:
        Refused: If one comes twice that must not.
    """
    raw: Headers = scope["headers"]
    headers = dict(raw)
    if len(headers) != len(raw):
        names = [name for name, _ in raw]
        for name in _ONCE:
            if names.count(name) > 1:
                raise Refused(problem("invalid_request", f"The header {name.decode()} is there more than once."))
    return headers


def token_of(headers: dict[bytes, bytes]) -> str | None:
    """The token that a request carries; None where it carries none."""
    value = headers.get(b"authorization")
    if value is not None:
        scheme, _, token = value.partition(b" ")
        return token.strip().decode("latin-1") or None if scheme.lower() == b"bearer" else None
    for name in (b"x-api-key", b"x-goog-api-key", b"api-key"):
        if value := headers.get(name):
            return value.decode("latin-1")
    return None


def _with_cors(headers: Headers, cors: Headers) -> Headers:
    return [header for header in headers if not header[0].lower().startswith(b"access-control-")] + cors


def to_send(raw: Headers, credential: tuple[str, str] | None, keeps_credentials: bool) -> Headers:
    """The headers of a request as they are passed on to a provider.

    Args:
        raw: As they came.
        credential: The header with the gateway's key at the provider; None where it has none.
        keeps_credentials: Whether the caller's own key is passed on then.
    """
    dropped = _NOT_SENT if credential is None and keeps_credentials else _NOT_SENT_WITH_A_KEY
    sent = [header for header in raw if header[0] not in dropped and not header[0].startswith(_OURS)]
    sent.append((b"accept-encoding", b"identity"))  # what is compressed cannot be read
    if credential is not None:
        name, value = credential
        sent.append((name.encode(), value.encode()))
    return sent


def to_pass_on(raw: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The headers of a provider's answer as they are passed on."""
    return [
        (lower, value)
        for name, value in raw
        if (lower := name.lower()) not in _NOT_PASSED_ON and not lower.startswith(_OURS)
    ]


def shown(raw: bytes) -> str:
    """A header's value as a problem may show it."""
    return printable(raw[:100].decode("latin-1"))
