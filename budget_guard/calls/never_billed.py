"""What a failed call's error says about its bill."""

from __future__ import annotations

from budget_guard.errors import LedgerUnavailable, ReservationError

_BEFORE_IT_WAS_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout")
"""Errors of the HTTP transports, by name, that come before any byte of the request has left."""


def never_billed(error: BaseException) -> bool:
    """Whether *error* proves that the provider billed nothing: it was never reached, or it refused the request."""
    cause: BaseException | None = error
    while cause is not None:  # frameworks wrap the client's error, and clients the transport's
        status = getattr(cause, "status_code", getattr(cause, "code", None))
        if isinstance(status, int):
            return (400 <= status < 500 and status != 408) or status == 503
        if type(cause).__name__ in _BEFORE_IT_WAS_SENT or isinstance(cause, (LedgerUnavailable, ReservationError)):
            return True  # where it cannot be noted that a call is sent, or its hold is gone, it is not sent
        cause = cause.__cause__
    return False
