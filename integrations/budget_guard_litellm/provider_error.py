"""The error of the client below one of LiteLLM's."""

from __future__ import annotations

from litellm.exceptions import APIConnectionError, InternalServerError

_DEEPEST = 8


def of_provider(error: BaseException) -> BaseException:
    """The error of the client below, where LiteLLM's own tells a status that nobody sent: 500 for no connection."""
    if not isinstance(error, (APIConnectionError, InternalServerError)):
        return error
    cause: BaseException | None = error
    for _ in range(_DEEPEST):
        if cause is None or not type(cause).__module__.startswith("litellm"):
            break
        cause = cause.__cause__ or cause.__context__
    return error if cause is None or getattr(cause, "status_code", None) is not None else cause
