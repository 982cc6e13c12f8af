"""Streams: ended at any chunk by anybody, with and without usage, cut off by the guard itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("agents")

from agents import Agent, Model, OpenAIChatCompletionsModel, Runner
from agents.items import TResponseStreamEvent
from agents.result import RunResultStreaming
from openai.types.responses import Response, ResponseTextDeltaEvent

from budget_guard import Budget
from budget_guard.integrations.openai_agents import BudgetExceeded, BudgetGuard, BudgetRevoked
from budget_guard.testing import Reply
from budget_guard_openai_agents.answer import text_of
from budget_guard_openai_agents.stream import _Seen
from tests.integrations.openai_agents.on_the_wire import response
from tests.integrations.openai_agents.support import (
    BIG,
    DelegatingModel,
    Lab,
    agent_named,
    agree,
    by_role,
    caller_of,
    capped,
    lookup,
    never_below,
)

SDK_VERSION = tuple(int(part) for part in version("openai-agents").split(".")[:3])
drains = pytest.mark.skipif(SDK_VERSION < (0, 15, 2), reason="the SDK drops what is queued when a run fails")

CHUNKS = 4
TEXT = "one and two and three and four and five and six"
ENDPOINTS: list[Callable[[Lab], Any]] = [lambda lab: lab.responses(), lambda lab: lab.chat()]
endpoints = pytest.mark.parametrize("model_of", ENDPOINTS, ids=["responses", "chat"])


def start(lab: Lab, agent: Agent[Any], guard: BudgetGuard) -> RunResultStreaming:
    return Runner.run_streamed(agent, "go", hooks=guard, run_config=lab.config())


async def deltas(result: RunResultStreaming) -> AsyncIterator[str]:
    async for event in result.stream_events():
        if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent):
            yield event.data.delta


async def settled(result: RunResultStreaming) -> None:
    """Wait for the end of the run's own task, whatever it is."""
    assert result.run_loop_task is not None
    await asyncio.wait([result.run_loop_task])


@endpoints
@pytest.mark.parametrize("how", ["cancel", "break", "aclose", "task"])
@pytest.mark.parametrize("after", range(CHUNKS))
async def test_a_stream_that_is_ended_after_any_chunk_is_booked_and_leaves_nothing_held(
    lab: Lab, after: int, how: str, model_of: Callable[[Lab], Any]
) -> None:
    lab.script(Reply(text=TEXT, chunks=CHUNKS, gate_chunks=True))
    guard = BudgetGuard(Budget("$1.00"))
    agent = agent_named("Worker", model_of(lab), model_settings=capped(500))
    result = start(lab, agent, guard)
    seen: list[str] = []

    async def consume() -> None:
        events = result.stream_events()
        async for event in events:
            data = getattr(event, "data", None)
            if isinstance(data, ResponseTextDeltaEvent):
                seen.append(data.delta)
                if len(seen) <= after:
                    lab.provider.release_chunk()
            if len(seen) > after or (after == 0 and event.type == "raw_response_event"):
                break
        if how == "aclose":
            if lab.provider.open_calls:
                lab.provider.release_chunk(CHUNKS)  # the SDK waits there for the turn to end
            await events.aclose()  # type: ignore[attr-defined]  # a generator, typed as an iterator

    consumer = asyncio.ensure_future(consume())
    await lab.provider.await_calls(1)
    if after:
        lab.provider.release_chunk()
    if how == "task" and not after:
        consumer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consumer
    else:
        await consumer
    assert guard.reserved_usd > 0 or guard.spent_usd > 0
    if how == "cancel":
        result.cancel()
    elif result.run_loop_task is not None and not result.run_loop_task.done():
        for _ in lab.provider.open_calls:
            lab.provider.release_chunk(CHUNKS)  # nobody reads on; the run may still go to its end
    await settled(result)
    await lab.quiet()
    never_below(lab.provider, guard)
    assert guard.report().breakdown.llm.calls == 1


@endpoints
async def test_a_run_that_is_to_stop_after_its_turn_books_that_turn(lab: Lab, model_of: Callable[[Lab], Any]) -> None:
    lab.script(by_role({"Worker": [caller_of("lookup"), Reply(text=TEXT)]}))
    guard = BudgetGuard(Budget("$1.00"))
    result = start(lab, agent_named("Worker", model_of(lab), tools=[lookup]), guard)
    async for event in result.stream_events():
        if event.type == "raw_response_event":
            result.cancel(mode="after_turn")
    assert len(lab.calls) == 1
    agree(lab.provider, guard)


@endpoints
@pytest.mark.parametrize("usage", ["off", "missing"])
@pytest.mark.parametrize("mode", ["run", "run_streamed"])
async def test_without_usage_the_estimate_is_booked_and_marked_and_never_nothing(
    lab: Lab, mode: str, usage: Any, model_of: Callable[[Lab], Any]
) -> None:
    lab.script(Reply(text=TEXT, usage=usage))
    guard = BudgetGuard(Budget("$1.00"))
    await lab.run(mode, agent_named("Worker", model_of(lab), model_settings=capped(200)), hooks=guard)
    never_below(lab.provider, guard)
    report = guard.report()
    assert report.uncertain == report.total_spent > 0
    assert report.breakdown.llm.calls == len(lab.calls) == 1
    assert report.breakdown.llm.by_model[BIG].output_tokens == 200


@endpoints
async def test_usage_that_comes_late_is_booked_exactly(lab: Lab, model_of: Callable[[Lab], Any]) -> None:
    lab.script(Reply(text=TEXT, chunks=CHUNKS, usage="late", gate_chunks=True))
    guard = BudgetGuard(Budget("$1.00"))
    result = start(lab, agent_named("Worker", model_of(lab)), guard)
    pieces = deltas(result)
    await lab.provider.await_calls(1)
    lab.provider.release_chunk(CHUNKS)
    read = [await anext(pieces) for _ in range(CHUNKS - 1)]  # older SDKs hold the last piece back
    assert guard.spent_usd == 0 < guard.reserved_usd
    lab.provider.release_chunk()
    assert "".join([*read, *[piece async for piece in pieces]]) == TEXT
    agree(lab.provider, guard)
    assert guard.report().uncertain == 0


@pytest.mark.parametrize(("asked", "sent"), [(None, True), (True, True), (False, False)])
async def test_usage_is_asked_for_in_a_stream_unless_the_user_says_no(lab: Lab, asked: bool | None, sent: bool) -> None:
    guard = BudgetGuard(Budget("$1.00"))
    agent = agent_named("Worker", lab.chat(), model_settings=capped(200, include_usage=asked))
    await lab.run("run_streamed", agent, hooks=guard)
    assert [call.include_usage for call in lab.calls] == [sent]
    never_below(lab.provider, guard)
    assert (guard.report().uncertain == 0) is sent


async def test_a_call_that_is_not_streamed_is_sent_as_it_was(lab: Lab) -> None:
    guard = BudgetGuard(Budget("$1.00"))
    await lab.run("run", agent_named("Worker", lab.chat(), model_settings=capped(200)), hooks=guard)
    assert "stream_options" not in lab.calls[0].body


@pytest.mark.parametrize(("mode", "asked"), [("run", None), ("run_streamed", True)])
async def test_a_model_of_ones_own_is_told_to_ask_for_usage_in_streams_alone(
    lab: Lab, mode: str, asked: bool | None
) -> None:
    told: list[bool | None] = []

    class Noting(OpenAIChatCompletionsModel):
        async def get_response(self, *args: Any, **kwargs: Any) -> Any:
            told.append(kwargs["model_settings"].include_usage)
            return await super().get_response(*args, **kwargs)

        async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            told.append(args[2].include_usage)
            async for event in super().stream_response(*args, **kwargs):
                yield event

    agent = agent_named("Worker", Noting(BIG, openai_client=lab.client), model_settings=capped(200))
    await lab.run(mode, agent, hooks=BudgetGuard(Budget("$1.00")))
    assert told == [asked]


def a_delta(text: str, number: int) -> ResponseTextDeltaEvent:
    return ResponseTextDeltaEvent(
        type="response.output_text.delta",
        delta=text,
        item_id="m",
        output_index=0,
        content_index=0,
        sequence_number=number,
        logprobs=[],
    )


class Unfinished(Model):
    """A user's own model that sends no last event."""

    model = BIG

    async def get_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[TResponseStreamEvent]:
        yield a_delta("Hel", 1)


async def test_a_stream_without_a_last_event_is_booked_as_held(lab: Lab) -> None:
    guard = BudgetGuard(Budget("$1.00"))
    with suppress(Exception):  # as the SDK takes it
        await lab.run("run_streamed", agent_named("Worker", Unfinished(), model_settings=capped(100)), hooks=guard)
    (decision,) = guard.session.decisions()
    assert guard.reserved_usd == 0
    assert guard.spent_usd == guard.report().uncertain == decision.estimate.cost_usd


class Babbler(DelegatingModel):
    """A model that does not keep to the cap it is sent."""

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[TResponseStreamEvent]:
        async for event in super().stream_response(*args, **kwargs):
            if isinstance(event, ResponseTextDeltaEvent):
                more = event.model_copy(update={"delta": event.delta[:1] * 128})  # one token at least
                for _ in range(400):
                    yield more
            yield event


def wordy(lab: Lab) -> Agent[Any]:
    return agent_named("Worker", lab.responses(), model_settings=capped(300))


async def revoke_after(
    lab: Lab, guard: BudgetGuard, agent: Agent[Any], chunks: int
) -> tuple[RunResultStreaming, list[str]]:
    """Consume a gated stream, and cut the guard off after *chunks* of its pieces."""
    result = start(lab, agent, guard)
    seen: list[str] = []
    await lab.provider.await_calls(1)
    lab.provider.release_chunk()
    async for piece in deltas(result):
        seen.append(piece)
        if len(seen) <= chunks:
            lab.provider.release_chunk()
        if len(seen) == chunks:
            guard.revoke("enough")
    return result, seen


async def test_a_revoked_stream_is_stopped_where_it_is(lab: Lab) -> None:
    lab.script(Reply(text=TEXT, chunks=CHUNKS, gate_chunks=True))
    guard = BudgetGuard(Budget("$1.00"))
    with pytest.raises(BudgetRevoked, match="enough"):
        await revoke_after(lab, guard, wordy(lab), 2)
    await lab.quiet()
    assert lab.calls[0].outcome == "aborted"
    never_below(lab.provider, guard)
    assert guard.report().uncertain > 0


async def test_a_revoked_stream_can_end_as_if_the_answer_were_complete(lab: Lab) -> None:
    lab.script(Reply(text=TEXT, chunks=CHUNKS, gate_chunks=True))
    guard = BudgetGuard(Budget("$1.00"), on_cut_off="keep")
    result, seen = await revoke_after(lab, guard, wordy(lab), 2)
    assert result.final_output == "".join(seen)
    assert result.final_output != TEXT
    assert TEXT.startswith(result.final_output)
    await lab.quiet()
    assert lab.calls[0].outcome == "aborted"
    never_below(lab.provider, guard)


@pytest.mark.parametrize("on_cut_off", ["raise", "keep"])
async def test_a_half_made_tool_call_is_never_run(lab: Lab, on_cut_off: Any) -> None:
    guard = BudgetGuard(Budget("$1.00"), on_cut_off=on_cut_off)

    class CutOff(DelegatingModel):
        async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[TResponseStreamEvent]:
            async for event in super().stream_response(*args, **kwargs):
                if event.type == "response.function_call_arguments.delta":
                    guard.revoke("enough")
                yield event

    lab.script(Reply(text=TEXT, tool_calls=caller_of("lookup").tool_calls))
    agent = agent_named("Worker", CutOff(lab.responses()), tools=[lookup], model_settings=capped(300))
    with pytest.raises(BudgetRevoked):
        await lab.run("run_streamed", agent, hooks=guard)
    await lab.quiet()
    never_below(lab.provider, guard)
    assert guard.report().breakdown.tools.calls == 0
    assert guard.report().uncertain > 0  # it was stopped in mid-stream, not at the tool


async def test_a_model_that_ignores_its_cap_is_stopped(lab: Lab) -> None:
    guard = BudgetGuard(Budget("$1.00"))
    agent = agent_named("Worker", Babbler(lab.responses()), model_settings=capped(300))
    with pytest.raises(BudgetExceeded) as stop:
        await lab.run("run_streamed", agent, hooks=guard)
    assert stop.value.dimension == "call_max_output_tokens"
    await lab.quiet()
    never_below(lab.provider, guard)


async def test_a_model_that_ignores_its_cap_can_be_truncated(lab: Lab) -> None:
    guard = BudgetGuard(Budget("$1.00"), on_cut_off="keep")
    agent = agent_named("Worker", Babbler(lab.responses()), model_settings=capped(300))
    result = await lab.run("run_streamed", agent, hooks=guard)
    assert result.final_output == "o" * 128 * 301
    await lab.quiet()
    never_below(lab.provider, guard)


def test_the_events_that_end_a_truncated_stream_go_on_from_those_that_came() -> None:
    seen = _Seen()
    assert seen.truncated() == [] and not seen.text_only
    seen.event(SimpleNamespace(type="response.created", response=Response.model_validate(response(None))))  # type: ignore[arg-type]
    for number in range(3):
        seen.event(a_delta("é", number))
    assert (seen.text, seen.output_floor, seen.text_only) == ("ééé", 1, True)
    item, completed = seen.truncated()
    assert [each.sequence_number for each in (item, completed)] == [4, 5]
    assert completed.response.output == [item.item] and completed.response.status == "incomplete"  # type: ignore[union-attr]
    assert (item.item.id, item.output_index, text_of([item.item])) == ("msg_truncated", 0, "ééé")  # type: ignore[union-attr]


@pytest.mark.parametrize("delivered", [pytest.param("queued", marks=drains), "read"])
async def test_what_was_paid_for_reaches_a_slow_consumer_before_the_stop(lab: Lab, delivered: str) -> None:
    lab.script(by_role({"Worker": [caller_of("lookup"), Reply(text=TEXT)]}))
    guard = BudgetGuard(Budget(max_requests=1))
    result = start(lab, agent_named("Worker", lab.responses(), tools=[lookup]), guard)
    kinds: list[str] = []
    if delivered == "queued":
        await settled(result)  # everything is in the queue, the stop behind it
    with pytest.raises(BudgetExceeded):
        async for event in result.stream_events():
            kinds.append(getattr(event, "name", event.type))
    assert "tool_called" in kinds
    assert "tool_output" in kinds
    agree(lab.provider, guard)


@endpoints
@pytest.mark.parametrize("on_cancel", ["bound", "seen"])
async def test_a_closed_tab_is_booked_as_held_or_by_what_was_seen(
    lab: Lab, model_of: Callable[[Lab], Any], on_cancel: Any
) -> None:
    lab.script(Reply(text=TEXT * 100, chunks=40, gate_chunks=True))
    guard = BudgetGuard(Budget("$5.00"), on_cancel=on_cancel)
    result = start(lab, agent_named("Worker", model_of(lab)), guard)
    seen: list[str] = []

    async def consume() -> None:
        async for text in deltas(result):
            seen.append(text)
            if len(seen) == 20:
                result.cancel()
                return
            lab.provider.release_chunk()

    consumer = asyncio.ensure_future(consume())
    await lab.provider.await_calls(1)
    lab.provider.release_chunk()
    await consumer
    await settled(result)
    await lab.quiet()
    held = guard.session.decisions()[0].held.cost
    booked = guard.spent_usd * 10**9
    assert guard.reserved_usd == 0
    assert guard.report().uncertain == guard.spent_usd
    if on_cancel == "bound":
        assert booked == held
    else:
        assert 0 < booked < held / 5
        written = sum(model.output_tokens for model in guard.report().breakdown.llm.by_model.values())
        assert written >= len("".join(seen)) // 4
