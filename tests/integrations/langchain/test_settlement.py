"""Whatever ends a call, nothing stays held, and nothing that may have been billed is given back."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable
from typing import Any, cast
from uuid import uuid4

import pytest

pytest.importorskip("langgraph")
pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult, LLMResult
from langchain_core.runnables import RunnableLambda
from openai import APIConnectionError, APITimeoutError

from budget_guard import Budget
from budget_guard.integrations.langchain import BudgetCallbackHandler, BudgetExceeded, budget_scope
from budget_guard.reporting import RunRecord
from budget_guard.testing import Reply
from budget_guard_langchain import response
from budget_guard_langchain.calls import Call, Calls
from tests.builders import ZERO
from tests.integrations.langchain.agents import (
    DIME,
    MODEL_SURFACES,
    MODELS,
    SURFACES,
    Lab,
    agree,
    caller_of,
    configured,
    lookup,
    never_below,
)

models = pytest.mark.parametrize("model_of", MODELS.values(), ids=MODELS)
ASK: dict[str, Any] = {"messages": [("user", "go")]}
has_event_streams = pytest.mark.skipif("stream_events" not in SURFACES, reason="this langchain-core has none")
TEXT = "twelve words are a fair amount of text to be cut off"


def bare(model: Any) -> tuple[Any, Any]:
    return model, "hi"


def in_a_chain(model: Any) -> tuple[Any, Any]:
    return RunnableLambda(lambda text: text) | model, "hi"


def in_an_agent(model: Any) -> tuple[Any, Any]:
    return create_agent(model, [lookup]), ASK


WORKS: list[Callable[[Any], tuple[Any, Any]]] = [bare, in_a_chain, in_an_agent]
works = pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)


async def _consume(stream: Any) -> None:
    async for _ in stream:
        pass


ASYNC_SURFACES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "ainvoke": lambda runnable, input, config: runnable.ainvoke(input, config),
    "astream": lambda runnable, input, config: _consume(runnable.astream(input, config)),
    "abatch": lambda runnable, input, config: runnable.abatch([input], config),
    "astream_events": lambda runnable, input, config: _consume(runnable.astream_events(input, config)),
}
async_surfaces = pytest.mark.parametrize("surface", ASYNC_SURFACES.values(), ids=ASYNC_SURFACES)


@async_surfaces
@works
@models
async def test_a_run_that_is_cancelled_while_the_provider_works_pays_for_that_call(
    lab: Lab, model_of: Any, work: Any, surface: Any
) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    runnable, input = work(model_of(lab))
    lab.provider.pause()
    with budget_scope(handler):  # without which Python 3.10 loses the handler
        run = asyncio.ensure_future(surface(runnable, input, configured(handler)))
    await lab.provider.await_calls(1)
    assert handler.reserved_usd > 0
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await asyncio.sleep(0)
    lab.provider.resume()
    await lab.provider.await_idle()
    never_below(lab, handler)
    assert handler.report().uncertain == handler.spent_usd > 0
    assert handler.report().breakdown.llm.calls == 1


@works
async def test_a_run_that_timed_out_at_the_caller_pays_for_its_call(lab: Lab, work: Any) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    runnable, input = work(lab.chat())

    async def impatient() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(runnable.ainvoke(input, configured(handler)), timeout=0.5)

    with lab.provider.paused(), budget_scope(handler):
        await asyncio.ensure_future(impatient())
        await asyncio.sleep(0)
    await lab.provider.await_idle()
    never_below(lab, handler)
    assert handler.report().uncertain == handler.spent_usd > 0


@works
@models
def test_a_stream_that_is_closed_pays_for_its_call(lab: Lab, model_of: Any, work: Any) -> None:
    lab.script(Reply(text=TEXT, chunks=12))
    handler = BudgetCallbackHandler(Budget("$1.00"))
    runnable, input = work(model_of(lab))
    stream = runnable.stream(input, configured(handler))
    next(stream)
    stream.close()
    never_below(lab, handler)
    assert handler.report().breakdown.llm.calls == 1


@works
@models
async def test_an_async_stream_that_is_closed_pays_for_its_call(lab: Lab, model_of: Any, work: Any) -> None:
    lab.script(Reply(text=TEXT, chunks=12))
    handler = BudgetCallbackHandler(Budget("$1.00"))
    runnable, input = work(model_of(lab))
    options = {"stream_mode": "messages"} if work is in_an_agent else {}
    with budget_scope(handler):
        stream = runnable.astream(input, configured(handler), **options)
        await anext(stream)
        await stream.aclose()
    del stream
    await lab.quiet()
    never_below(lab, handler)
    assert handler.report().breakdown.llm.calls == 1


def test_a_stream_that_is_forgotten_pays_for_its_call(lab: Lab) -> None:
    lab.script(Reply(text=TEXT, chunks=12))
    handler = BudgetCallbackHandler(Budget("$1.00"))
    for _ in lab.chat().stream("hi", configured(handler)):
        break
    gc.collect()
    never_below(lab, handler)
    assert handler.report().uncertain > 0


@has_event_streams
def test_an_event_stream_that_is_forgotten_pays_for_its_call(lab: Lab) -> None:
    lab.script(Reply(text=TEXT, chunks=12))
    handler = BudgetCallbackHandler(Budget("$1.00"))

    def look_and_go() -> None:
        next(iter(lab.chat().stream_events("hi", configured(handler), version="v3")))
        assert handler.reserved_usd > 0

    look_and_go()
    gc.collect()
    never_below(lab, handler)
    assert handler.report().uncertain > 0


@has_event_streams
async def test_an_async_event_stream_that_is_forgotten_pays_for_its_call(lab: Lab) -> None:
    lab.script(Reply(text=TEXT, chunks=12))
    handler = BudgetCallbackHandler(Budget("$1.00"))

    async def look_and_go() -> None:
        events = await lab.chat().astream_events("hi", configured(handler), version="v3")
        await anext(aiter(events))

    await asyncio.ensure_future(look_and_go())
    await lab.quiet()
    never_below(lab, handler)


@pytest.mark.parametrize("surface", ["invoke", "stream", "ainvoke", "astream"])
@pytest.mark.parametrize("status", [400, 401, 404, 429])
@models
def test_a_call_that_the_provider_refused_costs_nothing(lab: Lab, model_of: Any, status: int, surface: str) -> None:
    lab.script([caller_of("lookup"), Reply(status=status)])
    handler = BudgetCallbackHandler(Budget("$1.00"))
    with pytest.raises(Exception, match=str(status)):
        SURFACES[surface](create_agent(model_of(lab), [lookup]), ASK, configured(handler))
    assert [call.status for call in lab.calls] == [200, status]
    agree(lab, handler)


@pytest.mark.parametrize("surface", ["invoke", "stream", "ainvoke", "astream"])
@models
def test_a_call_that_failed_at_the_provider_is_booked_as_an_estimate(lab: Lab, model_of: Any, surface: str) -> None:
    lab.script([caller_of("lookup"), Reply(status=500)])
    handler = BudgetCallbackHandler(Budget("$1.00"))
    with pytest.raises(Exception, match="500"):
        SURFACES[surface](create_agent(model_of(lab), [lookup]), ASK, configured(handler))
    assert never_below(lab, handler) == handler.report().uncertain > 0


@pytest.mark.parametrize("drop_after", [0, 1, 5])
@models
def test_a_stream_whose_connection_broke_is_booked_as_an_estimate(lab: Lab, model_of: Any, drop_after: int) -> None:
    lab.script(Reply(text=TEXT, chunks=12, drop_after=drop_after))
    handler = BudgetCallbackHandler(Budget("$1.00"))
    with pytest.raises(Exception, match=r"(?i)connection|closed|incomplete|read"):
        list(model_of(lab).stream("hi", configured(handler)))
    never_below(lab, handler)
    assert handler.report().uncertain == handler.spent_usd > 0


def test_a_provider_that_is_not_there_costs_nothing(lab: Lab) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    model = lab.chat()
    lab.provider.stop()
    with pytest.raises(APIConnectionError):
        model.invoke("hi", configured(handler))
    assert (handler.spent_usd, handler.reserved_usd, handler.report().breakdown.llm.calls) == (ZERO, ZERO, 0)
    lab.provider.start()


def test_a_call_that_timed_out_is_booked_as_an_estimate(lab: Lab) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    with lab.provider.paused(), pytest.raises(APITimeoutError):
        lab.chat(timeout=0.5).invoke("hi", configured(handler))
    never_below(lab, handler)
    assert handler.report().uncertain == handler.spent_usd > 0


@pytest.mark.parametrize("surface", ["stream", "astream"])
def test_a_stream_without_usage_is_booked_as_an_estimate(lab: Lab, surface: str) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    SURFACES[surface](lab.chat(stream_usage=False), "hi", configured(handler))
    never_below(lab, handler)
    assert handler.report().uncertain == handler.spent_usd > 0


def test_a_batch_whose_last_call_is_refused_sends_none_and_costs_nothing(lab: Lab) -> None:
    handler = BudgetCallbackHandler(Budget(max_requests=2))
    asked: list[list[BaseMessage]] = [[HumanMessage(text)] for text in "abc"]
    for surface in ("generate", "agenerate"):
        with pytest.raises(BudgetExceeded):
            if surface == "generate":
                lab.chat().generate(asked, callbacks=[handler])
            else:
                asyncio.run(lab.chat().agenerate(asked, callbacks=[handler]))
        assert lab.calls == []
        assert (handler.spent_usd, handler.reserved_usd) == (ZERO, ZERO)
        assert handler.report().breakdown.llm.calls == 0


def test_a_server_error_costs_nothing_for_who_trusts_the_provider(lab: Lab) -> None:
    lab.script([Reply(status=500)])
    handler = BudgetCallbackHandler(Budget("$1.00", server_errors="release"))
    with pytest.raises(Exception, match="500"):
        lab.chat().invoke("Hi", config={"callbacks": [handler]})
    assert (handler.spent_usd, handler.reserved_usd) == (ZERO, ZERO)


@pytest.mark.parametrize("surface", ["generate", "agenerate"])
def test_a_batch_in_which_one_call_fails_books_the_others(lab: Lab, surface: str) -> None:
    lab.script([Reply(), Reply(status=500), Reply()])
    handler = BudgetCallbackHandler(Budget("$1.00"))

    def work() -> None:
        asked: list[list[BaseMessage]] = [[HumanMessage(text)] for text in "abc"]
        with pytest.raises(Exception, match="500"):
            if surface == "generate":
                lab.chat().generate(asked, callbacks=[handler])
            else:
                asyncio.run(lab.chat().agenerate(asked, callbacks=[handler]))

    work()
    gc.collect()
    never_below(lab, handler)


def test_a_call_that_another_handler_forbids_is_not_left_open(lab: Lab) -> None:
    class Forbids(BaseCallbackHandler):
        raise_error = True
        run_inline = True

        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            raise PermissionError("forbidden")

    handler = BudgetCallbackHandler(Budget("$1.00"))

    def work() -> None:
        with pytest.raises(PermissionError):
            lab.chat().invoke("hi", configured(handler, Forbids()))

    work()
    gc.collect()
    assert lab.calls == []
    assert handler.reserved_usd == 0


# What LangChain tells late, twice, or out of order


def answer(**usage: int) -> LLMResult:
    message: Any = AIMessage(
        "ok",
        usage_metadata={**usage, "total_tokens": sum(usage.values())} if usage else None,
        response_metadata={"model_name": "gpt-4o"},
    )
    return LLMResult(generations=[[ChatGeneration(message=message)]])


def start(handler: BudgetCallbackHandler, **ids: Any) -> None:
    handler.on_chat_model_start(
        {}, [[HumanMessage("hi")]], metadata={"ls_model_name": "gpt-4o", "ls_max_tokens": 100}, **ids
    )


PAID = answer(input_tokens=1_000, output_tokens=100)
COST = 1_000 * 2_500 + 100 * 10_000


def nano(handler: BudgetCallbackHandler) -> int:
    return int(handler.spent_usd * 10**9)


@pytest.mark.parametrize("ends", ["on_chain_end", "on_chain_error", "on_tool_end", "on_tool_error"])
def test_the_end_of_a_run_settles_its_calls_and_a_late_answer_replaces_the_estimate(ends: str) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    parent, run_id = uuid4(), uuid4()
    start(handler, run_id=run_id, parent_run_id=parent)
    held = handler.reserved_usd
    getattr(handler, ends)(RuntimeError("cancelled"), run_id=parent)
    assert (handler.spent_usd, handler.reserved_usd) == (handler.report().uncertain, ZERO) == (held, ZERO)
    for _ in range(2):
        handler.on_llm_end(PAID, run_id=run_id)
        assert (nano(handler), handler.report().uncertain) == (COST, ZERO)
    assert handler.report().breakdown.llm.calls == 1


def test_the_end_of_a_run_leaves_the_calls_of_others_alone() -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    start(handler, run_id=uuid4(), parent_run_id=uuid4())
    handler.on_chain_end({}, run_id=uuid4())
    assert handler.spent_usd == 0 < handler.reserved_usd


@pytest.mark.parametrize("next_one", ["model", "tool", "end of a run"])
def test_a_call_that_was_abandoned_is_booked_when_the_handler_is_next_told_of_anything(next_one: str) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    options: dict[str, Any] = {}
    start(handler, run_id=uuid4(), options=options)
    held = handler._session.reserved_usd  # what is asked of the handler itself looks for such calls as well
    options.clear()  # as LangChain forgets them
    assert (handler._session.spent_usd, handler._session.reserved_usd) == (ZERO, held)
    if next_one == "model":
        start(handler, run_id=uuid4())
    elif next_one == "tool":
        handler.on_tool_start({"name": "search"}, "{}", run_id=uuid4())
    else:
        handler.on_chain_end({}, run_id=uuid4())
    assert handler._session.spent_usd == held


def test_an_end_without_a_start_is_charged_once() -> None:
    handler = BudgetCallbackHandler(Budget("$0.004"))
    run_id = uuid4()
    for _ in range(2):
        handler.on_llm_end(PAID, run_id=run_id)
        assert nano(handler) == COST
    handler.on_llm_end(PAID, run_id=uuid4())  # past the limit: it is booked, and the answer is not lost
    assert nano(handler) == 2 * COST
    with pytest.raises(BudgetExceeded):
        start(handler, run_id=uuid4())


def test_an_end_without_a_start_is_charged_at_the_tier_that_served_it() -> None:
    costs: list[int] = []
    for tier in ("default", "priority"):
        handler = BudgetCallbackHandler(Budget("$1.00"))
        paid: Any = answer(input_tokens=1_000, output_tokens=100)
        paid.generations[0][0].message.response_metadata["service_tier"] = tier
        handler.on_llm_end(paid, run_id=uuid4())
        costs.append(nano(handler))
    assert costs[1] > costs[0] == COST


def test_an_answer_is_never_lost_to_the_books(caplog: pytest.LogCaptureFixture) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    run_id = uuid4()
    start(handler, run_id=run_id)
    held = handler.reserved_usd
    senseless = answer(input_tokens=5, output_tokens=1)
    senseless.generations[0][0].message.usage_metadata["input_token_details"] = {"cache_read": -5}  # type: ignore[union-attr]  # it is a message
    handler.on_llm_end(senseless, run_id=run_id)
    assert "the reported cache_read is negative" in caplog.text
    assert (handler.spent_usd, handler.reserved_usd) == (held, ZERO)


def test_an_answer_that_cannot_be_read_is_booked_as_held_and_reaches_the_caller(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    log = Log()
    handler = BudgetCallbackHandler(Budget("$1.00"), run_log=log)
    run_id = uuid4()
    start(handler, run_id=run_id)
    held = handler.reserved_usd
    monkeypatch.setattr(response.Reply, "read", fails)
    handler.on_llm_end(PAID, run_id=run_id)
    assert f"could not book the call of run {run_id}" in caplog.text and "ZeroDivisionError" in caplog.text
    assert (handler.spent_usd, handler.reserved_usd, handler.report().uncertain) == (held, ZERO, held)
    handler.on_llm_end(PAID, run_id=uuid4())  # of a call whose start nobody told of
    assert handler.spent_usd == held
    assert [record.cost for record in log.records] == [int(held * 10**9)]


class Log:
    """Keeps the records of runs."""

    def __init__(self) -> None:
        self.records: list[RunRecord] = []

    def add(self, record: RunRecord) -> None:
        """Take a record."""
        self.records.append(record)


def test_an_error_after_the_answer_changes_nothing() -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    run_id = uuid4()
    start(handler, run_id=run_id)
    handler.on_llm_end(PAID, run_id=run_id)
    handler.on_llm_error(ConnectionError("late"), run_id=run_id)
    assert (nano(handler), handler.reserved_usd) == (COST, ZERO)


class Endless(BaseChatModel):
    """A model whose provider is never heard of again, in a task that goes on."""

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        await asyncio.Event().wait()
        raise AssertionError

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        raise KeyboardInterrupt

    @property
    def _llm_type(self) -> str:
        return "endless"

    def _get_ls_params(self, *args: Any, **kwargs: Any) -> Any:
        return {"ls_model_name": "dime"}


def test_an_interrupt_from_the_keyboard_pays_for_the_call() -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"), pricing=DIME)
    with pytest.raises(KeyboardInterrupt):
        Endless().invoke("hi", configured(handler))
    assert (handler.spent_usd, handler.reserved_usd) == (handler.report().uncertain, ZERO)
    assert handler.report().breakdown.llm.calls == 1


async def test_a_call_of_a_task_that_is_cancelled_is_settled_with_the_task() -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"), pricing=DIME)
    task = asyncio.ensure_future(Endless().ainvoke("hi", configured(handler)))
    while not handler.reserved_usd:
        await asyncio.sleep(0)
    task.cancel()
    (ended,) = await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0)
    assert (handler.spent_usd, handler.reserved_usd) == (handler.report().uncertain, ZERO)
    assert handler.report().breakdown.llm.calls == 1
    assert isinstance(ended, asyncio.CancelledError)  # whose traceback keeps alive what the call had


def test_a_handler_keeps_nothing_of_calls_that_are_over(lab: Lab) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    for surface in MODEL_SURFACES.values():
        surface(lab.chat(), "hi", configured(handler))
    SURFACES["ainvoke"](create_agent(lab.chat(), [lookup]), ASK, configured(handler))
    calls = handler._calls
    assert not calls._open and not calls._parts and not calls._gone
    assert not any(calls._over.values())


class Task:
    """A task, as far as calls look at one."""

    def __init__(self) -> None:
        self.callbacks: list[Any] = []
        self.add_done_callback = self.callbacks.append
        self.remove_done_callback = self.callbacks.remove


def test_neither_a_task_nor_a_run_that_goes_on_keeps_calls_that_are_over() -> None:
    calls, parent, task = Calls(), uuid4(), Task()
    first, second = (Call((), uuid4(), parent, called="gpt-4o") for _ in range(2))
    for call in (first, second):
        calls.begin(call, None, cast("Any", task))
    assert len(task.callbacks) == 2 and calls._parts == {parent: {first: None, second: None}}
    assert calls.end(first.run_id) is first
    assert len(task.callbacks) == 1 and calls._parts == {parent: {second: None}}
    assert calls.end(second.run_id) is second
    assert not task.callbacks and not calls._parts and not calls._open


def test_the_end_of_a_run_leaves_a_call_of_another_run_alone_that_has_the_id_of_one_of_its_calls() -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    run_id, one, other = uuid4(), uuid4(), uuid4()
    for parent in (one, other):
        start(handler, run_id=run_id, parent_run_id=parent)
    held = handler.reserved_usd / 2
    handler.on_chain_end({}, run_id=one)
    assert (handler.spent_usd, handler.reserved_usd) == (held, held)
    handler.on_llm_end(PAID, run_id=run_id)
    assert (nano(handler), handler.reserved_usd) == (int(held * 10**9) + COST, ZERO)
    assert not handler._calls._parts


@pytest.mark.parametrize("number", range(8))
def test_whatever_is_told_of_calls_in_whatever_order_each_is_settled_once_and_none_is_kept(number: int) -> None:
    chance = random.Random(number)
    handler = BudgetCallbackHandler(Budget("$9.00", max_requests=10_000))
    parents, ids = [uuid4() for _ in range(3)], [uuid4() for _ in range(4)]
    started = 0
    for _ in range(60):
        run_id, told = chance.choice(ids), chance.random()
        if told < 0.5:  # also of one that is under way: a config gives the same id to each of its calls
            start(handler, run_id=run_id, parent_run_id=chance.choice([None, *parents]))
            started += 1
        elif told < 0.75 and handler._calls.get(run_id) is not None:
            handler.on_llm_end(PAID, run_id=run_id)
        elif told < 0.85 and handler._calls.get(run_id) is not None:
            handler.on_llm_error(TimeoutError("late"), run_id=run_id)
        else:
            handler.on_chain_end({}, run_id=chance.choice(parents), parent_run_id=chance.choice([None, uuid4()]))
        assert (handler.reserved_usd == 0) == (not handler._calls._open)
    for run_id in ids:
        while handler._calls.get(run_id) is not None:
            handler.on_llm_end(PAID, run_id=run_id)
    calls = handler._calls
    assert not calls._open and not calls._parts and handler.reserved_usd == 0
    assert handler.report().breakdown.llm.calls == started


@pytest.mark.parametrize("on_cancel", ["bound", "seen"])
async def test_a_closed_tab_is_booked_as_held_or_by_what_was_seen(lab: Lab, on_cancel: Any) -> None:
    text = "one and two and three and four " * 100
    lab.script(Reply(text=text, chunks=40, gate_chunks=True))
    handler = BudgetCallbackHandler(Budget("$5.00"), on_cancel=on_cancel)
    seen: list[str] = []

    async def consume() -> None:
        stream: Any = lab.chat(max_tokens=None).astream("hi", configured(handler))
        async for chunk in stream:
            if chunk.text:
                seen.append(chunk.text)
                if len(seen) == 20:
                    break
                lab.provider.release_chunk()
        await stream.aclose()

    consumer = asyncio.ensure_future(consume())
    await lab.provider.await_calls(1)
    lab.provider.release_chunk()
    await consumer
    await lab.quiet()
    assert handler.reserved_usd == 0
    booked, held = handler.spent_usd * 10**9, handler.session.decisions()[0].held.cost
    assert booked == held if on_cancel == "bound" else 0 < booked < held / 5
    written = sum(model.output_tokens for model in handler.report().breakdown.llm.by_model.values())
    assert written >= len("".join(seen)) // 4


async def test_a_closed_tab_in_the_middle_of_a_tool_call_is_booked_as_held(lab: Lab) -> None:
    lab.script(Reply(tool_calls=caller_of("lookup", key="word " * 400).tool_calls))
    handler = BudgetCallbackHandler(Budget("$5.00"), on_cancel="seen")
    stream: Any = lab.chat(max_tokens=None).astream("hi", configured(handler))
    async for chunk in stream:
        if chunk.tool_call_chunks:
            break
    await stream.aclose()
    await lab.quiet()
    assert handler.spent_usd * 10**9 == handler.session.decisions()[0].held.cost
