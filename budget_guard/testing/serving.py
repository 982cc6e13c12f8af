"""The way of one call through the local provider, from its arrival to its last byte."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import unquote

from budget_guard.testing.answer import Answer, compose
from budget_guard.testing.delivery import BrokenOff, Delivery
from budget_guard.testing.rates import Rates, rates_of
from budget_guard.testing.reply import Reply
from budget_guard.testing.request import MalformedRequest, ProviderRequest
from budget_guard.testing.script import Script, choose
from budget_guard.testing.served import CallLog, OpenCall, Outcome
from budget_guard.testing.waiting import Signal
from budget_guard.testing.wire import EVENT_STREAM, Incoming, Json, Step, Wire, openai_error

if TYPE_CHECKING:
    from budget_guard.testing.server import Arrival, Line

_FAILURE = "The server had an error while it generated the answer."


class _ClientGone(Exception):
    """The client closed the connection."""


class _Part(NamedTuple):
    """Bytes of a stream that are sent at once, and their kind (see `Step`)."""

    kind: str
    data: bytes


class Service:
    """Answers requests by the script and books them. Its state changes under `signal`."""

    def __init__(
        self, wires: Sequence[Wire], script: Script, rates: Mapping[str, Rates], *, refuse_unknown_models: bool
    ) -> None:
        self.script = script
        self.signal = Signal()
        self.log = CallLog(self.signal)
        self.paused = False
        self.script_error: Exception | None = None
        self._wires = wires
        self._rates = rates
        self._refuse_unknown_models = refuse_unknown_models
        self._conversations: dict[str, int] = {}

    def reset(self, script: Script | None) -> None:
        """Forget what was served and remembered, and resume; with *script* if it is given."""
        with self.signal.changing():
            self.script = self.script if script is None else script
            self.log.clear()
            self._conversations = {}
            self.paused = False
            self.script_error = None

    def release_chunks(self, count: int) -> None:
        """Let *count* chunks more of every call under way through its gate.

        Raises:
            RuntimeError: If no call is under way.
        """
        with self.signal.changing():
            calls = self.log.open_calls()
            if not calls:
                raise RuntimeError("no call is under way: wait for one before releasing its chunks")
            for call in calls:
                call.chunks_released += count

    async def receive(self, arrival: Arrival, line: Line) -> None:
        """Answer one request."""
        for wire in self._wires:
            found = wire.route.search(arrival.path)
            if found is not None:
                named = {name: unquote(value) for name, value in found.groupdict().items() if value}
                await self._receive(wire, arrival, named, line)
                return
        await _send_json(line, 404, openai_error(404, f"Unknown request URL: POST {arrival.path}"), {})

    async def _receive(self, wire: Wire, arrival: Arrival, named: Mapping[str, str], line: Line) -> None:
        try:
            request = wire.read(Incoming(_parse(arrival.body), arrival.headers, arrival.path, arrival.query, named))
        except MalformedRequest as error:
            await _send_json(line, 400, wire.error(400, str(error)), wire.error_headers(400))
            return
        # In one change: whoever was waiting for this call to arrive finds its answer decided.
        with self.signal.changing():
            call = self.log.open(request, arrival.body)
            reply = self._prepare(call, wire.least_cap(request))
        try:
            await self._serve(call, reply, wire, line)
        except _ClientGone:
            self.settle(call, "aborted")
        except BrokenOff:
            self.settle(call, "dropped")
            await line.cut()
        finally:
            # Whatever ended it: no call stays open. This does nothing where the call is booked already.
            self.settle(call, "dropped")

    def settle(self, call: OpenCall, outcome: Outcome, status: int = 200) -> None:
        """Book *call* as over. This comes before the last byte, so a client that has it finds it booked."""
        usage = call.usage(outcome)
        cost_nano = call.bill_nano
        if cost_nano is None:
            cost_nano = 0 if call.answer is None else self._cost_nano(call.answer, call, outcome)
        self.log.close(call, outcome, status, usage, cost_nano)

    def _cost_nano(self, answer: Answer, call: OpenCall, outcome: Outcome) -> int | None:
        rates = rates_of(self._rates, answer.model)
        tier = rates and rates.for_tier(answer.service_tier)
        return tier.cost_nano(call.usage(outcome)) if tier else None

    def _prepare(self, call: OpenCall, least_cap: int) -> Reply:
        """Choose the reply to *call*, and compose its answer unless it is a refusal."""
        request, cap = call.request, call.request.max_output_tokens
        if cap is not None and cap < least_cap:
            message = f"The cap on output tokens is below the minimum: expected >= {least_cap}, got {cap}."
            return Reply(status=400, text=message)
        try:
            reply = choose(self.script, request)
            unknown = self._refuse_unknown_models and rates_of(self._rates, request.model) is None
            if reply is None or unknown:
                return Reply(status=404, text=f"The model '{request.model}' does not exist.")
            call.bill_nano = reply.bill_nano(request.body)
            if not reply.works and call.bill_nano is None:
                call.bill_nano = 0
            if reply.works or not reply.refuses:
                call.answer = compose(request, reply, self._history_tokens(request))
        except Exception as error:
            return self._script_failed(call, error)
        return reply

    def _script_failed(self, call: OpenCall, error: Exception) -> Reply:
        """The script is the user's code: whatever it raises is shown to them, and nothing is billed."""
        self.script_error = self.script_error or error
        call.answer, call.bill_nano = None, None
        return Reply(status=500, text=f"The provider's script failed: {error!r}")

    def _history_tokens(self, request: ProviderRequest) -> int:
        previous = request.previous_response_id or ""
        return self._conversations.get(previous, self._conversations.get(previous.rpartition("_")[2], 0))

    async def _serve(self, call: OpenCall, reply: Reply, wire: Wire, line: Line) -> None:
        await self._until(line, lambda: not self.paused)
        if reply.delay_s:
            await self._until(line, lambda: False, reply.delay_s)
        answer = call.answer
        if answer is None or reply.refuses:
            await self._refuse(call, reply, wire, line)
            return
        try:
            streamed = call.request.stream and (reply.body is None or reply.error_after is not None)
            parts = self._parts(call, answer, wire) if streamed else None
            whole, kind = (b"", "") if parts else self._whole(call.request, answer, wire)
        except Exception as error:  # of a function of the script that makes up usage
            await self._refuse(call, self._script_failed(call, error), wire, line)
            return
        headers = {**_ids(), **wire.headers(call.request, answer)}
        if parts:
            headers |= {"content-type": wire.stream_type(call.request), "cache-control": "no-cache"}
            await self._stream(call, reply, parts, headers, line)
        elif reply.drop_after is not None:
            self.settle(call, "dropped")
            await line.open(200, {"content-type": kind, "content-length": "1"})
            await line.cut()
        else:
            delivery = Delivery(line, reply, partial(self._complete, call, answer))
            await delivery.send_whole(200, whole, {**headers, "content-type": kind})

    async def _refuse(self, call: OpenCall, reply: Reply, wire: Wire, line: Line) -> None:
        # Settled in any case, so that an error that is cut off in its body is an error all the same.
        self.settle(call, "refused", reply.status)
        message = reply.text or f"The script refuses this call with status {reply.status}."
        made_up = wire.error(reply.status, message) if reply.status >= 400 else b""
        body, kind = _written(made_up if reply.body is None else reply.body)
        headers = {**_ids(), **wire.error_headers(reply.status), "content-type": kind}
        if reply.status in (429, 503):
            headers["retry-after"] = f"{reply.retry_after_s:g}"
        if reply.status in (307, 308):
            query = call.request.query
            headers["location"] = call.request.path + (f"?{query}" if query else "")
        await Delivery(line, reply, _nothing).send_whole(reply.status, body, headers)

    def _whole(self, request: ProviderRequest, answer: Answer, wire: Wire) -> tuple[bytes, str]:
        """The body of an answer that is not streamed, and its content type."""
        reply = answer.reply
        if reply.body is not None:
            return _written(reply.body)
        if reply.error_after is not None:
            return _written(wire.error(_error_status(reply), _FAILURE))
        return _written(wire.whole(request, answer))

    def _parts(self, call: OpenCall, answer: Answer, wire: Wire) -> list[_Part]:
        """A stream, event by event, in bytes."""
        request, reply = call.request, answer.reply
        steps = list(_steps(request, answer, wire))
        data = [b"".join(wire.event(request, event) for event in step.events) for step in steps]
        parts = [_Part(step.kind, part) for step, part in zip(steps, wire.joined(request, data), strict=True)]
        if wire.stream_type(request) != EVENT_STREAM:
            return parts
        newline = (reply.newline or wire.newline).encode()
        comment = b"" if reply.comment is None else f": {reply.comment}\n\n".encode()
        lines = [_Part(kind, comment + data if kind == "chunk" else data) for kind, data in parts]
        return [_Part(kind, data.replace(b"\n", newline)) for kind, data in lines]

    async def _stream(
        self, call: OpenCall, reply: Reply, parts: list[_Part], headers: Mapping[str, str], line: Line
    ) -> None:
        answer = call.answer
        assert answer is not None
        delivery = Delivery(line, reply, partial(self._complete, call, answer))
        last_chunk = None if reply.drop_after is None else min(reply.drop_after, len(answer.chunks))
        await delivery.open(200, headers)
        for part in parts:
            if call.chunks_sent == last_chunk:
                self.settle(call, "dropped")
                await line.cut()
                return
            await self._pass_gates(call, reply, part, line)
            await delivery.send(part.data, last=part is parts[-1])

    async def _pass_gates(self, call: OpenCall, reply: Reply, part: _Part, line: Line) -> None:
        if reply.gate_chunks and part.kind in ("chunk", "late"):
            await self._until(line, lambda: call.chunks_released > call.chunks_sent)
        if part.kind == "late":
            await self._until(line, lambda: not self.paused)
        if line.gone:
            raise _ClientGone
        if part.kind == "chunk":
            call.chunks_sent += 1

    def _complete(self, call: OpenCall, answer: Answer) -> None:
        # What the model thought is not read again by the next call; what it was told and said is.
        said = answer.input_tokens + answer.output_tokens - answer.reasoning_tokens
        self._conversations[answer.wire_id("")] = said
        self.settle(call, "completed" if answer.reply.error_after is None else "failed")

    async def _until(self, line: Line, ready: Callable[[], bool], timeout: float | None = None) -> None:
        """Wait for *ready* or *timeout* seconds.

        Raises:
            _ClientGone: If the client does not wait as long.
        """
        await self.signal.wait_async(lambda: line.gone or ready(), timeout)
        if line.gone:
            raise _ClientGone


def _steps(request: ProviderRequest, answer: Answer, wire: Wire) -> Iterator[Step]:
    """Steps of a stream as the reply wants them: its own events, an error in the middle."""
    reply = answer.reply
    scripted = None if reply.events is None else [Step("chunk", [event]) for event in reply.events]
    steps = wire.stream(request, answer) if scripted is None else iter(scripted or [Step("ending", [])])
    if reply.error_after is None:
        yield from steps
        return
    chunks = 0
    for step in steps:
        if step.kind in ("ending", "late") or (step.kind == "chunk" and chunks == reply.error_after):
            break
        chunks += step.kind == "chunk"
        yield step
    error = wire.error_event(_error_status(reply), _FAILURE) if reply.body is None else reply.body
    yield Step("ending", [error.decode() if isinstance(error, bytes) else error])


def _error_status(reply: Reply) -> int:
    return 500 if reply.status == 200 else reply.status


def _parse(body: bytes) -> Json:
    try:
        parsed: object = json.loads(body)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise MalformedRequest("The body is not a JSON object.")
    return cast(Json, parsed)


def _written(body: Any) -> tuple[bytes, str]:
    """A body in bytes, and its content type."""
    if isinstance(body, bytes):
        return body, "application/octet-stream"
    if isinstance(body, str):
        return body.encode(), "text/html; charset=utf-8" if body.lstrip().startswith("<") else "text/plain"
    return json.dumps(body).encode(), "application/json"


def _nothing() -> None:
    pass


def _ids() -> dict[str, str]:
    request_id = f"req_{secrets.token_hex(16)}"
    return {
        "x-request-id": request_id,  # OpenAI's name
        "request-id": request_id,  # Anthropic's
    }


async def _send_json(line: Line, status: int, data: Json, headers: Mapping[str, str]) -> None:
    made = {**_ids(), **headers, "content-type": "application/json"}
    await Delivery(line, Reply(), _nothing).send_whole(status, json.dumps(data).encode(), made)
