"""One handler is one budget, or one for each thread; what it is given is checked; a scope carries it everywhere."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from typing import Any, cast

import pytest

pytest.importorskip("langgraph")
pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain_core.callbacks import StdOutCallbackHandler
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import StructuredTool
from langchain_core.tracers import context as hooks
from langgraph.checkpoint.memory import InMemorySaver

from budget_guard import Budget, DowngradePolicy, InvalidDowngradeError, ModelCall, Usage
from budget_guard.estimate.prompt import weigh
from budget_guard.integrations.langchain import BudgetCallbackHandler, BudgetExceeded, budget_scope
from budget_guard.testing import Reply
from budget_guard_langchain.scope import installed
from tests.builders import ZERO, note_holds
from tests.integrations.langchain.agents import BIG, DIME, SMALL, SURFACES, Lab, agree, caller_of, configured, lookup

ASK: dict[str, Any] = {"messages": [("user", "go")]}


# What it is given


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"budget": "$5.00"}, TypeError, "is not a Budget: write BudgetCallbackHandler"),
        ({"scope": "user"}, ValueError, "scope='user' is not known: use 'run' or 'thread'"),
        ({"on_exceeded": "finalize"}, ValueError, "on_exceeded='finalize' is not known: use 'raise' or 'interrupt'"),
        ({"downgrade_to": "no-such-model"}, InvalidDowngradeError, "no-such-model"),
        ({"downgrade_to": {"gpt-4o-mini": "gpt-4o"}}, InvalidDowngradeError, "dearer"),
        ({"downgrade_to": SMALL, "downgrade_at": 2}, ValueError, "downgrade.at=2"),
        ({"downgrade_to": SMALL, "budget": Budget("$1", downgrade=SMALL)}, ValueError, "set one of them"),
        ({"tool_costs": {"search": "free"}}, ValueError, "tool_costs\\['search'\\]='free'"),
        ({"tool_costs": {"search": -1}}, ValueError, "tool_costs\\['search'\\]=-1"),
        ({"pricing": {"m": {"input": -1, "output": 0}}}, ValueError, "-1"),
    ],
)
def test_a_senseless_argument_is_refused_with_its_name(options: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        BudgetCallbackHandler(**{"budget": Budget("$1.00"), **options})


def test_a_scope_takes_only_a_handler() -> None:
    with pytest.raises(TypeError, match="is given no handler: write budget_scope"):
        budget_scope(Budget("$1.00"))  # type: ignore[type-var]  # on purpose


def test_downgrade_to_is_short_for_the_budgets_own_policy() -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"), downgrade_to=SMALL, downgrade_at=0.5)
    assert handler.budget.downgrade == DowngradePolicy(to=SMALL, at=0.5)


def test_a_fork_has_the_same_settings_and_a_fresh_budget(lab: Lab) -> None:
    handler = BudgetCallbackHandler(
        Budget("$0.20", downgrade=SMALL), pricing=DIME, tool_costs={"lookup": "0.01"}, user="u1", scope="thread"
    )
    handler.raise_limits(max_cost_usd="$1.00")
    lab.chat("dime").with_fallbacks([lab.chat(SMALL)]).invoke("hi", configured(handler))
    fork = handler.fork()
    assert (fork.spent_usd, fork.budget.max_cost_usd) == (ZERO, Decimal("0.20"))
    assert fork.budget.downgrade == handler.budget.downgrade
    lookup.invoke({"key": "a"}, configured(fork))
    assert fork.spent_usd == Decimal("0.01")
    assert fork.report().tags == {"user": "u1"}
    assert fork.for_thread("t").spent_usd == 0


def test_the_report_says_whose_run_it_was_and_what_it_spent(lab: Lab) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"), user="u1", key="k1", run_id="r1")
    lab.chat().invoke("hi", configured(handler))
    report = handler.report()
    assert (report.session_id, report.tags) == ("r1", {"user": "u1", "key": "k1"})
    assert report.breakdown.llm.by_model[BIG].calls == 1
    assert handler.remaining_usd == 1 - handler.spent_usd


@pytest.mark.parametrize("surface", ["invoke", "stream", "ainvoke", "astream"])
def test_a_handler_that_is_listed_twice_is_told_of_everything_twice_and_counts_once(lab: Lab, surface: str) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    SURFACES[surface](lab.chat(), "hi", configured(handler, handler))
    agree(lab, handler)
    SURFACES[surface](lookup, {"key": "a"}, configured(handler, handler))
    assert handler.report().breakdown.tools.calls == 1


def test_a_call_is_held_as_one_that_is_sent(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    held = note_holds(monkeypatch, lambda: len(lab.calls))
    handler = BudgetCallbackHandler(Budget("$1.00"))
    for _ in range(2):
        lab.chat().invoke("hi", configured(handler))
    assert held == [(0, True, True), (1, True, True)]


# One for each thread


def test_each_thread_has_the_whole_budget_and_others_share_the_handlers_own(lab: Lab) -> None:
    lab.script(caller_of("lookup"))
    handler = BudgetCallbackHandler(Budget("$0.30"), scope="thread", pricing=DIME)
    agent: Any = create_agent(lab.chat("dime"), [lookup], checkpointer=InMemorySaver())
    for thread in ("a", "b"):
        with pytest.raises(BudgetExceeded) as stop:
            agent.invoke(ASK, configured(handler, thread_id=thread))
        assert stop.value.scope == f"run:{thread}"
        assert handler.for_thread(thread).spent_usd == Decimal("0.30")
    assert len(lab.calls) == 6
    assert handler.spent_usd == 0
    lab.chat("dime").invoke("hi", configured(handler))
    assert handler.spent_usd == Decimal("0.10")
    handle = handler.for_thread("a")
    handle.raise_limits(max_cost_usd="$0.50")
    with pytest.raises(BudgetExceeded):
        agent.invoke(None, configured(handler, thread_id="a"))
    assert handle.spent_usd == Decimal("0.50")
    assert handle.report().breakdown.llm.calls == 5
    assert handler.for_thread("b").spent_usd == Decimal("0.30")


def test_without_that_scope_threads_share_one_budget(lab: Lab) -> None:
    handler = BudgetCallbackHandler(Budget("$0.30"), pricing=DIME)
    agent: Any = create_agent(lab.chat("dime"), [], checkpointer=InMemorySaver())
    for thread in "abc":
        agent.invoke(ASK, configured(handler, thread_id=thread))
    with pytest.raises(BudgetExceeded):
        agent.invoke(ASK, configured(handler, thread_id="d"))
    assert len(lab.calls) == 3
    with pytest.raises(ValueError, match='use scope="thread"'):
        handler.for_thread("a")


def test_of_very_many_threads_the_latest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("budget_guard_langchain.ceilings._KEPT", 3)
    handler = BudgetCallbackHandler(Budget("$1.00"), scope="thread")
    for thread in "abcade":
        handler.for_thread(thread).charge("search", "0.10")
    spent = {thread: handler.for_thread(thread).spent_usd for thread in "eda"}
    assert spent == {"e": Decimal("0.10"), "d": Decimal("0.10"), "a": Decimal("0.20")}
    assert handler.for_thread("b").spent_usd == 0


# A scope


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


def test_a_handler_takes_prices_per_million() -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"), per_million={"my-model": (2.5, 10)})
    call = ModelCall("my-model", weigh(messages=["x" * 5_000]), max_output_tokens=200)
    handler.session.authorize(call).require().commit(Usage(input=1_000, output=100))

    assert handler.spent_usd == Decimal("0.0035")
