"""A human is asked for a larger budget: the graph pauses, and goes on with it."""

from __future__ import annotations

import sys
from typing import Any

import pytest

pytest.importorskip("langgraph")
pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command

from budget_guard import Budget
from budget_guard.integrations.langchain import BudgetCallbackHandler, BudgetExceeded, BudgetRevoked
from budget_guard.testing import Reply
from tests.integrations.langchain.agents import SURFACES, Lab, agree, caller_of, configured, lookup, outputs_in

ASK: dict[str, Any] = {"messages": [("user", "go")]}
every_surface = pytest.mark.parametrize("surface", ["invoke", "stream", "ainvoke", "astream"])
# Before 3.11 no async code of a graph can pause it: it raises there.
can_pause = ["invoke", "stream", *(("ainvoke", "astream") if sys.version_info >= (3, 11) else ())]
surfaces = pytest.mark.parametrize("surface", can_pause)
LOOP = lambda request: caller_of("lookup") if outputs_in(request) < 3 else Reply(text="done")  # noqa: E731  a function would be longer than what it says


def agent_of(lab: Lab, *tools: Any) -> Any:
    return create_agent(lab.chat(), list(tools) or [lookup], checkpointer=InMemorySaver())


def asker(budget: Budget, **options: Any) -> BudgetCallbackHandler:
    return BudgetCallbackHandler(budget, on_exceeded="interrupt", **options)


def asked_in(agent: Any, config: Any) -> list[Any]:
    """What the graph waits for."""
    return [interrupt.value for interrupt in agent.get_state(config).interrupts]


@surfaces
@pytest.mark.parametrize("who", ["the answer raises it", "raised beforehand"])
def test_the_run_pauses_and_finishes_with_the_raised_limit(lab: Lab, who: str, surface: str) -> None:
    lab.script(LOOP)
    handler, agent = asker(Budget(max_requests=2)), agent_of(lab)
    config = configured(handler, thread_id="t")
    SURFACES[surface](agent, ASK, config)
    (asked,) = asked_in(agent, config)
    assert (asked["type"], asked["dimension"], asked["limit"]) == ("budget_exceeded", "max_requests", "2")
    assert len(lab.calls) == 2
    answer: Any = {"max_requests": 10}
    if who == "raised beforehand":
        handler.raise_limits(max_requests=10)
        answer = True
    SURFACES[surface](agent, Command(resume=answer), config)
    assert agent.get_state(config).values["messages"][-1].text == "done"
    assert asked_in(agent, config) == []
    assert len(lab.calls) == 4
    agree(lab, handler)


@surfaces
def test_an_answer_that_is_not_enough_pauses_again(lab: Lab, surface: str) -> None:
    lab.script(LOOP)
    handler, agent = asker(Budget(max_requests=1)), agent_of(lab)
    config = configured(handler, thread_id="t")
    SURFACES[surface](agent, ASK, config)
    for _ in range(2):
        SURFACES[surface](agent, Command(resume=True), config)  # nobody has raised it
        assert len(asked_in(agent, config)) == 1
        assert len(lab.calls) == 1
    SURFACES[surface](agent, Command(resume={"max_requests": 2}), config)
    assert len(asked_in(agent, config)) == 1
    assert len(lab.calls) == 2
    SURFACES[surface](agent, Command(resume={"max_requests": 10}), config)
    assert agent.get_state(config).values["messages"][-1].text == "done"
    agree(lab, handler)


@surfaces
def test_a_human_who_declines_stops_the_run(lab: Lab, surface: str) -> None:
    lab.script(LOOP)
    handler, agent = asker(Budget(max_requests=1)), agent_of(lab)
    config = configured(handler, thread_id="t")
    SURFACES[surface](agent, ASK, config)
    with pytest.raises(BudgetExceeded):
        SURFACES[surface](agent, Command(resume=False), config)
    assert len(lab.calls) == 1
    agree(lab, handler)


@surfaces
def test_calls_that_the_resumed_node_repeats_are_counted_again(lab: Lab, surface: str) -> None:
    model = lab.chat()

    async def atwice(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke("first"), await model.ainvoke("second")]}

    graph = StateGraph(MessagesState)
    twice = RunnableLambda(lambda _: {"messages": [model.invoke("first"), model.invoke("second")]}, afunc=atwice)
    graph.add_node("twice", twice)
    graph.add_edge(START, "twice")
    compiled: Any = graph.compile(checkpointer=InMemorySaver())
    handler = asker(Budget(max_requests=1))
    config = configured(handler, thread_id="t")
    SURFACES[surface](compiled, ASK, config)
    SURFACES[surface](compiled, Command(resume={"max_requests": 5}), config)
    asked = [str(call.messages) for call in lab.calls]
    assert [("first" in text, "second" in text) for text in asked] == [(True, False), (True, False), (False, True)]
    agree(lab, handler)


@surfaces
def test_a_tool_that_does_not_fit_pauses_the_run_too(lab: Lab, surface: str) -> None:
    lab.script(LOOP)
    ran: list[int] = []

    @tool
    def lookup() -> str:
        """Look something up."""
        ran.append(1)
        return "found"

    handler, agent = asker(Budget(max_tool_calls=1)), agent_of(lab, lookup)
    config = configured(handler, thread_id="t")
    SURFACES[surface](agent, ASK, config)
    assert [asked["dimension"] for asked in asked_in(agent, config)] == ["max_tool_calls"]
    assert len(ran) == 1
    SURFACES[surface](agent, Command(resume={"max_tool_calls": 3}), config)
    assert agent.get_state(config).values["messages"][-1].text == "done"
    assert len(ran) == handler.report().breakdown.tools.calls == 3
    agree(lab, handler)


@every_surface
@pytest.mark.parametrize("where", ["a bare model", "a chain", "a graph that cannot be resumed"])
def test_where_nothing_can_pause_the_run_is_stopped(lab: Lab, where: str, surface: str) -> None:
    lab.script(LOOP)
    handler = asker(Budget(max_requests=1))
    work: Any = lab.chat()
    if where == "a chain":
        work = RunnableLambda(lambda text: text) | work
    elif where == "a graph that cannot be resumed":
        work = create_agent(lab.chat(), [lookup])
    with pytest.raises(BudgetExceeded):
        for _ in range(2):
            SURFACES[surface](work, ASK if "graph" in where else "hi", configured(handler))
    assert len(lab.calls) == 1
    agree(lab, handler)


@surfaces
def test_a_revoked_run_is_not_put_to_a_human(lab: Lab, surface: str) -> None:
    handler = asker(Budget("$1.00"))
    handler.revoke("compromised")
    with pytest.raises(BudgetRevoked):
        SURFACES[surface](agent_of(lab), ASK, configured(handler, thread_id="t"))
    assert lab.calls == []
