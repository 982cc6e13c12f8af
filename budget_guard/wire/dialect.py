"""What there is for each dialect: functions that read requests and answers, and that put fields into requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, NamedTuple, Protocol, TypeAlias, cast

from budget_guard.estimate.prompt import Look
from budget_guard.wire.answer import Answer
from budget_guard.wire.hosts import Endpoint
from budget_guard.wire.request import Request
from budget_guard.wire.values import Json

Aliases: TypeAlias = Mapping[str, str]
"""Names of one's own, such as Azure deployments, and the models behind them."""
NO_ALIASES: Aliases = {}


class Rewritten(NamedTuple):
    """A request's body with something put into it. The body it was made of is not changed."""

    body: dict[str, Any]
    added: tuple[str, ...] = ()
    """The fields that were not there before, so that an endpoint's complaint about one can be explained."""


class StreamReader(Protocol):
    """Reads one streamed answer as its bytes come in."""

    keeps_text: bool
    """Whether what the model writes is kept, for `Answer.seen`."""

    def feed(self, data: bytes, *, hide_usage: bool = False) -> bytes:
        """Read *data*, and return what to pass on: all of it as it came.

        Args:
            data: The next bytes, split anywhere.
            hide_usage: Whether to hold back the event that only carries usage, which the client did not ask for. Then
                bytes are passed on event by event.
        """
        ...

    def close(self, *, complete: bool = True) -> Answer:
        """The answer so far. May be called more than once.

        Args:
            complete: Whether the stream came to its end. One that broke has an unknown bill unless it told it before.
        """
        ...

    @property
    def left(self) -> bytes:
        """Bytes of an event that is not at its end, where bytes are passed on event by event."""
        ...

    @property
    def output_floor(self) -> int:
        """Tokens that the provider has made for sure by now."""
        ...


class Plain(NamedTuple):
    """Where a dialect keeps its messages, and when they are nothing but text: see `budget_guard.wire.remembered`."""

    field: str
    """The field that holds the messages."""
    names: frozenset[str]
    """Fields of messages that are text or tools' calls, whatever they hold, but for ``content``."""
    look_of: Callable[[Endpoint, str], Look]
    """The look into messages to a model at an endpoint, as `read_request` has it."""
    flat_kinds: frozenset[str] = frozenset()
    """As of `budget_guard.estimate.prompt.weigh`."""
    takes_text: bool = False
    """Whether a text in place of the messages is one message of the user."""

    def holds(self, message: Any) -> bool:
        """Whether *message* is nothing but texts, or holds the fields of *names* with a text for its content."""
        if type(message) is not dict:
            return False
        given = cast("dict[str, Any]", message)
        kind = given.get("type")
        if type(kind) is str and kind in self.flat_kinds:
            return all(type(value) is str for value in given.values())
        return "role" in given and self.names.issuperset(given) and type(given.get("content")) in (str, NoneType)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One provider's language over HTTP, of which others speak copies."""

    name: str
    read_request: Callable[[Endpoint, Json, Aliases], Request]
    """What a request asks for. The aliases also tell how a picture is weighed: give the model that is called in place
    of the one that the request names, to weigh it for another one."""
    put_cap: Callable[[Endpoint, Json, int], Rewritten]
    """An output cap in place of all that are there, under the name that the endpoint takes."""
    put_model: Callable[[Endpoint, Json, str], Rewritten | None]
    """Another model; None where it stands in the path, and the address has to change."""
    ask_for_usage: Callable[[Endpoint, Json], Rewritten]
    """The asking for usage where a stream has to be asked for it and the endpoint takes that; else nothing added."""
    read_answer: Callable[[Json, Request | None], Answer]
    """What a whole answer says was used."""
    stream: Callable[[Request | None], StreamReader]
    """A reader for one streamed answer."""
    plain: Plain | None = None
    """How a request of text alone is read in less time; None where it is not."""


def unchanged(_: Endpoint, body: Json) -> Rewritten:
    """A body in which nothing has to be asked for."""
    return Rewritten(dict(body))


def put_field(body: Json, name: str, value: object, remove: tuple[str, ...] = ()) -> Rewritten:
    """*body* with one field set, and others taken out."""
    kept = {field: inner for field, inner in body.items() if field not in remove}
    kept[name] = value
    return Rewritten(kept, () if name in body else (name,))


def put_model_field(_: Endpoint, body: Json, model: str) -> Rewritten | None:
    """*body* with another model."""
    return put_field(body, "model", model)
