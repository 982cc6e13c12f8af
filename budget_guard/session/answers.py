"""Answers that were made elsewhere: what each kind of object says was used, and which are booked already.

An answer is told by what it looks like, and read by its provider's dialect: no SDK is imported here.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from budget_guard.wire import (
    CHAT_COMPLETIONS,
    COMPLETIONS,
    CONVERSE,
    EMBEDDINGS,
    GENERATE_CONTENT,
    MESSAGES,
    RESPONSES,
    Answer,
    Dialect,
    dialect_at,
    dialect_of_answer,
    endpoint_of_url,
    outcome_of_status,
)
from budget_guard.wire.values import Json, fields, items, text

_KEPT = 1_000
_KEPT_WHOLE = 8
"""Answers without an id that are kept themselves, because nothing else tells them from others."""
_BY_LOOK = (
    ("object", "response", RESPONSES),
    ("object", "chat.completion", CHAT_COMPLETIONS),
    ("object", "text_completion", COMPLETIONS),
    ("type", "message", MESSAGES),
)
_BY_FIELD = (("candidates", GENERATE_CONTENT), ("choices", CHAT_COMPLETIONS), ("stopReason", CONVERSE))


class NotCalled(TypeError):
    """It is no answer, and nothing was sent for it."""


class NotRead(TypeError):
    """It is no answer, and tells nothing of what was perhaps spent: a stream."""


class Read(NamedTuple):
    """What an answer says, and what it is known by."""

    answer: Answer
    key: str | None = None
    """The id of the answer, or of the request that it answers; None where it has none."""
    unbilled: bool = False
    """Whether it is a refusal, which costs nothing."""


def read(value: object, message: Callable[[Any], Answer]) -> Read:
    """What *value*, an answer of any SDK, says was used.

    Args:
        value: The answer: an SDK's object, a raw response, a message of LangChain, or a dict of one of these.
        message: Reads a message of LangChain.

    Raises:
        NotCalled: If nothing was called yet, or it is nothing that a model answers.
        NotRead: If it is a stream.
    """
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()  # it is not awaited any more, and need not warn of that
        raise NotCalled("wrap was given a coroutine, so nothing is answered yet: await session.awrap(...) it")
    if is_message(value):
        found = message(value)
        return Read(found, found.id)
    if hasattr(value, "parse") and hasattr(value, "http_response"):  # of with_raw_response
        parsed = cast("Any", value).parse()
        if inspect.isawaitable(parsed):
            if inspect.iscoroutine(parsed):
                parsed.close()
            raise NotCalled("wrap was given a raw response that has to be awaited: await session.awrap(...) it")
        return read(parsed, message)
    raw = _raw_response(value)
    if raw is not None:
        return raw
    if _is_stream(value):
        raise NotRead(
            "wrap was given a stream, which tells its cost at its end, if at all. Guard the client in its place, "
            "session.guard(client), and every stream of it is held and booked"
        )
    body = _as_json(value)
    if body is None:
        raise NotCalled(
            f"wrap takes a model's answer, and {type(value).__name__} is none that is known: book what it cost with "
            'session.charge("tool", "0.01")'
        )
    inner = body.get("raw")
    if "parsed" in body and is_message(inner):  # LangChain's with_structured_output(include_raw=True)
        return read(inner, message)
    dialect = _dialect(body)
    if dialect is None:
        raise NotCalled(
            f"wrap takes a model's answer, and this {type(value).__name__} does not look like one of any provider that "
            'is known: book what it cost with session.charge("tool", "0.01")'
        )
    answer = dialect.read_answer(body, None)
    return Read(answer, answer.id or text(getattr(value, "_request_id", None)))


def is_message(value: object) -> bool:
    """Whether it is a message of LangChain that a model made."""
    return hasattr(value, "usage_metadata") and hasattr(value, "response_metadata")


def _raw_response(value: object) -> Read | None:
    """The answer in a response of an HTTP library, as far as that was read; None of anything else."""
    status, read_json = getattr(value, "status_code", None), getattr(value, "json", None)
    if type(status) is not int or not callable(read_json):
        return None
    response = cast("Any", value)
    try:
        where = endpoint_of_url(str(response.url))
    except Exception:  # one that belongs to no request
        where = None
    if not 200 <= status < 300:
        outcome = outcome_of_status(status, response.headers, response.content)
        return Read(Answer("http", problem=f"HTTP {status}"), unbilled=outcome.released)
    try:
        body = fields(response.json())
    except Exception as error:
        raise NotRead(f"wrap was given a response that cannot be read as JSON: {type(error).__name__}") from None
    dialect = (None if where is None else dialect_at(where)) or _dialect(body)
    if dialect is None:
        raise NotCalled("wrap was given a response of an endpoint that no model answers at: use session.charge")
    answer = dialect.read_answer(body, None)
    headers = response.headers
    return Read(answer, answer.id or headers.get("x-request-id") or headers.get("request-id"))


def _is_stream(value: object) -> bool:
    kind = type(value)
    return hasattr(kind, "__next__") or hasattr(kind, "__anext__") or hasattr(kind, "__aiter__")


def _as_json(value: object) -> Json | None:
    if isinstance(value, dict):
        return cast(Json, value)
    if isinstance(value, type):
        return None
    made_of = getattr(value, "_raw_response", None)  # instructor's: the object is what was asked for
    if made_of is not None:
        return _as_json(made_of)
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        # what is embedded may be millions of numbers
        try:
            return fields(dump(by_alias=True, warnings=False, exclude={"data": {"__all__": {"embedding"}}}))
        except TypeError:  # a method of that name alone
            return fields(dump())
    as_dict = getattr(value, "to_dict", None)
    return fields(as_dict()) if callable(as_dict) else None


def _dialect(body: Json) -> Dialect | None:
    """The dialect of an answer, also of one that tells no usage."""
    found = dialect_of_answer(body)
    if found is EMBEDDINGS and not fields(body.get("usage")):
        found = None
    if found is not None:
        return found
    for name, value, dialect in _BY_LOOK:
        if body.get(name) == value:
            return dialect
    if any(fields(each).get("object") == "embedding" for each in items(body.get("data"))[:1]):
        return EMBEDDINGS
    return next((dialect for name, dialect in _BY_FIELD if name in body), None)


class KnownAnswers:
    """The latest answers that were booked, so that each is booked once. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids = OrderedDict[str, None]()  # to find the first of a dict takes longer with each that was removed
        self._objects = OrderedDict[int, weakref.ref[object]]()
        self._whole: list[object] = []

    def add(self, key: str) -> bool:
        """Note that an answer is booked; returns whether it was new."""
        with self._lock:
            if key in self._ids:
                return False
            self._ids[key] = None
            if len(self._ids) > _KEPT:
                self._ids.popitem(last=False)
        return True

    def add_object(self, value: object) -> bool:
        """As `add`, of an answer that has no id: it is known by itself alone."""
        with self._lock:
            known = self._objects.get(id(value))
            if (known is not None and known() is value) or any(each is value for each in self._whole):
                return False
            try:
                self._objects[id(value)] = weakref.ref(value)
            except TypeError:
                self._whole = [*self._whole[1 - _KEPT_WHOLE :], value]
            if len(self._objects) > _KEPT:
                self._objects.popitem(last=False)
        return True

    def forget(self, key: str | None, value: object) -> None:
        """Note that it is not booked after all."""
        with self._lock:
            if key is not None:
                self._ids.pop(key, None)
            self._objects.pop(id(value), None)
            self._whole = [each for each in self._whole if each is not value]
