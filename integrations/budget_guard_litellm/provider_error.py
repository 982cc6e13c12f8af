"""What an error of LiteLLM's says of the attempt that ended in it."""

from __future__ import annotations

from litellm.exceptions import APIConnectionError, ContentPolicyViolationError, InternalServerError

from budget_guard.adapter import Attempt

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


def settle_failed(attempt: Attempt, error: BaseException) -> None:
    """Settle an attempt that ended in *error*."""
    if isinstance(error, ContentPolicyViolationError):
        attempt.give_up()  # a filter looks at what was made, and that is billed
    else:
        attempt.fail(of_provider(error))


async def asettle_failed(attempt: Attempt, error: BaseException) -> None:
    """As `settle_failed`."""
    if isinstance(error, ContentPolicyViolationError):
        await attempt.agive_up()
    else:
        await attempt.afail(of_provider(error))
