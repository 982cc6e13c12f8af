"""What all of Bedrock's wires share: errors, and events in binary frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from budget_guard.testing.wire import Json, mapping

_EXCEPTIONS = {
    400: "ValidationException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    424: "ModelErrorException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
}


def exception_name(status: int) -> str:
    """The name of the exception with HTTP status *status*."""
    return _EXCEPTIONS.get(status, "InternalServerException" if status >= 500 else "ValidationException")


def exception_headers(status: int) -> Mapping[str, str]:
    """The HTTP header that names the exception."""
    return {"x-amzn-errortype": exception_name(status)}


def exception_event(status: int, message: str) -> Json:
    """The event that tells of an exception in mid-stream."""
    name = exception_name(status)
    return {name[0].lower() + name[1:]: {"message": message}}


def exception_in(data: Any) -> tuple[str, Any] | None:
    """Name and payload if *data* is the event of an exception."""
    for name, payload in mapping(data).items():
        if name.endswith("Exception"):
            return name, payload
    return None
