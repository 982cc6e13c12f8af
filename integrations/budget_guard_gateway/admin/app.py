"""The admin port as an ASGI application: who may ask, and which operation is meant."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, cast
from urllib.parse import parse_qsl

from budget_guard import BudgetError
from budget_guard.protocol import problem, problem_of
from budget_guard.units.printable import printable
from budget_guard_gateway.addresses import DESCRIPTION, operation_at
from budget_guard_gateway.admin.access import Access
from budget_guard_gateway.admin.browser import PATHS, Browser
from budget_guard_gateway.admin.openapi import openapi
from budget_guard_gateway.admin.operations import OPERATIONS, Asked, Field, Operations, unknown
from budget_guard_gateway.hosts import OwnNames
from budget_guard_gateway.messages import Client, ClientGone, Headers, Receive, Refused, Scope, Send, headers_of, shown
from budget_guard_gateway.metrics import CONTENT_TYPE, SharedNumbers, Snapshot, exposition
from budget_guard_gateway.settings import address_of
from budget_guard_gateway.state import GatewayState

_log = logging.getLogger("budget_guard")

_MOST_BODY = 100_000
_PRIVATE: Headers = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]
"""What each answer carries: nobody keeps it, and no browser takes it for a page."""


class Admin:
    """What operators look at and act with. An ASGI application, on a port of its own.

    Args:
        gateway: What the gateway goes by: its own, where it runs in this process, or others on the same ledger.
        shared: Where the numbers of all processes are, if there are several.

    Raises:
        ValueError: If the settings name no address for it.
    """

    def __init__(self, gateway: GatewayState, shared: SharedNumbers | None = None) -> None:
        settings = gateway.settings
        if settings.admin is None:
            raise ValueError("admin=None names no address for the admin API: give one, such as 127.0.0.1:4001")
        self._names = OwnNames(address_of(settings.admin)[0], settings.allowed_hosts)
        self._access = Access(settings.admin_token, gateway.clock)
        self._operations = Operations(gateway)
        self._gateway = gateway
        self._shared = shared
        self._browser = Browser(gateway, self._operations, self._access, self._numbers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI has it."""
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        client = Client(receive, send)
        try:
            await self._serve(scope, client)
        except ClientGone:
            return
        except Refused as refused:
            await client.refuse(refused.problem, refused.headers)
        except BudgetError as error:
            await client.refuse(problem_of(error))
        except Exception as error:
            _log.error("budget_guard admin: a request failed: %s", type(error).__name__, exc_info=error)
            if not client.started:
                await client.refuse(problem("internal", "The request failed. The log of the gateway says why."))

    async def _serve(self, scope: Scope, client: Client) -> None:
        headers = headers_of(scope)
        host = headers.get(b"host", b"")
        if not self._names.has(host):
            raise Refused(problem("misdirected_request", f"The host '{shown(host)}' is not served here."))
        origin = headers.get(b"origin")
        if origin is not None and origin.partition(b"://")[2] != host:
            raise Refused(problem("browser_refused", f"Pages of '{shown(origin)}' are not served."))
        if scope["path"] in PATHS:
            await self._browser.serve(scope, headers, client)
            return
        if not self._access.is_token(_bearer(headers)):
            raise Refused(
                problem("unauthorized", "Send the admin token: Authorization: Bearer ..."),
                [("WWW-Authenticate", "Bearer")],
            )
        path: str = scope["raw_path"].decode("latin-1")
        if path == DESCRIPTION and scope["method"] == "GET":
            await _answer(client, 200, openapi())
            return
        if path == "/metrics" and scope["method"] == "GET":
            await client.answer(
                200, [(b"content-type", CONTENT_TYPE.encode()), *_PRIVATE], exposition(self._numbers()).encode()
            )
            return
        operation, names = operation_at(OPERATIONS, scope["method"], path)
        query = _query(operation.query, scope["query_string"].decode("latin-1"))
        body = _body(operation.body, await client.body(_MOST_BODY, headers))
        status, document = await operation.run(self._operations, Asked(names, query, body))
        await _answer(client, status, document)

    def _numbers(self) -> Sequence[Snapshot]:
        """The numbers of all processes."""
        return [self._gateway.metrics.snapshot()] if self._shared is None else self._shared.read()


async def _answer(client: Client, status: int, document: Any) -> None:
    body = json.dumps(document, ensure_ascii=False).encode("utf-8", "backslashreplace")
    await client.answer(status, [(b"content-type", b"application/json"), *_PRIVATE], body)


def _bearer(headers: Mapping[bytes, bytes]) -> str | None:
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip().decode("latin-1") if scheme.lower() == b"bearer" else None


def _query(fields: Sequence[Field], text: str) -> dict[str, str]:
    query: dict[str, str] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name in query:
            raise Refused(problem("invalid_request", f"'{printable(name)[:100]}' is there more than once."))
        query[name] = value
    _check(fields, query)
    for name, value in query.items():
        if not value:
            raise Refused(problem("invalid_request", f"{name}='' says nothing: give a value, or leave it out."))
    return query


def _body(fields: Sequence[Field], data: bytes) -> dict[str, Any]:
    if not data.strip():
        _check(fields, {})
        return {}
    try:
        read: object = json.loads(data, parse_float=Decimal)
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        raise Refused(problem("invalid_request", "The body is no JSON object."))
    body = cast("dict[str, Any]", read)
    _check(fields, body)
    return body


def _check(fields: Sequence[Field], given: Mapping[str, Any]) -> None:
    """Refuse what is not known, and the lack of what is needed.

    Raises:
        Refused: If it is so.
    """
    known = [field.name for field in fields]
    for name in given:
        if name not in known:
            raise Refused(problem("invalid_request", unknown(name, known)))
    for field in fields:
        if field.is_required and field.name not in given:
            raise Refused(problem("invalid_request", f"{field.name} is missing: {field.words}."))
