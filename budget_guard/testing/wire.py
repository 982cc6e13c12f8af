"""The duties of a wire format: read requests into neutral words, and write answers out of them.

One more format is one more class with these members, and one more entry in `budget_guard.testing.provider`. A wire does
no more than that: what is sent when, in what pieces, and what breaks is `budget_guard.testing.serving`.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, cast

from budget_guard.testing.answer import Answer
from budget_guard.testing.request import MalformedRequest, ProviderRequest

CREATED = 1_735_689_600
"""The time stamp of every answer (2025-01-01): the provider has no clock."""
EVENT_STREAM = "text/event-stream; charset=utf-8"

Json: TypeAlias = dict[str, Any]


class Incoming(NamedTuple):
    """One HTTP request to a wire."""

    body: Json
    headers: Mapping[str, str]
    """Names in lower case."""
    path: str
    query: str
    named: Mapping[str, str]
    """The parts of the path that `Wire.route` names, unescaped: ``model``, ``verb``."""


class Step(NamedTuple):
    """Events of a stream that are sent at once."""

    kind: Literal["opening", "chunk", "ending", "late"]
    """A ``chunk`` carries one chunk of the answer and waits at its gate; ``late`` waits at both gates."""
    events: Sequence[Any]
    """JSON; a string is sent as it is."""


class Wire(ABC):
    """One endpoint of one provider."""

    route: ClassVar[re.Pattern[str]]
    """Matches the end of the escaped paths that it serves. Groups ``model`` and ``verb`` are what the path says."""
    newline: ClassVar[str] = "\n"
    """How lines of its server-sent events end."""
    events_are_named: ClassVar[bool] = False
    """Whether a server-sent event has a name, which is the "type" of its data."""

    @abstractmethod
    def read(self, incoming: Incoming) -> ProviderRequest:
        """What the client asks for.

        Raises:
            MalformedRequest: If the body is not a request of this endpoint.
        """

    def least_cap(self, request: ProviderRequest) -> int:
        """The lowest cap on output tokens that it accepts."""
        return 1

    @abstractmethod
    def whole(self, request: ProviderRequest, answer: Answer) -> Json:
        """The answer as one JSON document."""

    @abstractmethod
    def stream(self, request: ProviderRequest, answer: Answer) -> Iterator[Step]:
        """The answer as events: the opening, one step for each of its chunks, the ending."""

    def event(self, request: ProviderRequest, data: Any) -> bytes:
        """One event as it goes over the wire."""
        return sse(data, str(mapping(data).get("type", "")) if self.events_are_named else "")

    def joined(self, request: ProviderRequest, events: list[bytes]) -> list[bytes]:
        """The bytes of all steps of a stream, made to follow each other."""
        return events

    def stream_type(self, request: ProviderRequest) -> str:
        """The content type of a stream."""
        return EVENT_STREAM

    def headers(self, request: ProviderRequest, answer: Answer) -> Mapping[str, str]:
        """HTTP headers of the answer that only this wire has."""
        return {}

    @abstractmethod
    def error(self, status: int, message: str) -> Json:
        """The body of a refusal."""

    def error_headers(self, status: int) -> Mapping[str, str]:
        """HTTP headers of a refusal that only this wire has."""
        return {}

    def error_event(self, status: int, message: str) -> Any:
        """The event that tells of an error in mid-stream."""
        return self.error(status, message)


def sse(data: Any, name: str = "") -> bytes:
    """One server-sent event."""
    written = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    return (f"event: {name}\n" if name else "").encode() + f"data: {written}\n\n".encode()


def told_usage(answer: Answer, true: Json, name: str = "usage") -> Json:
    """The field that tells usage as the reply wants it: *true* usage, another one, null, or no field at all."""
    usage = answer.reply.usage
    true |= answer.reply.usage_extra
    if usage == "off":
        return {}
    if usage == "missing":
        return {name: None}
    if isinstance(usage, str):
        return {name: true}
    return {name: usage(true) if callable(usage) else usage}


def dressed(answer: Answer, document: Json) -> Json:
    """*document* with the reply's extra fields, and without those that it omits."""
    dressed = {**document, **answer.reply.extra}
    return {name: value for name, value in dressed.items() if name not in answer.reply.omit}


def ending_kind(answer: Answer) -> Literal["ending", "late"]:
    """How the last step, which carries usage, is sent."""
    return "late" if answer.reply.usage == "late" else "ending"


def mapping(value: object) -> Mapping[str, Any]:
    """*value* if it is a JSON object, else an empty one."""
    return cast(Mapping[str, Any], value) if isinstance(value, Mapping) else {}


def objects(value: object) -> list[Mapping[str, Any]]:
    """JSON objects in *value* if it is a list, else none."""
    return [mapping(entry) for entry in cast("list[object]", value)] if isinstance(value, list) else []


def tool_names(tools: object) -> tuple[str, ...]:
    """Names of the tools of a request; the type of a tool that has no name."""
    named = [{**entry, **mapping(entry.get("function"))} for entry in objects(tools)]
    return tuple(str(tool.get("name") or tool.get("type")) for tool in named)


def required(body: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    """The value of field *name*, which has to be there.

    Raises:
        MalformedRequest: If it is missing or not of type *kind*.
    """
    value = body.get(name)
    if not isinstance(value, kind):
        raise MalformedRequest(f"Missing or invalid required parameter: '{name}'.")
    return value


def optional_int(body: Mapping[str, Any], *names: str) -> int | None:
    """The value of the first field among *names* that is given.

    Raises:
        MalformedRequest: If it is not an integer.
    """
    for name in names:
        value = body.get(name)
        if type(value) is int:
            return value
        if value is not None:
            raise MalformedRequest(f"Invalid type for '{name}': expected an integer.")
    return None


def how_many(body: Mapping[str, Any], name: str) -> int:
    """The count of the field *name*, one where it is not given.

    Raises:
        MalformedRequest: If it is not an integer, or below one.
    """
    count = optional_int(body, name)
    if count is not None and count < 1:
        raise MalformedRequest(f"Invalid value for '{name}': expected an integer of at least 1, got {count}.")
    return 1 if count is None else count


def parsed_arguments(written: str) -> object:
    """A tool's arguments as JSON; as they are written where that is broken on purpose."""
    try:
        return json.loads(written)
    except ValueError:
        return written


def model_of(incoming: Incoming) -> str:
    """The model that the path names, else the one that the body does.

    Raises:
        MalformedRequest: If neither does.
    """
    return incoming.named.get("model") or required(incoming.body, "model", str)


def openai_error(status: int, message: str) -> Json:
    """An error as all OpenAI endpoints give it."""
    by_status = {
        400: ("invalid_request_error", None),
        401: ("invalid_request_error", "invalid_api_key"),
        404: ("invalid_request_error", "model_not_found"),
        429: ("requests", "rate_limit_exceeded"),
    }
    other = "server_error" if status >= 500 else "invalid_request_error"
    kind, code = by_status.get(status, (other, None))
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
