"""What the suite asks a service, and what came: over HTTP/1.1, by the standard library alone."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

_PATIENCE_S = 20.0
_SHOWN = 600


class Nonconformity(Exception):
    """A service does not do as the protocol says."""

    def __init__(self, *, asked: str, expected: str, came: str) -> None:
        self.asked = asked
        """What it was asked."""
        self.expected = expected
        """What should have come."""
        self.came = came
        """What came."""
        super().__init__(f"asked: {asked}\n  expected: {expected}\n  came: {came}")


class Said(NamedTuple):
    """What a service said."""

    asked: str
    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a header; None where it is not there."""
        return next((value for each, value in self.headers if each.lower() == name.lower()), None)

    @property
    def document(self) -> Any:
        """The body, read as JSON.

        Raises:
            Nonconformity: If it is none.
        """
        try:
            return json.loads(self.body)
        except ValueError:
            raise self.wrong("a body of JSON") from None

    @property
    def came(self) -> str:
        """It in words."""
        ours = [f"{name}: {value}" for name, value in self.headers if not name.lower().startswith(("date", "server"))]
        body = self.body[:_SHOWN].decode("utf-8", "replace")
        return f"{self.status}; {', '.join(ours)}; {body}"

    def wrong(self, expected: str) -> Nonconformity:
        """The failure of a check that has expected something else."""
        return Nonconformity(asked=self.asked, expected=expected, came=self.came)

    def expect(self, holds: object, expected: str) -> None:
        """Check that something holds.

        Raises:
            Nonconformity: If it does not.
        """
        if not holds:
            raise self.wrong(expected)

    def expect_status(self, status: int) -> Said:
        """Check the status; return itself."""
        self.expect(self.status == status, f"status {status}")
        return self

    def usd(self, name: str) -> Decimal:
        """The dollars in a header."""
        value = self.header(name)
        self.expect(value is not None, f"the header {name}")
        return Decimal(value or "0")


def ask(
    url: str, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, *, words: str = ""
) -> Said:
    """Send a request, and read the whole answer.

    Args:
        url: Where the service is.
        method: The method.
        path: The path below *url*.
        body: What is sent as JSON; bytes as they are; None for nothing.
        headers: The headers.
        words: What it is called in a failure; the request by default.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port
    made = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    asked = words or f"{method} {path} {'' if data is None else data[:_SHOWN].decode('utf-8', 'replace')}"
    sent = {"content-type": "application/json", **(headers or {})} if data is not None else dict(headers or {})
    try:
        with closing(made(host, port, timeout=_PATIENCE_S)) as connection:
            connection.request(method, parts.path.rstrip("/") + path, data, sent)
            answer = connection.getresponse()
            return Said(asked, answer.status, answer.getheaders(), answer.read())
    except (OSError, http.client.HTTPException) as error:
        raise Nonconformity(asked=asked, expected="an answer", came=f"{type(error).__name__}: {error}") from None


def at_once(count: int, once: Callable[[int], T]) -> list[T]:
    """What *once* returns, *count* times at the same time, in threads."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(once, range(count)))
