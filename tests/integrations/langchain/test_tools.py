"""Tool calls: counted, capped, priced, and never left open."""

from __future__ import annotations

import asyncio
import contextlib
import re
import warnings
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

pytest.importorskip("langgraph")
pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool

from budget_guard import Budget, BudgetError, LoopPolicy
from budget_guard.integrations.langchain import (
    BudgetCallbackHandler,
    BudgetExceeded,
    BudgetMiddleware,
    LoopDetected,
    budget_scope,
)
from budget_guard.testing import Reply
from budget_guard_langchain.trails import started_by
from tests.builders import ZERO
from tests.integrations.langchain.agents import SURFACES, Lab, caller_of, configured, lookup, outputs_in

ASK: dict[str, Any] = {"messages": [("user", "go")]}
surfaces = pytest.mark.parametrize("surface", ["invoke", "stream", "ainvoke", "astream"])


def calling(times: int, tool: str = "lookup") -> Any:
    return lambda request: Reply(text="done") if outputs_in(request) else caller_of(tool, times=times)


def tools_cost(handler: BudgetCallbackHandler) -> tuple[int, Decimal]:
    tools = handler.report().breakdown.tools
    return tools.calls, tools.total


def settled(lab: Lab, handler: BudgetCallbackHandler) -> None:
    lab.provider.wait_until_idle()
    _, tools = tools_cost(handler)
    assert handler.spent_usd == lab.provider.bill_usd + tools
    assert handler.reserved_usd == 0


@surfaces
def test_tools_are_counted_and_free_unless_the_user_says_otherwise(lab: Lab, surface: str) -> None:
    lab.script(calling(3))
    handler = BudgetCallbackHandler(Budget("$1.00"))
    SURFACES[surface](create_agent(lab.chat(), [lookup], name="worker"), ASK, configured(handler))
    assert tools_cost(handler) == (3, ZERO)
    assert handler.report().breakdown.tools.by_tool["lookup"].calls == 3
    settled(lab, handler)


@surfaces
@pytest.mark.parametrize(
    "cost",
    ["0.01", 0.01, Decimal("0.01"), lambda result: len(result) / 1000],
    ids=["text", "float", "Decimal", "function"],
)
def test_a_tool_costs_what_the_user_says(lab: Lab, cost: Any, surface: str) -> None:
    lab.script(calling(4))
    handler = BudgetCallbackHandler(Budget("$1.00"), tool_costs={"lookup": cost})
    SURFACES[surface](create_agent(lab.chat(), [lookup]), ASK, configured(handler))
    assert tools_cost(handler) == (4, Decimal("0.04"))  # "value of a" has ten characters
    settled(lab, handler)


@surfaces
def test_a_tool_that_is_called_by_itself_is_held_too(lab: Lab, surface: str) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00", max_tool_calls=2), tool_costs={"lookup": lambda text: text[-1]})
    for key in "12":
        SURFACES[surface](lookup, {"key": key}, configured(handler))
    assert tools_cost(handler) == (2, Decimal(3))
    with pytest.raises(BudgetExceeded):
        SURFACES[surface](lookup, {"key": "0"}, configured(handler))


@surfaces
@pytest.mark.parametrize(
    ("budget", "costs", "dimension", "runs"),
    [({"max_tool_calls": 2}, {}, "max_tool_calls", 2), ({}, {"count": "0.30"}, "max_cost_usd", 3)],
)
def test_a_tool_that_would_be_one_too_many_is_not_run(
    lab: Lab, budget: Any, costs: Any, dimension: str, runs: int, surface: str
) -> None:
    lab.script(caller_of("count"))
    ran: list[int] = []

    @tool
    def count() -> str:
        """Count."""
        ran.append(1)
        return "counted"

    handler = BudgetCallbackHandler(Budget("$1.00", **budget), tool_costs=costs)
    with pytest.raises(BudgetExceeded) as stop:
        SURFACES[surface](create_agent(lab.chat(), [count]), ASK, configured(handler))
    assert stop.value.dimension == dimension
    assert len(ran) == tools_cost(handler)[0] == runs
    settled(lab, handler)


@surfaces
def test_no_more_tools_run_in_parallel_than_are_allowed(lab: Lab, surface: str) -> None:
    ran: list[int] = []

    @tool
    def count() -> str:
        """Count."""
        ran.append(1)
        return "counted"

    lab.script(calling(10, "count"))
    handler = BudgetCallbackHandler(Budget("$1.00", max_tool_calls=4))
    with pytest.raises(BudgetExceeded):
        SURFACES[surface](create_agent(lab.chat(), [count]), ASK, configured(handler))
    assert len(ran) == tools_cost(handler)[0] == 4
    settled(lab, handler)


@surfaces
@pytest.mark.parametrize("guarded", ["handler", "middleware", "both"])
def test_of_tools_at_once_those_that_fit_run_and_the_rest_stop_the_run_or_answer(
    lab: Lab, surface: str, guarded: str
) -> None:
    lab.script(calling(3))
    handler = BudgetCallbackHandler(Budget("$1.00", max_tool_calls=1))
    middleware = [] if guarded == "handler" else [BudgetMiddleware(handler)]
    config = {} if guarded == "middleware" else configured(handler)
    agent = create_agent(lab.chat(), [lookup], middleware=middleware)
    state: Any = {}
    if guarded == "handler":
        with pytest.raises(BudgetExceeded) as stop:
            SURFACES[surface](agent, ASK, config)
        assert stop.value.dimension == "max_tool_calls"
    else:
        state = SURFACES[surface](agent, ASK, config)
        answers = re.findall(
            r"Budget exceeded: max_tool_calls=1, and 1 is spent[^.]*\. Call no more tools\.", str(state)
        )
        assert len(answers) == 2 and "value of a" in str(state) and "done" in str(state)
    assert len(lab.calls) == (1 if guarded == "handler" else 2)
    assert tools_cost(handler)[0] == 1
    settled(lab, handler)


@surfaces
def test_a_tool_that_raises_is_booked(lab: Lab, surface: str) -> None:
    @tool
    def fail() -> str:
        """Fail."""
        raise LookupError("no such thing")

    lab.script(calling(2, "fail"))
    handler = BudgetCallbackHandler(Budget("$1.00"), tool_costs={"fail": "0.05"})
    with pytest.raises(LookupError):
        SURFACES[surface](create_agent(lab.chat(), [fail]), ASK, configured(handler))
    calls, cost = tools_cost(handler)
    assert calls in (1, 2)  # the second may not have begun
    assert cost == Decimal("0.05") * calls
    settled(lab, handler)


async def test_tools_that_are_cancelled_are_booked(lab: Lab) -> None:
    started = asyncio.Event()

    @tool
    async def hang() -> str:
        """Hang."""
        started.set()
        await asyncio.Event().wait()
        return ""

    lab.script(calling(2, "hang"))
    handler = BudgetCallbackHandler(Budget("$1.00"), tool_costs={"hang": "0.05"})
    agent: Any = create_agent(lab.chat(), [hang])
    with budget_scope(handler):  # without which Python 3.10 loses the handler
        run = asyncio.ensure_future(agent.ainvoke(ASK, configured(handler)))
    await started.wait()
    assert handler.reserved_usd > 0
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await lab.quiet()
    assert tools_cost(handler) == (2, Decimal("0.10"))
    settled(lab, handler)


async def test_a_tool_whose_task_is_over_is_booked_though_nobody_told_how_it_ended() -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"), tool_costs={"lookup": "0.05"})

    async def begin() -> None:
        handler.on_tool_start({"name": "lookup"}, "a", run_id=uuid4())
        assert handler.reserved_usd == Decimal("0.05")

    await asyncio.ensure_future(begin())
    await asyncio.sleep(0)  # the loop tells of the end of a task in its next round
    assert (handler.reserved_usd, tools_cost(handler)) == (ZERO, (1, Decimal("0.05")))


@pytest.mark.parametrize("cost", [lambda result: 1 / 0, lambda result: "-1", lambda result: "cheap"])
def test_a_cost_function_that_fails_is_told_and_its_tool_is_counted(cost: Any) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"), tool_costs={"lookup": cost})
    with pytest.raises((ZeroDivisionError, ValueError)):
        lookup.invoke({"key": "a"}, configured(handler))
    assert tools_cost(handler) == (1, ZERO)
    assert handler.reserved_usd == 0


@surfaces
def test_a_misspelt_tool_is_told_once(lab: Lab, surface: str) -> None:
    lab.script(calling(1))
    handler = BudgetCallbackHandler(Budget("$1.00"), tool_costs={"lokup": "0.01", "lookup": "0.01"})
    agent = create_agent(lab.chat(), [lookup])
    with pytest.warns(RuntimeWarning, match="tool_costs names 'lokup', but no agent of this run has such a tool"):
        SURFACES[surface](agent, ASK, configured(handler))
    SURFACES[surface](agent, ASK, configured(handler))
    assert tools_cost(handler) == (2, Decimal("0.02"))


@surfaces
def test_a_run_in_which_no_tools_are_offered_says_nothing_about_their_names(lab: Lab, surface: str) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"), tool_costs={"lookup": "0.01"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SURFACES[surface](create_agent(lab.chat(), []), ASK, configured(handler))


def test_a_tool_that_is_told_of_twice_is_counted_once() -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"), tool_costs={"lookup": "0.10"})
    run_id = uuid4()
    for _ in range(2):
        handler.on_tool_start({"name": "lookup"}, "a", run_id=run_id)
    for _ in range(2):
        handler.on_tool_end("b", run_id=run_id)
    handler.on_tool_error(RuntimeError("late"), run_id=run_id)
    assert tools_cost(handler) == (1, Decimal("0.10"))
    assert handler.reserved_usd == 0


def test_what_an_agents_tool_starts_is_a_part_of_the_agent_until_the_tool_is_over() -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))

    def start(agent: str | None) -> UUID:
        run_id = uuid4()
        handler.on_tool_start({"name": "ask"}, "{}", run_id=run_id, metadata={"lc_agent_name": agent})
        return run_id

    assert started_by.get() == ()
    boss = start("Boss")
    assert started_by.get() == ("Boss",)
    own, of_nobody = start("Boss"), start(None)  # its own tools, and those of no agent, start nothing new
    assert started_by.get() == ("Boss",)
    helper = start("Helper")
    assert started_by.get() == ("Helper", "Boss")
    handler.on_tool_end("", run_id=own)
    handler.on_tool_end("", run_id=of_nobody)
    assert started_by.get() == ("Helper", "Boss")
    handler.on_tool_error(ValueError(), run_id=helper)
    assert started_by.get() == ("Boss",)
    token = started_by.set(("Other",))
    handler.on_tool_end("", run_id=boss)  # where somebody else has begun meanwhile, that goes on
    assert started_by.get() == ("Other",)
    started_by.reset(token)
    started_by.set(())


def test_a_tool_that_repeats_itself_is_in_a_loop_however_deep_in_one_run_and_not_in_several() -> None:
    handler = BudgetCallbackHandler(Budget("$1.00", loop=LoopPolicy(max_repeats=2)))

    def step(key: str, config: RunnableConfig) -> Any:
        return lookup.invoke({"key": key}, config)

    def steps(times: int, config: RunnableConfig) -> None:
        for _ in range(times):
            RunnableLambda(step).invoke("a", config)  # each step is a run of its own, as in a graph

    for _ in range(3):
        RunnableLambda(steps).invoke(2, configured(handler))
    with pytest.raises(LoopDetected):
        RunnableLambda(steps).invoke(6, configured(handler))
    assert handler._trails._roots == {}


def test_a_tool_that_is_called_by_itself_again_and_again_is_in_a_loop() -> None:
    handler = BudgetCallbackHandler(Budget("$1.00", loop=LoopPolicy(max_repeats=2)))
    for key in "abcabc":
        lookup.invoke({"key": key}, configured(handler))
    with pytest.raises(LoopDetected):
        for _ in range(6):
            lookup.invoke({"key": "d"}, configured(handler))


@pytest.mark.parametrize(("error", "loops"), [(KeyError("a"), True), (BudgetError("no"), False)])
def test_a_tool_that_fails_alike_again_and_again_is_in_a_loop_where_no_budget_stopped_it(
    error: Exception, loops: bool
) -> None:
    @tool
    def fail() -> str:
        """Fail."""
        raise error

    def steps(times: int, config: RunnableConfig) -> None:
        for _ in range(times):
            with contextlib.suppress(type(error)):
                fail.invoke({}, config)

    handler = BudgetCallbackHandler(Budget("$1.00", loop=LoopPolicy(max_repeats=2)))
    with pytest.raises(LoopDetected) if loops else contextlib.nullcontext():
        RunnableLambda(steps).invoke(5, configured(handler))


@pytest.mark.parametrize("event", ["on_chain_start", "on_tool_start"])
def test_the_first_run_or_tool_has_langchain_ask_which_handlers_are_in_force(
    monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("budget_guard_langchain.scope._registered", False)
    monkeypatch.setattr(
        "langchain_core.tracers.context.register_configure_hook", lambda hook, inheritable: asked.append(inheritable)
    )
    for _ in range(2):
        getattr(BudgetCallbackHandler(Budget("$1.00")), event)({"name": "a"}, "a", run_id=uuid4())
    assert asked == [True]
