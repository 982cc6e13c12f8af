"""The answer that an error carries: it was billed, and the client could make nothing of it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from budget_guard.wire import dialect_of_answer
from budget_guard.wire.answer import Answer
from budget_guard.wire.values import fields

_NAMES = ("completion", "last_completion", "raw_response")
"""Attributes in which libraries hand an answer on: `LengthFinishReasonError.completion` of OpenAI's client, which could
not parse an answer that a cap cut off; `IncompleteOutputException.last_completion` of instructor."""


def carried_answer(error: BaseException) -> Answer | None:
    """What the answer that *error* carries says was used; None where it carries none, or none that tells it."""
    given: dict[str, Any] = getattr(error, "__dict__", {})
    for name in _NAMES:
        carried = given.get(name)
        if carried is None:
            continue
        with suppress(Exception):  # it is another library's object
            dump = getattr(carried, "model_dump", None)
            body = fields(dump(mode="json") if callable(dump) else carried)
            dialect = dialect_of_answer(body)
            answer = None if dialect is None else dialect.read_answer(body, None)
            if answer is not None and answer.usage is not None:
                return answer
    return None
