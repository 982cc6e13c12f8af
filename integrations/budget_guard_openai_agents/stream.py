"""A streamed model call under its guards: settled at its last event, or at the moment it is abandoned."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from agents.items import TResponseStreamEvent
from agents.models.interface import Model
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFailedEvent,
    ResponseIncompleteEvent,
    ResponseOutputItemDoneEvent,
    ResponseOutputMessage,
    ResponseOutputText,
)

from budget_guard import BudgetError
from budget_guard.wire.reader import LONGEST_TOKEN
from budget_guard_openai_agents.answer import answer_of_stream
from budget_guard_openai_agents.call import Attempt
from budget_guard_openai_agents.guarded_run import accounting

_LAST = (ResponseCompletedEvent, ResponseIncompleteEvent, ResponseFailedEvent)


async def guarded_stream(call: Attempt, below: Callable[[Model], Any]) -> AsyncIterator[TResponseStreamEvent]:
    """Stream *call*. Whatever ends it early, the estimate is booked.

    Args:
        call: The call.
        below: From a model to the same one below its guard.
    """
    await call.admit()
    settled = truncated = False
    seen = _Seen()
    events: AsyncIterator[TResponseStreamEvent] | None = None
    try:
        with accounting(call):
            events = call.arguments.stream_response(below(call.model).stream_response)
        while True:
            with accounting(call):
                # only this step is accounted for: the consumer runs between the steps, in the same context
                event = await anext(events, None)
            if event is None:
                break
            seen.event(event)
            if isinstance(event, _LAST):
                answer = answer_of_stream(event.response, call.model, call.asked.request)
                answer = await call.aanswered(answer)
                settled = True
                stop = call.cut_short_by(answer)
            else:
                stop = call.interruption(seen.output_floor)
            if stop is not None:
                if not (call.keeps(stop) and seen.text_only):
                    raise call.stopped(stop, seen.text)
                if not isinstance(event, ResponseCompletedEvent):  # which is an answer as it is
                    truncated = True
                    if not settled:
                        yield event
                    break
            yield event
    except BaseException as error:
        if not settled:
            settled = True
            stop = await call.afailed(error)
            if stop is not None and not isinstance(error, BudgetError):
                raise call.stopped(stop, seen.text) from error
        raise
    finally:
        if not settled:
            await call.acommit(None)
        aclose: Any = getattr(events, "aclose", None)
        if aclose is not None:
            with accounting(call):
                await aclose()
    if truncated:  # by now the provider has stopped writing
        for event in seen.truncated():
            yield event


class _Seen:
    """What a stream has said so far."""

    def __init__(self) -> None:
        self._deltas = 0
        self._bytes = 0
        self._text: list[str] = []
        self._response: Response | None = None
        self._item_id = "msg_truncated"
        self._calls = False

    @property
    def output_floor(self) -> int:
        """Tokens that were made for sure. Pieces tell less: they may be empty, or single characters."""
        return -(-self._bytes // LONGEST_TOKEN)

    @property
    def text(self) -> str:
        """The text that came."""
        return "".join(self._text)

    @property
    def text_only(self) -> bool:
        """Whether it is text so far, which can be cut here and kept: half a tool call must not be run."""
        return self._response is not None and bool(self.text) and not self._calls

    def event(self, event: TResponseStreamEvent) -> None:
        kind = getattr(event, "type", None)
        if not isinstance(kind, str):  # a model of one's own may stream anything
            return
        given: Any = event
        if kind in ("response.created", "response.incomplete"):
            self._response = given.response
        elif kind == "response.output_item.added":
            self._calls = self._calls or given.item.type not in ("message", "reasoning")
            if given.item.type == "message":
                self._item_id = given.item.id
        elif kind.endswith(".delta"):
            self._deltas += 1
            delta = getattr(given, "delta", None)
            if isinstance(delta, str):
                self._bytes += len(delta) if delta.isascii() else len(delta.encode("utf-8", "surrogatepass"))
                if kind == "response.output_text.delta":
                    self._text.append(delta)

    def truncated(self) -> list[TResponseStreamEvent]:
        """The events that end the stream with what came so far as the answer."""
        if self._response is None:  # it has not begun
            return []
        message = ResponseOutputMessage(
            id=self._item_id,
            type="message",
            role="assistant",
            status="incomplete",
            content=[ResponseOutputText(text=self.text, type="output_text", annotations=[])],
        )
        response = self._response.model_copy(update={"output": [message], "status": "incomplete"})
        return [
            ResponseOutputItemDoneEvent(
                type="response.output_item.done", item=message, output_index=0, sequence_number=self._deltas + 1
            ),
            ResponseCompletedEvent(type="response.completed", response=response, sequence_number=self._deltas + 2),
        ]
