"""The way of one call through the local provider, from its arrival to its last byte."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

from budget_guard.testing.answer import Answer, compose
from budget_guard.testing.rates import Rates
from budget_guard.testing.request import MalformedRequest, ProviderRequest
from budget_guard.testing.script import Reply, Script, choose
from budget_guard.testing.served import CallLog, OpenCall, Outcome
from budget_guard.testing.waiting import Signal
from budget_guard.testing.wire import Frame, Json, Wire

if TYPE_CHECKING:
    from budget_guard.testing.server import Line

_SNAPSHOT_DATE = re.compile(r"-\d{4}-?\d{2}-?\d{2}$")
_EVENT_STREAM = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}


class _ClientGone(Exception):
    """The client closed the connection."""


class Service:
    """Answers requests by the script and books them. Its state changes under `signal`."""

    def __init__(self, script: Script, rates: Mapping[str, Rates], *, refuse_unknown_models: bool) -> None:
        self.script = script
        self.signal = Signal()
        self.log = CallLog(self.signal)
        self.paused = False
        self.script_error: Exception | None = None
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

    async def receive(self, wire: Wire, body: bytes, headers: Mapping[str, str], line: Line) -> None:
        """Answer one request."""
        try:
            request = wire.read(_parse(body), headers)
        except MalformedRequest as error:
            await _send_json(line, 400, wire.error(400, str(error)))
            return
        # In one change: whoever was waiting for this call to arrive finds its answer decided.
        with self.signal.changing():
            call = self.log.open(request)
            reply = self._prepare(call, wire.least_cap(request))
        try:
            await self._serve(call, reply, wire, line)
        except _ClientGone:
            self.settle(call, "aborted")
        finally:
            # Whatever ended it: no call stays open. This does nothing where the call is booked already.
            self.settle(call, "dropped")

    def settle(self, call: OpenCall, outcome: Outcome, status: int = 200) -> None:
        """Book *call* as over. This comes before the last byte, so a client that has it finds it booked."""
        usage = call.usage(outcome)
        cost_nano: int | None = 0
        if call.answer is not None:
            rates = self._rates_of(call.answer.model)
            tier = rates and rates.for_tier(call.answer.service_tier)
            cost_nano = tier.cost_nano(usage) if tier else None
        self.log.close(call, outcome, status, usage, cost_nano)

    def _rates_of(self, model: str) -> Rates | None:
        return self._rates.get(model) or self._rates.get(_SNAPSHOT_DATE.sub("", model))

    def _prepare(self, call: OpenCall, least_cap: int) -> Reply:
        """Choose the reply to *call*, and compose its answer unless it is a refusal."""
        request, cap = call.request, call.request.max_output_tokens
        if cap is not None and cap < least_cap:
            message = f"The cap on output tokens is below the minimum: expected >= {least_cap}, got {cap}."
            return Reply(status=400, text=message)
        try:
            reply = choose(self.script, request)
            unknown = self._refuse_unknown_models and self._rates_of(request.model) is None
            if reply is None or unknown:
                return Reply(status=404, text=f"The model '{request.model}' does not exist.")
            if reply.status == 200:
                call.answer = compose(request, reply, self._history_tokens(request))
        except Exception as error:  # The script is the user's code: whatever it raises is shown to them.
            self.script_error = self.script_error or error
            return Reply(status=500, text=f"The provider's script failed: {error!r}")
        return reply

    def _history_tokens(self, request: ProviderRequest) -> int:
        return self._conversations.get((request.previous_response_id or "").rpartition("_")[2], 0)

    async def _serve(self, call: OpenCall, reply: Reply, wire: Wire, line: Line) -> None:
        await self._until(line, lambda: not self.paused)
        if reply.delay_s:
            await self._until(line, lambda: False, reply.delay_s)
        if call.answer is None:
            self.settle(call, "refused", reply.status)
            message = reply.text or f"The script refuses this call with status {reply.status}."
            retry = {"retry-after": f"{reply.retry_after_s:g}"} if reply.status in (429, 503) else {}
            await _send_json(line, reply.status, wire.error(reply.status, message), retry)
        elif call.request.stream:
            await self._stream(call, reply, list(wire.stream(call.request, call.answer)), line)
        elif reply.drop_after is not None:
            self.settle(call, "dropped")
            await line.open(200, {"content-type": "application/json", "content-length": "1"})
            await line.cut()
        else:
            self._complete(call, call.answer)
            await _send_json(line, 200, wire.whole(call.request, call.answer))

    async def _stream(self, call: OpenCall, reply: Reply, frames: list[Frame], line: Line) -> None:
        answer = call.answer
        assert answer is not None
        last_chunk = None if reply.drop_after is None else min(reply.drop_after, len(answer.chunks))
        await line.open(200, _EVENT_STREAM)
        for frame in frames:
            if call.chunks_sent == last_chunk:
                self.settle(call, "dropped")
                await line.cut()
                return
            await self._pass_gates(call, reply, frame, line)
            if frame is frames[-1]:
                self._complete(call, answer)
            await line.send(frame.data, last=frame is frames[-1])

    async def _pass_gates(self, call: OpenCall, reply: Reply, frame: Frame, line: Line) -> None:
        if reply.gate_chunks and frame.kind in ("chunk", "late"):
            await self._until(line, lambda: call.chunks_released > call.chunks_sent)
        if frame.kind == "late":
            await self._until(line, lambda: not self.paused)
        if line.gone:
            raise _ClientGone
        if frame.kind == "chunk":
            call.chunks_sent += 1

    def _complete(self, call: OpenCall, answer: Answer) -> None:
        # What the model thought is not read again by the next call; what it was told and said is.
        self._conversations[answer.id] = answer.input_tokens + answer.output_tokens - answer.reasoning_tokens
        self.settle(call, "completed")

    async def _until(self, line: Line, ready: Callable[[], bool], timeout: float | None = None) -> None:
        """Wait for *ready* or *timeout* seconds.

        Raises:
            _ClientGone: If the client does not wait as long.
        """
        await self.signal.wait_async(lambda: line.gone or ready(), timeout)
        if line.gone:
            raise _ClientGone


def _parse(body: bytes) -> Json:
    try:
        parsed: object = json.loads(body)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise MalformedRequest("The body is not a JSON object.")
    return cast(Json, parsed)


async def _send_json(line: Line, status: int, data: Json, headers: Mapping[str, str] | None = None) -> None:
    body = json.dumps(data).encode()
    request_id = f"req_{secrets.token_hex(16)}"
    fixed = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "x-request-id": request_id,  # OpenAI's name
        "request-id": request_id,  # Anthropic's
    }
    await line.open(status, {**fixed, **(headers or {})})
    await line.send(body, last=True)
