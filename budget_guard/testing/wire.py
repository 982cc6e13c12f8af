"""The duties of a wire format: read requests into neutral words, and write answers out of them.

One more format is one more class with these members, and one more entry in `budget_guard.testing.provider`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, cast

from budget_guard.testing.answer import Answer
from budget_guard.testing.request import MalformedRequest, ProviderRequest

CREATED = 1_735_689_600
"""The time stamp of every answer (2025-01-01): the provider has no clock."""

Json: TypeAlias = dict[str, Any]


class Frame(NamedTuple):
    """Bytes of a stream that are sent at once."""

    kind: Literal["opening", "chunk", "ending", "late"]
    """A ``chunk`` carries one chunk of the answer and waits at its gate; ``late`` waits at both gates."""
    data: bytes


class Wire(Protocol):
    """One endpoint of one provider."""

    @property
    def path(self) -> str:
        """Where it is served, for example "/v1/chat/completions"."""
        ...

    def read(self, body: Json, headers: Mapping[str, str]) -> ProviderRequest:
        """What the client asks for.

        Raises:
            MalformedRequest: If *body* is not a request of this endpoint.
        """
        ...

    def least_cap(self, request: ProviderRequest) -> int:
        """The lowest cap on output tokens that it accepts."""
        ...

    def whole(self, request: ProviderRequest, answer: Answer) -> Json:
        """The answer as one JSON document."""
        ...

    def stream(self, request: ProviderRequest, answer: Answer) -> Iterator[Frame]:
        """The answer as server-sent events: the opening, one frame for each of its chunks, the ending."""
        ...

    def error(self, status: int, message: str) -> Json:
        """The body of a refusal."""
        ...


def sse(data: Json, event: str | None = None) -> bytes:
    """One server-sent event."""
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def ending_kind(answer: Answer) -> Literal["ending", "late"]:
    """How the last frame, which carries usage, is sent."""
    return "late" if answer.usage_mode == "late" else "ending"


def mapping(value: object) -> Mapping[str, Any]:
    """*value* if it is a JSON object, else an empty one."""
    return cast(Mapping[str, Any], value) if isinstance(value, Mapping) else {}


def tool_names(tools: object) -> tuple[str, ...]:
    """Names of the tools of a request; the type of a tool that has no name."""
    entries = cast("list[object]", tools) if isinstance(tools, list) else []
    named = [{**mapping(entry), **mapping(mapping(entry).get("function"))} for entry in entries]
    return tuple(str(tool.get("name") or tool.get("type")) for tool in named)


def required(body: Json, name: str, kind: type | tuple[type, ...]) -> Any:
    """The value of field *name*, which has to be there.

    Raises:
        MalformedRequest: If it is missing or not of type *kind*.
    """
    value = body.get(name)
    if not isinstance(value, kind):
        raise MalformedRequest(f"Missing or invalid required parameter: '{name}'.")
    return value


def optional_int(body: Json, *names: str) -> int | None:
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


def openai_error(status: int, message: str) -> Json:
    """An error as both OpenAI endpoints give it."""
    by_status = {
        400: ("invalid_request_error", None),
        401: ("invalid_request_error", "invalid_api_key"),
        404: ("invalid_request_error", "model_not_found"),
        429: ("requests", "rate_limit_exceeded"),
    }
    other = "server_error" if status >= 500 else "invalid_request_error"
    kind, code = by_status.get(status, (other, None))
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
