"""A streamed model call under its guards: settled at its last event, or at the moment it is abandoned."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from agents.exceptions import ModelBehaviorError
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

from budget_guard_openai_agents.call import Attempt
from budget_guard_openai_agents.errors import recast
from budget_guard_openai_agents.guarded_run import accounting
from budget_guard_openai_agents.translate import usage_of

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
        with accounting():
            events = call.arguments.stream_response(below(call.model).stream_response)
        while True:
            with accounting():
                # only this step is accounted for: the consumer runs between the steps, in the same context
                event = await anext(events, None)
            if event is None:
                break
            seen.event(event)
            if isinstance(event, _LAST):
                usage = usage_of(event.response.usage, event.response.output)
                await call.acommit(usage)
                settled = True
                stop = call.cut_short(usage, known=_ran_into_its_cap(event))
            else:
                stop = call.interruption(seen.deltas)
            if stop is not None:
                if call.run.guard_of(stop.session).on_midstream == "raise" or not seen.text_only:
                    call.run.stop(stop)
                    raise recast(stop.error)
                if not isinstance(event, ResponseCompletedEvent):  # which is an answer as it is
                    truncated = True
                    if not settled:
                        yield event
                    break
            yield event
    except BaseException as error:
        if not settled:
            settled = True
            await call.afail(error)
        if isinstance(error, ModelBehaviorError) and (stop := call.cut_short(known=True)) is not None:
            call.run.stop(stop)
            raise recast(stop.error) from error
        raise
    finally:
        if not settled:
            await call.acommit(None)
        aclose: Any = getattr(events, "aclose", None)
        if aclose is not None:
            with accounting():
                await aclose()
    if truncated:  # by now the provider has stopped writing
        for event in seen.truncated():
            yield event


def _ran_into_its_cap(event: TResponseStreamEvent) -> bool:
    details = event.response.incomplete_details if isinstance(event, ResponseIncompleteEvent) else None
    return details is not None and details.reason == "max_output_tokens"


class _Seen:
    """What a stream has said so far."""

    def __init__(self) -> None:
        self.deltas = 0
        """Pieces of output, each at least one token."""
        self._text: list[str] = []
        self._response: Response | None = None
        self._item_id = "msg_truncated"
        self._calls = False

    @property
    def text_only(self) -> bool:
        """Whether it can be cut here and leave a whole answer: half a tool call must not be run."""
        return self._response is not None and not self._calls

    def event(self, event: TResponseStreamEvent) -> None:
        if event.type == "response.created":
            self._response = event.response
        elif event.type == "response.output_item.added":
            self._calls = self._calls or event.item.type not in ("message", "reasoning")
            if event.item.type == "message":
                self._item_id = event.item.id
        elif event.type.endswith(".delta"):
            self.deltas += 1
            if event.type == "response.output_text.delta":
                self._text.append(event.delta)

    def truncated(self) -> list[TResponseStreamEvent]:
        """The events that end the stream with what came so far as the answer."""
        if self._response is None:  # it has not begun
            return []
        message = ResponseOutputMessage(
            id=self._item_id,
            type="message",
            role="assistant",
            status="incomplete",
            content=[ResponseOutputText(text="".join(self._text), type="output_text", annotations=[])],
        )
        response = self._response.model_copy(update={"output": [message], "status": "incomplete"})
        return [
            ResponseOutputItemDoneEvent(
                type="response.output_item.done", item=message, output_index=0, sequence_number=self.deltas + 1
            ),
            ResponseCompletedEvent(type="response.completed", response=response, sequence_number=self.deltas + 2),
        ]
