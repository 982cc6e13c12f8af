"""A scope carries a handler everywhere, and those that are in force stay so."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, cast

import pytest

pytest.importorskip("langgraph")
pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain_core.callbacks import StdOutCallbackHandler
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import StructuredTool
from langchain_core.tracers import context as hooks

from budget_guard import Budget
from budget_guard.integrations.langchain import BudgetCallbackHandler, BudgetExceeded, budget_scope
from budget_guard.testing import Reply
from budget_guard_langchain.scope import installed
from tests.integrations.langchain.agents import SURFACES, Lab, agree, caller_of, configured

ASK: dict[str, Any] = {"messages": [("user", "go")]}


def test_a_scope_takes_only_a_handler() -> None:
    with pytest.raises(TypeError, match="is given no handler: write budget_scope"):
        budget_scope(Budget("$1.00"))  # type: ignore[type-var]  # on purpose


def test_there_is_one_hook_however_many_scopes_are_entered(lab: Lab) -> None:
    with budget_scope(BudgetCallbackHandler(Budget("$1.00"))):  # the first one registers it
        before = len(hooks._configure_hooks)
    for _ in range(10):
        with budget_scope(BudgetCallbackHandler(Budget("$1.00"))):
            lab.chat().invoke("hi")
    assert len(hooks._configure_hooks) == before


async def test_a_scope_is_entered_in_async_code_too(lab: Lab) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    async with budget_scope(handler) as entered:
        assert entered is handler
        await asyncio.gather(*(lab.chat().ainvoke("hi") for _ in range(3)))
    agree(lab, handler)
    assert len(lab.calls) == 3
    await lab.quiet()


def test_scopes_in_scopes_are_one_list_of_handlers_each_of_them_once() -> None:
    a, b, c = (BudgetCallbackHandler(Budget("$1.00")) for _ in range(3))
    with budget_scope(a), budget_scope(b), budget_scope(c):
        for again in (a, b, c):
            with budget_scope(again):
                assert cast("Any", installed.get()).handlers == (a, b, c)
    with budget_scope(a), budget_scope(a):
        assert installed.get() is a


def test_every_scope_around_a_call_counts_it(lab: Lab) -> None:
    outer, middle, inner = (BudgetCallbackHandler(Budget(max_requests=n)) for n in (9, 3, 1))
    scope = budget_scope(outer)
    with scope:
        lab.chat().invoke("hi")
        with budget_scope(middle), scope, budget_scope(inner):
            lab.chat().invoke("hi")
            with pytest.raises(BudgetExceeded) as stop:
                lab.chat().invoke("hi")
            assert stop.value.limit == 1
        lab.chat().invoke("hi")
    calls = [handler.report().breakdown.llm.calls for handler in (outer, middle, inner)]
    assert (len(lab.calls), calls) == (3, [3, 1, 1])
    assert [handler.reserved_usd for handler in (outer, middle, inner)] == [0, 0, 0]
    assert [handler.report().uncertain for handler in (outer, middle, inner)] == [0, 0, 0]


def test_a_scope_inside_a_run_that_has_a_handler_adds_to_it(lab: Lab) -> None:
    outer, inner = BudgetCallbackHandler(Budget("$1.00")), BudgetCallbackHandler(Budget("$1.00"))

    def work(text: str) -> Any:
        with budget_scope(inner):
            return lab.chat().invoke(text)

    RunnableLambda(work).invoke("hi", configured(outer))
    for handler in (outer, inner):
        agree(lab, handler)


@pytest.mark.parametrize("given", ["none", "others", "bound", "another"])
@pytest.mark.parametrize("awaits", [False, True])
def test_callbacks_that_are_given_inside_of_a_run_do_not_take_its_handlers_away(
    lab: Lab, given: str, awaits: bool
) -> None:
    if awaits and sys.version_info < (3, 11):
        pytest.skip("LangChain loses configs in async code there")
    first, second, another = (BudgetCallbackHandler(Budget("$1.00")) for _ in range(3))
    others: dict[str, list[Any]] = {"others": [StdOutCallbackHandler()], "another": [another]}
    inner = others.get(given, [])
    model: Any = lab.chat().with_config(callbacks=inner) if given == "bound" else lab.chat()
    config: Any = {} if given == "bound" else {"callbacks": inner}

    async def awork(text: str) -> Any:
        return await model.ainvoke(text, config)

    def work(text: str) -> Any:
        return model.invoke(text, config)

    for count, handlers in enumerate(([first], [first, second]), 1):
        around: Any = {"callbacks": handlers}
        if awaits:
            asyncio.run(RunnableLambda(awork).ainvoke("hi", around))
        else:
            RunnableLambda(work).invoke("hi", around)
        assert len(lab.calls) == count
    agree(lab, first)
    if given == "another":
        agree(lab, another)
    assert second.report().breakdown.llm.calls == 1
    assert second.reserved_usd == 0
    model.invoke("hi", config)  # and no further
    assert first.report().breakdown.llm.calls == 2


def test_a_childs_callbacks_inside_of_its_parents_run_are_paid_for_once(lab: Lab) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))

    def work(text: str) -> Any:
        return lab.chat().invoke(text, configured(child))

    with closing(handler.child(Budget("$0.50"))) as child:
        RunnableLambda(work).invoke("hi", configured(handler))
        agree(lab, child)
    agree(lab, handler)


def test_scopes_in_threads_do_not_mix(lab: Lab) -> None:
    handlers = [BudgetCallbackHandler(Budget("$1.00")) for _ in range(8)]
    together = threading.Barrier(len(handlers))

    def work(handler: BudgetCallbackHandler) -> None:
        with budget_scope(handler):
            together.wait()
            for _ in range(3):
                lab.chat().invoke("hi")

    with ThreadPoolExecutor(len(handlers)) as threads:
        list(threads.map(work, handlers))
    assert [handler.report().breakdown.llm.calls for handler in handlers] == [3] * 8


def test_a_thread_of_ones_own_needs_the_context(lab: Lab) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    with budget_scope(handler), ThreadPoolExecutor(1) as threads:
        threads.submit(contextvars.copy_context().run, lab.chat().invoke, "hi").result()
    agree(lab, handler)


@pytest.mark.parametrize("surface", ["invoke", "stream", "ainvoke", "astream_events"])
def test_a_scope_reaches_an_agent_and_what_its_tools_call(lab: Lab, surface: str) -> None:
    inner = lab.claude()

    async def aask(question: str) -> str:
        return str((await inner.ainvoke(question)).text)

    ask = StructuredTool.from_function(
        lambda question: str(inner.invoke(question).text), aask, name="ask", description="Ask."
    )
    lab.script(
        lambda request: (
            caller_of("ask", question="why") if request.tools and len(request.messages) < 3 else Reply(text="because")
        )
    )
    handler = BudgetCallbackHandler(Budget("$1.00"))
    with budget_scope(handler):
        SURFACES[surface](create_agent(lab.chat(), [ask]), ASK, {})
    agree(lab, handler)
    assert len(lab.calls) == 3
