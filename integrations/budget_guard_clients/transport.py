"""Transports of httpx and httpx2 that hold every request before it is sent, and settle it by its answer.

Both libraries have the same shape, so both are served by the same code; the library is given. A new response is
returned, never one with another stream: an answer that was read already would never be asked for its stream.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from functools import cache, partial
from typing import Any, cast

from budget_guard.adapter import Attempt, Attempts, PricedRequest, Stop, Stops
from budget_guard.adapter.attempts import is_signature
from budget_guard.adapter.headers import header
from budget_guard.calls.collected import settle_elsewhere
from budget_guard.errors import BudgetError
from budget_guard.wire import Dialect
from budget_guard.wire.values import fields
from budget_guard_clients.allow_list import Route, route, way_of
from budget_guard_clients.content import ACCEPTED, CODING, Decoder, Plain, accepts_only_readable, decoder_of
from budget_guard_clients.errors import stops_of
from budget_guard_clients.pool import Pool

_CHANGED = (b"content-length", b"transfer-encoding", b"accept-encoding")
_OF_CODING = ("content-encoding", "content-length", "transfer-encoding")


class Guard:
    """What the transports of one guarded client share.

    Args:
        library: The module ``httpx`` or ``httpx2``.
        attempts: What its requests are held in.
        package: The SDK that it belongs to; None for a bare HTTP client.
        pool: Its connections, which are another client's as well.
    """

    def __init__(self, library: Any, attempts: Attempts, package: str | None, pool: Pool) -> None:
        self.library = library
        self.attempts = attempts
        self.package = package
        self.pool = pool

    @property
    def stops(self) -> Stops:
        """The errors that its client lets through."""
        return stops_of(self.package)

    def recast(self, error: BudgetError) -> BudgetError:
        """*error* as one that its client lets through."""
        found = self.stops.recast(error)
        found.decision_id = error.decision_id
        return found

    def way_of(self, request: Any) -> tuple[Route, Dialect | PricedRequest | None]:
        """Where *request* goes to, and how it is to be held; None to pass it on.

        Raises:
            UnboundedCallError: If it must not be sent.
        """
        url = request.url
        way = route(request.method, url.host, url.raw_path.decode("ascii"), self.package)
        return way, way_of(self.attempts, way)

    def begin(self, way: Route, dialect: Dialect, request: Any, body: bytes) -> Attempt:
        """The attempt that *request* is."""
        path = request.url.raw_path.decode("ascii")
        signed = is_signature(header(request.headers, b"authorization"))
        return self.attempts.begin_at(way.where, dialect, path, signed, body)

    def to_send(self, attempt: Attempt, request: Any) -> Any:
        """The request to send in the place of *request*."""
        if attempt.signed or (not attempt.changed and accepts_only_readable(header(request.headers, ACCEPTED))):
            return request
        headers = [(name, value) for name, value in request.headers.raw if name.lower() not in _CHANGED]
        headers.append((b"accept-encoding", b"gzip, deflate"))
        url = request.url
        path = attempt.path.encode("ascii")
        if path != url.raw_path:
            url = url.copy_with(raw_path=path)
        return self.library.Request(
            request.method, url, headers=headers, content=attempt.body, extensions=request.extensions
        )

    def fresh(self, response: Any) -> Any:
        """*response*, as if it was not read yet: a cache's, or a test's, may be, and has nothing left to stream."""
        try:
            body = response.content
        except self.library.ResponseNotRead:
            return response
        return self.response(response, body, changed=bool(header(response.headers, CODING)))

    def response(self, response: Any, body: bytes, *, changed: bool) -> Any:
        """A new response like *response*, with a whole body; *changed* where that is not the one that came."""
        stream = self.library.ByteStream(body)
        if not changed:
            return self.streamed(response, stream, changed=False)
        made = self.streamed(response, stream, changed=True)
        made.headers["content-length"] = str(len(body))
        return made

    def streamed(self, response: Any, stream: Any, *, changed: bool) -> Any:
        """A new response like *response*, over another stream; *changed* where that decompresses the body."""
        headers = response.headers
        if changed:
            headers = [pair for pair in headers.multi_items() if pair[0].lower() not in _OF_CODING]
        return self.library.Response(
            response.status_code, headers=headers, stream=stream, extensions=response.extensions
        )

    def broken(self, request: Any) -> Exception:
        """The library's own error for an answer that cannot be decompressed."""
        return cast(Exception, self.library.DecodingError("the answer's compression is broken", request=request))


def decoded(decoder: Decoder | None, data: bytes) -> bytes | None:
    """A whole body, decompressed; None where it cannot be."""
    if decoder is None:
        return None
    if type(decoder) is Plain:
        return data
    try:
        return decoder.decode(data) + decoder.flush()
    except ValueError:
        return None


def explained(body: bytes, told: str) -> bytes:
    """The *body* of a refusal, with who added the field that it complains of *told* in its message."""
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):
        return body
    holder: Any = fields(value).get("error") or value
    if not isinstance(fields(holder).get("message"), str):
        return body
    holder["message"] = f"{holder['message']} ({told})"
    return json.dumps(value).encode()


class GuardedTransport:
    """A transport over *inner* that holds every request."""

    def __init__(self, inner: Any, guard: Guard) -> None:
        self.inner = inner
        self.guard = guard

    def handle_request(self, request: Any) -> Any:
        """Send *request*, if the budgets admit it."""
        guard = self.guard
        try:
            way, held = guard.way_of(request)
            if held is None:
                return self.inner.handle_request(request)
            if isinstance(held, PricedRequest):
                return self._priced(held, request)
            attempt = guard.begin(way, held, request, request.read())
            stop = attempt.hold()
        except BudgetError as error:
            raise guard.recast(error) from error.__cause__
        if stop is not None:
            raise guard.recast(stop.error) from stop.error.__cause__
        try:
            sent = guard.to_send(attempt, request)
            with attempt.counting():
                response = guard.fresh(self.inner.handle_request(sent))
            kind = header(response.headers, b"content-type")
            decoder = decoder_of(header(response.headers, CODING))
            if attempt.answered(response.status_code, kind, response.headers) and attempt.streams:
                tee = _streams_of(guard.library)[0](guard, attempt, response.stream, decoder, request)
                return guard.streamed(response, tee, changed=tee.decodes)
            raw = b"".join(response.stream)
            response.stream.close()
        except BaseException as error:
            attempt.fail(error)
            raise
        body = decoded(decoder, raw)
        if not 200 <= response.status_code < 300:
            told = attempt.refuse(response.status_code, response.headers, body or b"")
            return _refused(guard, response, raw, body, told)
        if body is not None:
            attempt.feed(body)
        attempt.end(complete=body is not None)
        return _whole(guard, response, raw, body)

    def _priced(self, priced: PricedRequest, request: Any) -> Any:
        """Send a request whose price is known."""
        guard = self.guard
        stop = priced.hold()
        if stop is not None:
            raise stop.error
        try:
            with priced.sending():
                response = guard.fresh(self.inner.handle_request(request))
            if 200 <= response.status_code < 300:
                priced.answered()
                return response
            raw = b"".join(response.stream)
            response.stream.close()
        except BaseException as error:
            priced.fail(error)
            raise
        body = decoded(decoder_of(header(response.headers, CODING)), raw)
        priced.refuse(response.status_code, response.headers, body or b"")
        return guard.response(response, raw, changed=False)

    def close(self) -> None:
        """Close the connections, where no other client has them."""
        self.guard.pool.close()

    def __enter__(self) -> GuardedTransport:
        if self.guard.pool.is_unopened:
            self.inner.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncGuardedTransport:
    """As `GuardedTransport`, awaited."""

    def __init__(self, inner: Any, guard: Guard) -> None:
        self.inner = inner
        self.guard = guard

    async def handle_async_request(self, request: Any) -> Any:
        """Send *request*, if the budgets admit it."""
        guard = self.guard
        try:
            way, held = guard.way_of(request)
            if held is None:
                return await self.inner.handle_async_request(request)
            if isinstance(held, PricedRequest):
                return await self._priced(held, request)
            attempt = guard.begin(way, held, request, await request.aread())
            stop = await attempt.ahold()
        except BudgetError as error:
            raise guard.recast(error) from error.__cause__
        if stop is not None:
            raise guard.recast(stop.error) from stop.error.__cause__
        try:
            sent = guard.to_send(attempt, request)
            with attempt.counting():
                response = guard.fresh(await self.inner.handle_async_request(sent))
            kind = header(response.headers, b"content-type")
            decoder = decoder_of(header(response.headers, CODING))
            if attempt.answered(response.status_code, kind, response.headers) and attempt.streams:
                tee = _streams_of(guard.library)[1](guard, attempt, response.stream, decoder, request)
                return guard.streamed(response, tee, changed=tee.decodes)
            raw = b"".join([data async for data in response.stream])
            await response.stream.aclose()
        except BaseException as error:
            await attempt.afail(error)
            raise
        body = decoded(decoder, raw)
        if not 200 <= response.status_code < 300:
            told = await attempt.arefuse(response.status_code, response.headers, body or b"")
            return _refused(guard, response, raw, body, told)
        if body is not None:
            attempt.feed(body)
        await attempt.aend(complete=body is not None)
        return _whole(guard, response, raw, body)

    async def _priced(self, priced: PricedRequest, request: Any) -> Any:
        """Send a request whose price is known."""
        guard = self.guard
        stop = await priced.ahold()
        if stop is not None:
            raise stop.error
        try:
            with priced.sending():
                response = guard.fresh(await self.inner.handle_async_request(request))
            if 200 <= response.status_code < 300:
                await priced.aanswered()
                return response
            raw = b"".join([data async for data in response.stream])
            await response.stream.aclose()
        except BaseException as error:
            await priced.afail(error)
            raise
        body = decoded(decoder_of(header(response.headers, CODING)), raw)
        await priced.arefuse(response.status_code, response.headers, body or b"")
        return guard.response(response, raw, changed=False)

    async def aclose(self) -> None:
        """Close the connections, where no other client has them."""
        await self.guard.pool.aclose()

    async def __aenter__(self) -> AsyncGuardedTransport:
        if self.guard.pool.is_unopened:
            await self.inner.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _whole(guard: Guard, response: Any, raw: bytes, body: bytes | None) -> Any:
    """The whole answer, passed on: decompressed, or as it came where it cannot be read."""
    if body is None:
        return guard.response(response, raw, changed=False)
    return guard.response(response, body, changed=body is not raw)


def _refused(guard: Guard, response: Any, raw: bytes, body: bytes | None, told: str | None) -> Any:
    """An answer that is no success, with who added the field that it complains of."""
    if body is None or told is None:
        return _whole(guard, response, raw, body)
    return guard.response(response, explained(body, told), changed=True)


# Streams


class _Streamed:
    """A streamed answer on its way to the caller."""

    def __init__(self, guard: Guard, attempt: Attempt, inner: Any, decoder: Decoder | None, request: Any) -> None:
        self._guard = guard
        self._attempt: Attempt | None = attempt  # until it is closed: a client's response is in a circle of its own
        self._inner = inner
        self._decoder = decoder
        self._plain = type(decoder) is Plain
        self._request = request

    @property
    def decodes(self) -> bool:
        """Whether the body is passed on decompressed."""
        return self._decoder is not None and not self._plain

    def _pass_on(self, attempt: Attempt, data: bytes) -> bytes:
        if not self._plain:
            if self._decoder is None:
                return data  # it cannot be read: what was held is booked
            try:
                data = self._decoder.decode(data)
            except ValueError:
                raise self._guard.broken(self._request) from None
        return attempt.feed(data)

    def _stopped(self, stop: Stop) -> BudgetError:
        return self._guard.recast(stop.error)

    def __del__(self) -> None:
        attempt: Attempt | None = getattr(self, "_attempt", None)
        if attempt is not None and not attempt.settled:
            settle_elsewhere(attempt.give_up)


class _SyncStreamed(_Streamed):
    def __iter__(self) -> Iterator[bytes]:
        attempt = self._attempt
        if attempt is None:  # it is closed
            return
        feed = attempt.feed if self._plain else partial(self._pass_on, attempt)
        try:
            for data in self._inner:
                passed = feed(data)
                if passed:
                    yield passed
                stop = attempt.interruption()
                if stop is not None:
                    attempt.give_up()
                    self._inner.close()
                    raise self._stopped(stop)
        except GeneratorExit:  # given up: `close` or the end of this object settles it
            raise
        except BaseException as error:
            attempt.fail(error)
            raise
        left = attempt.left
        attempt.end(complete=self._decoder is not None)
        if left:
            yield left

    def close(self) -> None:
        """Give the stream up, or end it."""
        try:
            self._inner.close()
        finally:
            if self._attempt is not None:
                self._attempt.give_up()
                self._attempt = None


class _AsyncStreamed(_Streamed):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        attempt = self._attempt
        if attempt is None:  # it is closed
            return
        feed = attempt.feed if self._plain else partial(self._pass_on, attempt)
        try:
            async for data in self._inner:
                passed = feed(data)
                if passed:
                    yield passed
                stop = attempt.interruption()
                if stop is not None:
                    await attempt.agive_up()
                    await self._inner.aclose()
                    raise self._stopped(stop)
        except GeneratorExit:
            raise
        except BaseException as error:
            await attempt.afail(error)
            raise
        left = attempt.left
        await attempt.aend(complete=self._decoder is not None)
        if left:
            yield left

    async def aclose(self) -> None:
        """Give the stream up, or end it."""
        try:
            await self._inner.aclose()
        finally:
            if self._attempt is not None:
                await self._attempt.agive_up()
                self._attempt = None


@cache  # a class that is made for each call takes longer than the call's own work
def _streams_of(library: Any) -> tuple[type[_SyncStreamed], type[_AsyncStreamed]]:
    """The streams as those of an HTTP library."""
    return (
        cast("type[_SyncStreamed]", type("GuardedStream", (_SyncStreamed, library.SyncByteStream), {})),
        cast("type[_AsyncStreamed]", type("AsyncGuardedStream", (_AsyncStreamed, library.AsyncByteStream), {})),
    )
