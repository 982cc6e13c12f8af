"""What a guarded client may send: requests that are held, and requests that are free. Nothing else.

By dialect and whole path: the same path is free storage at one provider and a paid answer at another. So an endpoint
that an SDK adds is refused until it is known, and no price is guessed.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import NamedTuple, NoReturn

from budget_guard.adapter.attempts import Attempts, counted_by
from budget_guard.adapter.priced_request import PricedRequest, priced_request
from budget_guard.errors import UnboundedCallError
from budget_guard.wire import Dialect, Endpoint, dialect_at
from budget_guard.wire.hosts import endpoint

_HARMLESS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
"""Methods that ask a model for nothing."""

_OPENAI = re.compile(
    r"(?:.*/(?:v\d|openai|deployments/[^/]+))?/"
    r"(?:moderations|responses/input_tokens|(?:responses|batches)/[^/]+/cancel|files|uploads(?:/.*)?"
    r"|conversations(?:/.*)?)"
)
"""https://platform.openai.com/docs/api-reference: checks, counts, storage, and the cancelling of what was paid for."""
_ANTHROPIC = re.compile(r"(?:.*/v1)?/(?:messages/count_tokens|messages/batches/[^/]+/cancel|files)")
_VERTEX = re.compile(
    r".*/publishers/anthropic/models/count-tokens:rawPredict|.*/(?:models|endpoints)/[^/:]+:countTokens"
)
_GEMINI_FILES = re.compile(r"(?:/upload)?/v\d\w*/files")
"""https://ai.google.dev/gemini-api/docs/files: free storage. What is in a file is billed where it is read."""
_COHERE = re.compile(r"(?:.*/v[12])?/(?:tokenize|detokenize|check-api-key)")
_ANYWHERE = re.compile(
    r"(?:.*/v\d)?/(?:moderations|responses/input_tokens|messages/count_tokens)|.*/models/[^/:]+:countTokens"
)
"""Where it is not known who answers: the names that mean one thing alone."""
_FREE = {
    "openai": (_OPENAI,),
    "azure": (_OPENAI,),
    "anthropic": (_ANTHROPIC,),
    "google": (_VERTEX, _GEMINI_FILES),
    "aws": (),
    "cohere": (_COHERE,),
}


class Route(NamedTuple):
    """What is known of a request by its method and its address alone."""

    where: Endpoint
    dialect: Dialect | None
    """The dialect in which it is held; None where it is none of ours."""
    free: bool
    """Whether it costs nothing."""


@lru_cache(maxsize=1_024)
def route(method: str, host: str, path: str, speaks: str | None = None) -> Route:
    """What is known of a request.

    Args:
        method: The HTTP method.
        host: The host.
        path: The path, with or without a query.
        speaks: Whose language the client speaks, where the host is not known: ``"openai"``, ``"anthropic"``.
    """
    where = endpoint(method, host, path)
    free = where.method in _HARMLESS
    if where.method == "POST":
        provider = where.provider or speaks
        free = any(each.fullmatch(where.path) for each in _FREE.get(provider or "", (_ANYWHERE,)))
    return Route(where, dialect_at(where), free)


def is_free(method: str, host: str, path: str, speaks: str | None = None) -> bool:
    """Whether a request costs nothing. The arguments are those of `route`."""
    return route(method, host, path, speaks).free


def way_of(attempts: Attempts, way: Route) -> Dialect | PricedRequest | None:
    """The dialect in which a request is to be held, or the request at a price that the user names.

    Returns:
        None where it passes as it is.

    Raises:
        UnboundedCallError: If it may be sent by no guarded client.
    """
    dialect = way.dialect
    if not attempts.sessions:  # it watches for the layers above alone
        return dialect if not way.free and counted_by().calls else None
    if way.free and way.where.method in _HARMLESS:
        return None
    if dialect is not None and not way.free:
        return dialect
    priced = priced_request(attempts.sessions, way.where, attempts.agent)
    if priced is None and not way.free:
        _refuse(way.where)
    return priced


def check_allowances(attempts: Attempts) -> None:
    """Refuse a price by request for what is held by its tokens: it would not count.

    Raises:
        ValueError: If an allowance names one.
    """
    for session in attempts.sessions:
        for path in session.budget.allowance.requests:
            if dialect_at(endpoint("POST", "", path)) is not None:
                raise ValueError(
                    f"allowance.requests[{path!r}]: such a request is held by what its model costs. Leave it out, and "
                    'give the model a price with pricing={"my-model": (2.5e-6, 10e-6)}'
                )


_VERSION = re.compile(r".*/(?:v\d[a-z0-9]*|openai|deployments/[^/]+)(?=/)")


def _refuse(where: Endpoint) -> NoReturn:
    path = json.dumps(_VERSION.sub("", where.path))
    raise UnboundedCallError(
        model=f"{where.method} {where.path}",
        reason="the guard cannot hold what this endpoint costs, so the request was not sent",
        remedy=f'Say what one such request costs: Budget(..., allowance=Allowance(requests={{{path}: "0.04"}})). '
        "Or send it with the client that is not guarded, and book what it cost with "
        'session.charge("images", "0.04").',
    )
