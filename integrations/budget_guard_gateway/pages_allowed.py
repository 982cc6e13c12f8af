"""What browsers are told about the pages whose scripts may ask (https://fetch.spec.whatwg.org/#http-cors-protocol).

A script sends its key by itself: a cookie opens nothing, so none need be let through.
"""

from __future__ import annotations

from collections.abc import Mapping

from budget_guard_gateway.messages import Headers

_KEPT_S = b"600"
"""Seconds for which a browser need not ask again."""
_METHOD, _HEADERS = b"access-control-request-method", b"access-control-request-headers"


def answer_to_page(origin: bytes) -> Headers:
    """What an answer says besides, so that a page of *origin* may read it, its headers included."""
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", b"*"),
        (b"vary", b"origin"),
    ]


def is_preflight(method: str, headers: Mapping[bytes, bytes]) -> bool:
    """Whether a browser asks for a page, before it sends what the page wants: such a request carries no key."""
    return method == "OPTIONS" and _METHOD in headers


def answer_to_preflight(headers: Mapping[bytes, bytes]) -> Headers:
    """That the page may send what it wants to. Whether that is served is told when it comes."""
    told = [(b"access-control-allow-methods", headers[_METHOD]), (b"access-control-max-age", _KEPT_S)]
    if (wanted := headers.get(_HEADERS)) is not None:
        told.append((b"access-control-allow-headers", wanted))
    if headers.get(b"access-control-request-private-network") == b"true":
        told.append((b"access-control-allow-private-network", b"true"))
    return told
