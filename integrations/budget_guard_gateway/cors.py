"""CORS: headers that let scripts of allowed origins call the gateway (https://fetch.spec.whatwg.org/#http-cors-protocol).

A script sends its key by itself: a cookie opens nothing, so none need be let through.
"""

from __future__ import annotations

from collections.abc import Mapping

from budget_guard_gateway.messages import Headers

_KEPT_S = b"600"
"""Seconds for which a browser need not ask again."""
_METHOD, _HEADERS = b"access-control-request-method", b"access-control-request-headers"


def cors_headers(origin: bytes) -> Headers:
    """The headers with which a script of *origin* may read an answer, its headers included."""
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", b"*"),
        (b"vary", b"origin"),
    ]


def is_preflight(method: str, headers: Mapping[bytes, bytes]) -> bool:
    """True for a preflight request, which a browser sends before a script's own. It carries no key."""
    return method == "OPTIONS" and _METHOD in headers


def preflight_headers(headers: Mapping[bytes, bytes]) -> Headers:
    """The headers that allow a script's method and headers. The request itself may still be refused when it comes."""
    told = [(b"access-control-allow-methods", headers[_METHOD]), (b"access-control-max-age", _KEPT_S)]
    if (wanted := headers.get(_HEADERS)) is not None:
        told.append((b"access-control-allow-headers", wanted))
    if headers.get(b"access-control-request-private-network") == b"true":
        told.append((b"access-control-allow-private-network", b"true"))
    return told
