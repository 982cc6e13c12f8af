"""What a call that failed says about its bill: nothing was billed for sure, or nobody knows.

Nothing is billed for what never left this machine, and for what a provider refused before it worked on it. After any
work it may bill, whatever it answers: then the bound is booked, marked as uncertain.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from budget_guard.errors import BudgetError, LedgerUnavailable, ReservationError
from budget_guard.wire.values import Json, fields, items

_REFUSED = frozenset(
    {400, 401, 402, 403, 404, 405, 406, 409, 410, 411, 412, 413, 414, 415, 417, 421, 422, 426, 428, 429, 431}
)
"""Statuses with which a request is refused before anybody works on it. 408, 424, 425, 451 and 499 are not among
them."""
_OVERLOADED = frozenset({503, 529})
"""Statuses with which a provider says that it took no work on. A proxy between may say so of a request that went
through, so the provider's own body has to say it."""
_FILTER_RESULTS = ("content_filter_result", "content_filter_results")
_FILTERS = ("content_filter", "ResponsibleAIPolicyViolation", "content_policy_violation")
"""Codes of a refusal by a content filter. Azure bills these:
https://learn.microsoft.com/azure/ai-foundry/openai/concepts/content-filter."""

_NEVER_SENT = frozenset(
    {
        # httpx, httpx2
        "ConnectError",
        "ConnectTimeout",
        "PoolTimeout",
        "UnsupportedProtocol",
        "InvalidURL",
        "LocalProtocolError",
        "ProxyError",
        # aiohttp
        "ClientConnectorError",
        "ClientConnectorDNSError",
        "ClientConnectorSSLError",
        "ClientConnectorCertificateError",
        "ClientProxyConnectionError",
        "ClientHttpProxyError",
        "ConnectionTimeoutError",
        "NonHttpUrlClientError",
        "InvalidUrlClientError",
        # urllib3, requests
        "NewConnectionError",
        "ConnectTimeoutError",
        "NameResolutionError",
        "LocationParseError",
        "MissingSchema",
        "InvalidSchema",
        # botocore
        "EndpointConnectionError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "NoRegionError",
        "ParamValidationError",
        "UnauthorizedSSOTokenError",
        "TokenRetrievalError",
        "ProfileNotFound",
        "ProxyConnectionError",
        "SSOTokenLoadError",
        # google-auth
        "DefaultCredentialsError",
        "RefreshError",
        # Python
        "ConnectionRefusedError",
        "gaierror",
    }
)
"""Errors of clients, by name, that come before any byte of the request has left. By name, because no client is
imported."""
_UNREADABLE = frozenset({"HttpProcessingError"})
"""aiohttp's errors of an answer that is no HTTP. They carry a status of 400, which no provider has sent."""
_UNSURE = frozenset(
    "ReadTimeout WriteTimeout ReadError WriteError RemoteProtocolError CloseError ServerDisconnectedError "
    "ServerTimeoutError ReadTimeoutError ConnectionClosedError IncompleteRead ProtocolError ClientPayloadError "
    "ChunkedEncodingError ResponseStreamingError CancelledError ResponseParserError".split()
)
"""Errors after which nobody knows, whatever they were raised from."""

_MOST_CAUSES = 32


class Outcome(NamedTuple):
    """What is known about the bill of a call that failed."""

    released: bool
    """Whether nothing was billed for sure. Else the bound is booked, uncertain."""
    reason: str
    """Why, in words that hold nothing of the request or the answer."""
    is_server_error: bool = False
    """Whether it is a 500 with the provider's own body, which `Budget.server_errors` may trust not to be billed."""

    @property
    def uncertain(self) -> bool:
        """Whether nobody knows."""
        return not self.released


def outcome_of_status(
    status: int,
    headers: Mapping[str, str] | None = None,
    body: object = None,
    *,
    unknown_before: int = 0,
    requests: int = 1,
) -> Outcome:
    """What an HTTP answer that is no success says about the bill.

    Args:
        status: The HTTP status.
        headers: Its headers, in any case.
        body: Its body: JSON already read, or bytes or text; None where it is not at hand.
        unknown_before: Earlier attempts of the same call whose outcome nobody knows.
        requests: How many requests the call was sent in. One that fails says nothing of the others.
    """
    if requests > 1:
        return Outcome(False, f"status {status} of one of {requests} requests")
    if unknown_before:
        return Outcome(False, f"status {status} after an attempt whose outcome is not known")
    own = _own_error(headers, body)
    if status == 400 and _is_filtered(own if own is not None else body):
        return Outcome(False, "a content filter refused it, which may be billed")
    if 300 <= status < 400:
        return Outcome(True, f"status {status}: sent on elsewhere")
    if status in _REFUSED:
        return Outcome(True, f"status {status}: refused")
    if status in _OVERLOADED:
        if own is not None:
            return Outcome(True, f"status {status}: the provider took no work on")
        return Outcome(False, f"status {status} without the provider's own words")
    return Outcome(False, f"status {status}: work may have been done", status == 500 and own is not None)


def outcome_of_error(error: BaseException, *, unknown_before: int = 0, requests: int = 1) -> Outcome:
    """What an exception of a client says about the bill, through all that it was raised from.

    Args:
        error: The exception.
        unknown_before: Earlier attempts of the same call whose outcome nobody knows.
        requests: How many requests the call was sent in.
    """
    chain = list(_chain(error))
    for cause in chain:
        if isinstance(cause, (LedgerUnavailable, ReservationError)):
            # where it cannot be noted that a call is sent, or its hold is gone, it is not sent
            return Outcome(True, "it was not sent: the ledger stopped it")
        if any(kind.__name__ in _UNREADABLE for kind in type(cause).__mro__):
            return Outcome(False, "what came back is no HTTP that can be read")
    for cause in chain:
        status = _status(cause)
        if status is not None:
            headers, body = _response_of(cause)
            return outcome_of_status(status, headers, body, unknown_before=unknown_before, requests=requests)
        name = type(cause).__name__
        if name in _UNSURE:
            return Outcome(False, f"{name}: it may have been sent")
        if name in _NEVER_SENT:
            if unknown_before or requests > 1:
                return Outcome(False, f"{name} after what may have been sent")
            return Outcome(True, f"{name}: it was not sent")
    if _is_refused_by_client(error) and not unknown_before and requests == 1:
        return Outcome(True, f"{type(error).__name__}: the client did not send it")
    return Outcome(False, f"{type(error).__name__}: it may have been sent")


def never_billed(error: BaseException) -> bool:
    """Whether *error* proves that the provider billed nothing: it was never reached, or it refused the request."""
    return outcome_of_error(error).released


def _chain(error: BaseException) -> Iterator[BaseException]:
    """*error* and all that it was raised from, the nearest first: frameworks wrap a client's error, and clients the
    transport's. What it was raised beside counts only where nothing is named as its cause."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen and len(seen) < _MOST_CAUSES:
        seen.add(id(cause))
        yield cause
        reason: object = _told(cause, "reason")  # urllib3's MaxRetryError, urllib's URLError
        cause = cause.__cause__ or (reason if isinstance(reason, BaseException) else cause.__context__)


def _told(of: object, name: str) -> object:
    """An attribute; None where there is none, or where it cannot be read, such as the content of an unread stream."""
    try:
        return getattr(of, name, None)
    except Exception:  # each client has errors of its own for it
        return None


def _status(error: BaseException) -> int | None:
    """The HTTP status that an exception carries. One of our own stops tells nothing by it."""
    if isinstance(error, BudgetError):
        return None
    response: object = _told(error, "response")
    found: list[object] = [
        _told(error, "status_code"),
        fields(fields(response).get("ResponseMetadata")).get("HTTPStatusCode"),  # botocore's
        _told(response, "status_code"),
        _told(response, "status"),
        _told(error, "code"),
        _told(error, "status"),
        _told(error, "http_status"),
    ]
    return next((int(each) for each in found if type(each) is not bool and isinstance(each, int) and each >= 100), None)


def _response_of(error: BaseException) -> tuple[Mapping[str, str] | None, object]:
    """The headers and the body of the response that an exception carries, as far as they were read."""
    response: object = _told(error, "response")
    if given := fields(response):  # botocore's
        return None, {"error": given.get("Error")} if given.get("Error") else None
    headers = fields(_told(response, "headers")) or None
    body: object = _told(error, "body")
    if not _is_readable(body):
        body = _told(error, "details")  # google-genai keeps its JSON there
    if not _is_readable(body):
        body = _told(response, "content")
    return headers, body if _is_readable(body) else None


def _is_readable(body: object) -> bool:
    return isinstance(body, (bytes, str, dict, list))


def _json_of(body: object) -> object:
    """JSON, read or not."""
    if not isinstance(body, (bytes, str)):
        return body
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _own_error(headers: Mapping[str, str] | None, body: object) -> Json | None:
    """The error in a provider's own JSON; None for what a proxy between may have made."""
    if isinstance(body, (bytes, str)):
        kind = next((str(kind) for name, kind in (headers or {}).items() if name.lower() == "content-type"), "json")
        if "json" not in kind:
            return None
    value = _json_of(body)
    given = fields(value) or fields(next(iter(items(value)), None))  # Google answers a stream with an array
    # an SDK keeps the inside of the error alone; AWS has a type and a message
    named = [given.get(name) for name in ("error", "message", "__type", "code", "type")]
    return given if any(name and isinstance(name, (dict, str)) for name in named) else None


def _is_filtered(body: object) -> bool:
    """Whether an error is a content filter's. Looked for in codes, not in texts that a prompt could write."""
    left: list[object] = [_json_of(body)]
    for _ in range(64):
        if not left:
            break
        value = left.pop()
        left += items(value)
        for name, inner in fields(value).items():
            if name in _FILTER_RESULTS or (name in ("code", "type") and isinstance(inner, str) and inner in _FILTERS):
                return True
            left.append(inner)
    return False


_REFUSED_ARGUMENTS = re.compile(
    r"\w+\(\) (?:got (?:an unexpected keyword argument|multiple values for keyword argument)|missing \d+ required)"
    r"|Missing required arg"
)


def _is_refused_by_client(error: BaseException) -> bool:
    """Whether a client raised *error* while it made the request, because it knows no such argument."""
    return type(error) is TypeError and _REFUSED_ARGUMENTS.search(str(error)) is not None
