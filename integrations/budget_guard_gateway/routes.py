"""Routes: which provider a request goes to, and whether it is held, free, or refused.

By whole paths: what is not known here is passed on by no gateway, because an endpoint that nobody holds to a budget is
a hole in all of them. What providers keep for an account, such as files and stored answers, is not among the free
ones: all callers share the account.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from budget_guard.wire import (
    CHAT_COMPLETIONS,
    COHERE_CHAT,
    COMPLETIONS,
    CONVERSE,
    EMBEDDINGS,
    GENERATE_CONTENT,
    MESSAGES,
    RESPONSES,
    Dialect,
    Endpoint,
    dialect_at,
)
from budget_guard.wire.hosts import endpoint
from budget_guard_gateway.settings import Upstream

_VERSION = r"(?:/v\d+(?:alpha|beta)?\d*)?"
_VERTEX = r"(?:/projects/[^/]+/locations/[^/]+(?:/publishers/[^/]+)?)?"
_HELD = re.compile(
    rf"(?:/openai)?{_VERSION}/(?:chat/completions|completions|responses|embeddings|messages|chat)"
    r"|/openai/deployments/[^/]+/(?:chat/completions|completions|embeddings)"
    rf"|{_VERSION}{_VERTEX}/models/[^/:]+:(?:generateContent|streamGenerateContent|rawPredict|streamRawPredict)"
    rf"|{_VERSION}{_VERTEX}/(?:tunedModels|endpoints)/[^/:]+:(?:generateContent|streamGenerateContent)"
    r"|/model/[^/]+/(?:invoke|invoke-with-response-stream|converse|converse-stream)"
)
"""The paths of what is held."""
_FREE = re.compile(
    rf"GET (?:/openai)?{_VERSION}/models(?:/[^/:]+(?:/[^/:]+)?)?"
    rf"|POST {_VERSION}/messages/count_tokens|POST {_VERSION}/responses/input_tokens"
    rf"|POST {_VERSION}{_VERTEX}/models/[^/:]+:countTokens"
)
"""What costs nothing, and tells nothing of other callers."""
_UNCLEAR = re.compile(r"//|/\.{1,2}(?:/|$)|[\\\x00-\x1f\x7f]")
"""Paths that two servers may take for two different ones."""
_SPEAKS: tuple[tuple[str, tuple[Dialect, ...]], ...] = (
    ("openai", (CHAT_COMPLETIONS, RESPONSES, COMPLETIONS, EMBEDDINGS)),
    ("anthropic", (MESSAGES,)),
    ("google", (GENERATE_CONTENT,)),
    ("aws", (CONVERSE,)),
    ("cohere", (COHERE_CHAT,)),
)
"""Who speaks a dialect, where a path names nobody."""


class Route(NamedTuple):
    """Where a request goes to."""

    upstream: Upstream | None
    """None where nobody here speaks its dialect."""
    endpoint: Endpoint
    path: str
    """The path at the upstream, escaped, without a query."""
    dialect: Dialect | None
    """The dialect in which it is held; None where it is free or unknown."""
    passes: bool
    """Whether it is passed on without being held."""
    origin: str = ""
    """The address of the upstream, without a path."""
    credential: tuple[str, str] | None = None
    """The header with the upstream's key."""


class Router:
    """Finds routes.

    Args:
        upstreams: Where requests may go to.
        passthrough: Requests that are passed on without being held, such as ``POST /v1/moderations``.
    """

    def __init__(self, upstreams: Sequence[Upstream], passthrough: Sequence[str] = ()) -> None:
        self._upstreams = {each.name: each for each in upstreams}
        self._passthrough = frozenset(" ".join(each.split()) for each in passthrough)
        self.route = lru_cache(maxsize=1_024)(self._route)
        """The route of a request, by its method, its escaped path and its query."""

    def _route(self, method: str, path: str, query: str) -> Route:
        name, slash, rest = path.removeprefix("/").partition("/")
        upstream = self._upstreams.get(name) if slash else None
        if upstream is not None:
            path = "/" + rest
        plain = unquote(path)
        dialect: Dialect | None = None
        passes = False
        if _UNCLEAR.search(plain) is None:
            asked = f"{method} {plain}"
            passes = asked in self._passthrough or _FREE.fullmatch(asked) is not None
            if not passes and _HELD.fullmatch(plain):
                dialect = self._dialect(method, plain, upstream)
        if upstream is None:
            upstream = self._who_speaks(dialect, plain)
        if upstream is None:
            return Route(None, endpoint(method, "", path), path, dialect, passes)
        sent = upstream.base_path + path
        where = endpoint(method, upstream.host, f"{sent}?{query}" if query else sent)
        where = where._replace(provider=upstream.provider)
        found = dialect and dialect_at(where)
        return Route(upstream, where, sent, found, passes, upstream.origin, upstream.credential)

    def _dialect(self, method: str, plain: str, upstream: Upstream | None) -> Dialect | None:
        where = endpoint(method, "", plain)
        return dialect_at(where if upstream is None else where._replace(provider=upstream.provider))

    def _who_speaks(self, dialect: Dialect | None, plain: str) -> Upstream | None:
        """The upstream for a path that names none: the only one, or the one whose dialect it is."""
        if len(self._upstreams) == 1:
            return next(iter(self._upstreams.values()))
        if dialect is not None:
            provider = next(provider for provider, spoken in _SPEAKS if dialect in spoken)
        elif ":countTokens" in plain:
            provider = "google"
        else:
            provider = "anthropic" if plain.endswith("/messages/count_tokens") else "openai"
        by_name = self._upstreams.get(provider)
        return by_name or next((each for each in self._upstreams.values() if each.provider == provider), None)
