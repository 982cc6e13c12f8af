"""A look at what the SDK's OpenAI client really sends and is really answered, below a guarded model.

The client's HTTP transport is wrapped in place, once. A request that no guarded model is making passes through
untouched. Of the others, the body that is sent is checked against the hold, each further attempt of the client's own
retries is held by itself, and the raw answer is what is booked.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Callable
from functools import cache
from typing import Any

from agents import OpenAIChatCompletionsModel, OpenAIResponsesModel
from agents.models.interface import Model
from openai import OpenAIError

from budget_guard.adapter.attempts import AddField, Attempts, Counted, allowed_by_all, counted_by, is_signature
from budget_guard.adapter.attempts import Attempt as WireAttempt
from budget_guard.adapter.headers import header
from budget_guard.adapter.stops import Stop, stops_for
from budget_guard.errors import BudgetError
from budget_guard.wire import RESPONSES, dialect_at
from budget_guard.wire.hosts import endpoint
from budget_guard_openai_agents.guarded_run import Compaction, compaction


class RefusedRequest(OpenAIError):
    """The base of the stops that are raised below a client, which retries no error of its own kind."""


_refusals = stops_for(RefusedRequest)


@cache
def _attempts(add_fields: frozenset[AddField]) -> Attempts:
    """What looks at requests where a guard may add *add_fields*: in the sessions of the layers above alone."""
    # usage is asked for above, where the SDK shows it
    return Attempts(add_fields=tuple(field for field in add_fields if field != "usage"))


def look_at(model: Model) -> None:
    """Wrap the transport of *model*'s OpenAI client, where it has one."""
    if isinstance(model, (OpenAIResponsesModel, OpenAIChatCompletionsModel)):
        look_at_client(getattr(model, "_client", None))


def look_at_client(client: Any) -> None:
    """Wrap the transport of an OpenAI *client*."""
    http: Any = getattr(client, "_client", None)
    transport = getattr(http, "_transport", None)
    if transport is None or type(transport) is LookingTransport:
        return
    if not hasattr(transport, "handle_async_request"):
        return
    http._transport = LookingTransport(transport)
    mounts: dict[Any, Any] = getattr(http, "_mounts", {})  # proxies, as the environment names them
    for pattern, mounted in list(mounts.items()):
        if mounted is not None:
            mounts[pattern] = LookingTransport(mounted)


def look_of(model: object) -> LookingTransport | None:
    """What sees all that *model* sends; None where nothing does."""
    http = getattr(getattr(model, "_client", None), "_client", None)
    transport = getattr(http, "_transport", None)
    return transport if type(transport) is LookingTransport else None


def sees_all_of(model: Any) -> bool:
    """Whether all that *model* sends is seen. Models that open WebSockets, say, fetch their answers another way."""
    return look_of(model) is not None and _fetches_as_the_sdk(model.__class__)


@cache
def _fetches_as_the_sdk(cls: type[Any]) -> bool:
    return all(
        getattr(cls, "_fetch_response", None) is getattr(known, "_fetch_response", None)
        for known in (OpenAIResponsesModel, OpenAIChatCompletionsModel)
        if issubclass(cls, known)
    )


class LookingTransport:
    """An HTTP transport, of httpx or httpx2, through which guarded models send.

    Args:
        inner: The transport that sends.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.served_tiers: dict[str, str] = {}
        """By model, a tier dearer than the standard one that has served this client, although nobody asked for it."""

    async def handle_async_request(self, request: Any) -> Any:
        """Send *request*; held before, and settled by its answer, where a guarded model is making it."""
        counted = counted_by()
        compacting = None if counted.calls else compaction()
        if not counted.calls and compacting is None:
            return await self._inner.handle_async_request(request)
        url = request.url
        path = url.raw_path.decode("ascii")
        where = endpoint(request.method, url.host, path)
        dialect = dialect_at(where)
        if compacting is not None:
            dialect = RESPONSES if request.method == "POST" and url.path.endswith("/responses/compact") else None
        if dialect is None:
            return await self._inner.handle_async_request(request)
        body = await request.aread()
        sessions = counted.calls[0].sessions if compacting is None else compacting.run.sessions
        try:
            # a compaction takes no output cap
            attempts = _attempts(_may_add(counted)) if compacting is None else Attempts(sessions, add_fields=())
            signed = is_signature(header(request.headers, b"authorization"))
            attempt = attempts.begin_at(where, dialect, path, signed, body)
            stop = await attempt.ahold()
        except BudgetError as error:
            _refuse(counted, compacting, Stop(sessions[0], error))
            raise _refusals.recast(error) from error.__cause__
        if stop is not None:
            _refuse(counted, compacting, stop)
            raise _refusals.recast(stop.error)
        request.headers["accept-encoding"] = "identity"  # what is compressed can hardly be read
        if attempt.changed:
            request = _changed(request, attempt, path)
        try:
            with attempt.counting():
                response = await self._inner.handle_async_request(request)
            if not attempt.answered(response.status_code, header(response.headers, b"content-type")):
                refusal = await response.aread()
                await attempt.arefuse(response.status_code, response.headers, refusal)
                return response
        except BaseException as error:
            await attempt.afail(error)
            raise
        return type(response)(
            response.status_code,
            headers=response.headers,
            stream=_as_stream(response, attempt),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close the transport that sends."""
        await self._inner.aclose()

    async def __aenter__(self) -> LookingTransport:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *raised: Any) -> None:
        await self._inner.__aexit__(*raised)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_inner"], name)


def _changed(request: Any, attempt: WireAttempt, path: str) -> Any:
    """The request to send in the place of *request*, which goes to *path*."""
    headers = request.headers.copy()
    headers["content-length"] = str(len(attempt.body))
    url = request.url
    if attempt.path != path:
        url = url.copy_with(raw_path=attempt.path.encode("ascii"))
    return type(request)(request.method, url, headers=headers, content=attempt.body, extensions=request.extensions)


def _may_add(counted: Counted) -> frozenset[AddField]:
    """The fields that every guard above allows to be added to a request."""
    given: list[frozenset[AddField]] = [
        fields for call in counted.calls if (fields := getattr(call, "add_fields", None)) is not None
    ]
    return allowed_by_all(given)


def _refuse(counted: Counted, compacting: Compaction | None, stop: Stop) -> None:
    """Tell the models above why the request is not sent: what a client raises may hide it."""
    if compacting is not None:
        compacting.refusal = stop.error
    for call in counted.calls:
        note: Callable[[Stop], None] | None = getattr(call, "note_refusal", None)
        if note is not None:
            note(stop)


def _as_stream(response: Any, attempt: WireAttempt) -> Any:
    """The body of *response*, read as it passes by: a stream of the HTTP library's own, which its client insists on."""
    own = next(cls for cls in type(response.stream).__mro__ if cls.__name__ == "AsyncByteStream")
    stream_class = _stream_classes.get(own)
    if stream_class is None:
        stream_class = _stream_classes[own] = type("ReadStream", (_ReadStream, own), {"__module__": __name__})
    return stream_class(response, attempt)


_stream_classes: dict[type[Any], type[Any]] = {}


class _ReadStream:
    """The body of an answer, read as it passes by."""

    def __init__(self, response: Any, attempt: WireAttempt) -> None:
        self._stream = response.stream
        self._attempt: WireAttempt | None = attempt  # until it is closed: a client's response is in a circle of its own
        self._decode = _decoder(header(response.headers, b"content-encoding"))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        attempt = self._attempt
        if attempt is None:  # it is closed
            return
        chunks = self._stream.__aiter__()
        while True:
            try:
                data = await anext(chunks, None)
                if data is None:
                    break
                self._read(attempt, data)
            except BaseException as error:
                await attempt.afail(error)
                raise
            yield data
        await attempt.aend(complete=self._decode is not None)

    def _read(self, attempt: WireAttempt, data: bytes) -> None:
        """Take *data* in. It is passed on as it came: the client decompresses it by itself."""
        if self._decode is None:
            return  # what cannot be read is booked as held
        try:
            attempt.feed(self._decode(data))
        except zlib.error:
            self._decode = None

    async def aclose(self) -> None:
        try:
            if self._attempt is not None and not self._attempt.settled:
                await self._attempt.agive_up()
        finally:
            self._attempt = None
            await self._stream.aclose()


def _decoder(encoding: str) -> Callable[[bytes], bytes] | None:
    """How to read a body that was compressed although that was not asked for; None where it cannot be read."""
    coding = encoding.strip().lower()
    if coding in ("gzip", "deflate"):
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress
    return bytes if coding in ("", "identity") else None
