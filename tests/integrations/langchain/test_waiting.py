"""In async code a budget's models wait for room themselves, just before they send a call; a bare callback cannot."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("langchain_openai")
pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import AsyncCallbackHandler

from budget_guard import Budget
from budget_guard.integrations.langchain import (
    BudgetCallbackHandler,
    BudgetExceeded,
    BudgetMiddleware,
    budgeted_model,
)
from budget_guard.testing import Reply
from tests.builders import ZERO
from tests.integrations.langchain.agents import SMALL, Lab, configured

ANSWER = Reply(text="word " * 10, output_tokens=4_000)
"""$0.04 on gpt-4o: of $0.50, twelve."""
ASK: dict[str, Any] = {"messages": [("user", "go")]}


def a_model(lab: Lab, handler: BudgetCallbackHandler, **options: Any) -> Any:
    return budgeted_model(lab.chat(max_tokens=None, **options), lab.chat(SMALL, max_tokens=None), handler=handler)


def an_agent(lab: Lab, handler: BudgetCallbackHandler) -> Any:
    return create_agent(lab.chat(max_tokens=None), [], middleware=[BudgetMiddleware(handler, exit_behavior="error")])


async def stream(runnable: Any, ask: Any) -> None:
    async for _ in runnable.astream(ask):
        pass


WAYS: dict[str, Callable[[Any, Any], Any]] = {"ainvoke": lambda runnable, ask: runnable.ainvoke(ask), "astream": stream}


@pytest.mark.parametrize("way", [*WAYS, "abatch"])
@pytest.mark.parametrize("made", ["agent", "model"])
async def test_of_forty_at_once_as_many_come_whole_as_the_budget_pays_for(lab: Lab, made: str, way: str) -> None:
    lab.script(ANSWER)
    handler = BudgetCallbackHandler(Budget("$0.50"))
    runnable, ask = (an_agent(lab, handler), ASK) if made == "agent" else (a_model(lab, handler), "go")
    if way == "abatch":
        results = await runnable.abatch([ask] * 40, return_exceptions=True)
    else:
        results = await asyncio.gather(*(WAYS[way](runnable, ask) for _ in range(40)), return_exceptions=True)
    await lab.quiet()
    whole = sum(call.usage is not None and call.usage.output == 4_000 for call in lab.calls)
    assert whole >= 11
    assert all(isinstance(result, BudgetExceeded) for result in results if isinstance(result, BaseException))
    assert (handler.spent_usd, handler.reserved_usd) == (lab.provider.bill_usd, ZERO)
    assert handler.spent_usd <= Decimal("0.50")
    assert sum(not isinstance(result, BaseException) for result in results) == len(lab.calls)


async def test_a_bare_handler_on_an_event_loop_refuses_what_does_not_fit_now_and_says_that_waiting_helps(
    lab: Lab,
) -> None:
    lab.script(ANSWER)
    handler = BudgetCallbackHandler(Budget("$0.50"))
    model = lab.chat(max_tokens=None)
    results = await asyncio.gather(
        *(model.ainvoke("go", configured(handler)) for _ in range(12)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, BudgetExceeded)]
    assert refused
    assert all("try again when they are over" in str(stop) for stop in refused)


async def test_a_call_that_is_cancelled_while_it_waits_leaves_nothing_held(lab: Lab) -> None:
    lab.script(Reply(text="x", output_tokens=4_000, delay_s=0.2))
    handler = BudgetCallbackHandler(Budget("$0.30"))
    model = a_model(lab, handler)
    first = asyncio.create_task(model.ainvoke("go"))
    while not handler.reserved_usd:
        await asyncio.sleep(0)
    held = handler.reserved_usd
    waiting = [asyncio.create_task(model.ainvoke("go")) for _ in range(5)]
    for _ in range(20):
        await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert handler.reserved_usd <= held * 2  # the first one, and one that fitted beside it
    assert any(isinstance(result, asyncio.CancelledError) for result in results)
    await first
    await lab.quiet()
    assert handler.reserved_usd == ZERO


class Told(AsyncCallbackHandler):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.starts: list[Any] = []
        self.ends = 0
        self.errors: list[BaseException] = []

    async def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.starts.append(kwargs.get("invocation_params"))

    async def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.ends += 1

    async def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.errors.append(error)


async def test_other_callbacks_are_told_of_the_end_of_a_refused_call(lab: Lab) -> None:
    handler, told = BudgetCallbackHandler(Budget("$1.00", max_requests=1)), Told()
    model = a_model(lab, handler)
    await model.ainvoke("go", {"callbacks": [told]})
    with pytest.raises(BudgetExceeded):
        await model.ainvoke("go", {"callbacks": [told]})
    assert (len(told.starts), told.ends, [type(error) for error in told.errors]) == (2, 1, [BudgetExceeded])
    for params in told.starts:  # as tracers do
        assert type(copy.deepcopy(params)) is dict
        assert type(pickle.loads(pickle.dumps(params))) is dict


async def test_two_budgets_hold_an_awaited_call_both_or_not_at_all(lab: Lab) -> None:
    wide, narrow = BudgetCallbackHandler(Budget("$1.00")), BudgetCallbackHandler(Budget("$1.00", max_requests=1))
    model = a_model(lab, wide)
    await model.ainvoke("go", configured(narrow))
    with pytest.raises(BudgetExceeded):
        await model.ainvoke("go", configured(narrow))
    await lab.quiet()
    assert len(lab.calls) == 1
    assert wide.spent_usd == narrow.spent_usd == lab.provider.bill_usd
    assert (wide.reserved_usd, narrow.reserved_usd) == (ZERO, ZERO)


async def test_an_awaited_answer_out_of_a_cache_takes_no_hold(lab: Lab) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    model = a_model(lab, handler, cache=InMemoryCache())
    await model.ainvoke("go")
    await model.ainvoke("go")
    assert len(lab.calls) == len(handler.session.decisions()) == 1
    assert (handler.spent_usd, handler.reserved_usd) == (lab.provider.bill_usd, ZERO)


async def test_a_handler_that_is_listed_twice_holds_an_awaited_call_once(lab: Lab) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    await a_model(lab, handler).ainvoke("go", {"callbacks": [handler, handler]})
    assert len(handler.session.decisions()) == 1
    assert handler.spent_usd == lab.provider.bill_usd
