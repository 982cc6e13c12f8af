"""What a guarded client may send: requests that are held, and requests that are free. Nothing else.

By dialect and whole path: the same path is free storage at one provider and a paid answer at another. So an endpoint
that an SDK adds is refused until it is known, and no price is guessed.
"""

from __future__ import annotations

import re
from typing import NoReturn

from budget_guard.adapter.attempts import Attempts
from budget_guard.errors import UnboundedCallError
from budget_guard.wire import Dialect
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
_COHERE = re.compile(r"(?:.*/v[12])?/(?:tokenize|detokenize|check-api-key)")
_ANYWHERE = re.compile(
    r"(?:.*/v\d)?/(?:moderations|responses/input_tokens|messages/count_tokens)|.*/models/[^/:]+:countTokens"
)
"""Where it is not known who answers: the names that mean one thing alone."""
_FREE = {
    "openai": (_OPENAI,),
    "azure": (_OPENAI,),
    "anthropic": (_ANTHROPIC,),
    "google": (_VERTEX,),
    "aws": (),
    "cohere": (_COHERE,),
}


def is_free(method: str, host: str, path: str, speaks: str | None = None) -> bool:
    """Whether a request costs nothing.

    Args:
        method: The HTTP method.
        host: The host.
        path: The path.
        speaks: Whose language the client speaks, where the host is not known: ``"openai"``, ``"anthropic"``.
    """
    where = endpoint(method, host, path)
    if where.method in _HARMLESS:
        return True
    if where.method != "POST":
        return False
    provider = where.provider or speaks
    return any(free.fullmatch(where.path) for free in _FREE.get(provider or "", (_ANYWHERE,)))


def dialect_or_pass(attempts: Attempts, method: str, host: str, path: str, speaks: str | None) -> Dialect | None:
    """The dialect in which a request is to be held; None where it passes as it is.

    Raises:
        UnboundedCallError: If it may be sent by no guarded client.
    """
    if not attempts.sessions:  # it watches for the layers above alone
        return None if is_free(method, host, path, speaks) else attempts.dialect_of(method, host, path)
    if is_free(method, host, path, speaks):
        return None
    dialect = attempts.dialect_of(method, host, path)
    if dialect is None:
        _refuse(f"{method} {endpoint(method, host, path).path}")
    return dialect


def _refuse(what: str) -> NoReturn:
    raise UnboundedCallError(
        model=what,
        reason="the guard cannot hold what this endpoint costs, so the request was not sent",
        remedy="Send it with the client that is not guarded, and book what it cost with "
        'session.charge("images", "0.04").',
    )
