"""Streams that are given up, in every way there is, at every point: nothing stays held or uncounted."""

from __future__ import annotations

import asyncio
import gc
from typing import Any
from uuid import uuid4

import pytest

pytest.importorskip("langchain_core")

from langchain_core.messages import HumanMessage

from budget_guard import Budget
from budget_guard.integrations.langchain import BudgetCallbackHandler, BudgetRevoked
from budget_guard.testing import LocalProvider, Reply
from tests.integrations.closed_loops import closed
from tests.integrations.langchain.agents import Lab, configured

POINTS = range(8)
REPLY = Reply(text="one two three four five six seven", chunks=8)
setups = pytest.mark.parametrize(("wire", "two"), [("chat", False), ("responses", True)])


class GivenUp(Exception):
    """What a consumer raises in the middle."""


def model_of(lab: Lab, wire: str, two: bool) -> tuple[Any, list[BudgetCallbackHandler], Any]:
    handlers = [BudgetCallbackHandler(Budget("$1.00")) for _ in range(1 + two)]
    return lab.chat() if wire == "chat" else lab.responses(), handlers, configured(*handlers)


def nothing_is_held(lab: Lab, handlers: list[BudgetCallbackHandler]) -> None:
    lab.provider.wait_until_idle()
    for handler in handlers:
        assert handler.reserved_usd == 0
        assert handler.spent_usd >= lab.provider.bill_usd
        assert handler.report().breakdown.llm.calls == len(lab.calls)


@setups
@pytest.mark.parametrize("how", ["break", "raise", "close", "collect"])
@pytest.mark.parametrize("point", POINTS)
def test_a_stream_that_is_given_up_leaves_nothing_held(lab: Lab, point: int, how: str, wire: str, two: bool) -> None:
    lab.script(REPLY)
    model, handlers, config = model_of(lab, wire, two)

    def consume(stream: Any) -> None:
        for seen, _ in enumerate(stream):
            if seen == point:
                if how == "raise":
                    raise GivenUp
                break
        if how == "close":
            stream.close()

    stream = model.stream("hello", config)
    try:
        consume(stream)
    except GivenUp:
        assert how == "raise"
    if how == "collect":
        del stream
        gc.collect()
    else:
        stream.close()
    nothing_is_held(lab, handlers)


@setups
@pytest.mark.parametrize("how", ["break", "raise", "aclose", "task", "collect", "loop"])
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_an_async_stream_that_is_given_up_leaves_nothing_held(point: int, how: str, wire: str, two: bool) -> None:
    with LocalProvider(REPLY) as provider:
        lab = Lab(provider)
        model, handlers, config = model_of(lab, wire, two)
        reached = asyncio.Event()
        kept: list[Any] = []

        async def consume() -> None:
            stream = model.astream("hello", config)
            seen = 0
            async for _ in stream:
                if seen == point:
                    reached.set()
                    if how == "raise":
                        raise GivenUp
                    if how in ("task", "loop"):
                        await asyncio.Event().wait()  # for ever
                    break
                seen += 1
            if how == "aclose":
                await stream.aclose()

        async def main() -> None:
            kept.append(asyncio.ensure_future(consume()))
            if how in ("task", "loop"):
                await asyncio.wait([asyncio.ensure_future(reached.wait())])
                if how == "loop":
                    return
                kept[0].cancel()
            await asyncio.wait(kept)
            gc.collect()
            await lab.quiet()

        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        if how != "loop":
            loop.run_until_complete(loop.shutdown_asyncgens())
        with closed(loop):
            if kept[0].done() and not kept[0].cancelled():
                assert isinstance(kept[0].exception(), GivenUp | None)
            kept.clear()
            gc.collect()
            nothing_is_held(lab, handlers)


@pytest.mark.parametrize(
    ("deltas", "is_seen"),
    [
        ([{"text": "hello"}, {"text": " there"}], True),
        ([{"text": "hello"}, {"reasoning": "greet them"}], False),
        ([{"args": '{"a": 1}'}], False),
    ],
)
def test_of_events_that_were_seen_only_those_of_text_tell_all_that_was_made(
    deltas: list[dict[str, str]], is_seen: bool
) -> None:
    handler, run_id = BudgetCallbackHandler(Budget("$1.00"), on_cancel="seen"), uuid4()
    params = {"model_name": "gpt-4o", "max_tokens": 1_000}
    handler.on_chat_model_start({}, [[HumanMessage("hi")]], run_id=run_id, invocation_params=params)
    held = handler.reserved_usd
    for delta in deltas:
        handler.on_stream_event({"event": "content-block-delta", "delta": delta}, run_id=run_id)
    handler.on_llm_error(asyncio.CancelledError(), run_id=run_id)
    assert handler.reserved_usd == 0
    assert (handler.spent_usd < held / 10) is is_seen
    assert is_seen or handler.spent_usd == held


def test_a_stream_of_events_ends_where_its_run_is_revoked() -> None:
    handler, run_id = BudgetCallbackHandler(Budget("$1.00")), uuid4()
    params = {"model_name": "gpt-4o", "max_tokens": 1_000}
    handler.on_chat_model_start({}, [[HumanMessage("hi")]], run_id=run_id, invocation_params=params)
    handler.on_stream_event({"event": "content-block-delta", "delta": {"text": "hello"}}, run_id=run_id)
    handler.revoke("stolen")
    handler.on_stream_event({"event": "content-block-finish"}, run_id=run_id)
    handler.on_stream_event({"event": "content-block-delta", "delta": {"text": "you"}}, run_id=uuid4())
    with pytest.raises(BudgetRevoked) as stop:
        handler.on_stream_event({"event": "content-block-delta", "delta": {"text": " there"}}, run_id=run_id)
    assert stop.value.partial_output == "hello there"
    handler.on_llm_error(stop.value, run_id=run_id)
    assert handler.spent_usd > 0 == handler.reserved_usd
