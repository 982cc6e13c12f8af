"""Agents, graphs, subgraphs, fan-out and tools that call models: wherever a model is called, the budget holds."""

from __future__ import annotations

import operator
import sys
from decimal import Decimal
from typing import Annotated, Any, TypedDict

import pytest

pytest.importorskip("langgraph")
pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.types import Send

from budget_guard import Budget
from budget_guard.integrations.langchain import BudgetCallbackHandler, BudgetExceeded, budget_scope
from budget_guard.testing import Reply
from tests.builders import ZERO
from tests.integrations.langchain.agents import (
    CLAUDE,
    DIME,
    SURFACES,
    Lab,
    agree,
    caller_of,
    configured,
    lookup,
    outputs_in,
)

surfaces = pytest.mark.parametrize("call", SURFACES.values(), ids=SURFACES)
few_surfaces = pytest.mark.parametrize("surface", ["invoke", "stream", "abatch", "astream_events"])
ASK: dict[str, Any] = {"messages": [("user", "go")]}


class State(TypedDict):
    said: Annotated[list[str], operator.add]


async def _asay(model: BaseChatModel) -> State:
    return {"said": [str((await model.ainvoke("hi")).text)]}


def node_of(model: BaseChatModel) -> RunnableLambda[Any, Any]:
    """A node that calls *model* without handing its config on."""
    return RunnableLambda(lambda _: {"said": [str(model.invoke("hi").text)]}, afunc=lambda _: _asay(model))


def graph_of(node: Any, *, times: int = 1) -> Any:
    graph = StateGraph(State)
    graph.add_node("work", node)
    graph.add_conditional_edges(START, lambda _: [Send("work", {"said": []}) for _ in range(times)])
    return graph.compile()


@surfaces
def test_an_agent_that_never_stops_makes_no_more_calls_than_the_budget_pays_for(lab: Lab, call: Any) -> None:
    lab.script(caller_of("lookup"))
    handler = BudgetCallbackHandler(Budget("$1.00"), pricing=DIME)
    agent = create_agent(lab.chat("dime"), [lookup])
    with pytest.raises(BudgetExceeded) as stop:
        call(agent, ASK, {**configured(handler), "recursion_limit": 1_000})
    assert stop.value.dimension == "max_cost_usd"
    lab.provider.wait_until_idle()
    assert len(lab.calls) == 10
    assert (handler.spent_usd, handler.reserved_usd, handler.remaining_usd) == (Decimal(1), ZERO, ZERO)
    assert handler.report().breakdown.tools.calls == 10


@surfaces
@pytest.mark.parametrize("model_of", [Lab.chat, Lab.responses, Lab.claude], ids=["chat", "responses", "claude"])
def test_an_agents_calls_are_booked_as_they_are_billed(lab: Lab, model_of: Any, call: Any) -> None:
    lab.script(lambda request: caller_of("lookup", key="b") if outputs_in(request) < 3 else Reply(text="done"))
    handler = BudgetCallbackHandler(Budget("$1.00"))
    call(create_agent(model_of(lab), [lookup], name="worker"), ASK, configured(handler))
    agree(lab, handler)
    assert len(lab.calls) == 4
    assert set(handler.report().by_agent) == {"worker"}


@few_surfaces
def test_the_bound_of_a_growing_conversation_stays_near_its_bill(lab: Lab, surface: str) -> None:
    lab.script(lambda request: caller_of("lookup", key="b" * 400) if outputs_in(request) < 6 else Reply(text="done"))
    handler = BudgetCallbackHandler(Budget("$1.00"))
    SURFACES[surface](
        create_agent(lab.chat(), [lookup], system_prompt="You look things up." * 50), ASK, configured(handler)
    )
    agree(lab, handler)
    *_, last = handler.session.decisions()
    billed = lab.calls[-1].usage.input_tokens
    assert billed <= last.estimate.input_tokens <= 3 * billed


@few_surfaces
def test_chains_parallel_branches_and_bound_models_are_held(lab: Lab, surface: str) -> None:
    model = lab.chat()
    chain = ChatPromptTemplate.from_template("say {x}") | RunnableParallel(a=model, b=model.bind(stop=["."]))
    handler = BudgetCallbackHandler(Budget(max_requests=3))
    SURFACES[surface](chain, {"x": "hi"}, configured(handler))
    agree(lab, handler)
    with pytest.raises(BudgetExceeded):
        SURFACES[surface](chain, {"x": "hi"}, configured(handler))
    lab.provider.wait_until_idle()
    assert len(lab.calls) <= 3
    assert handler.reserved_usd == 0


@few_surfaces
def test_a_subgraph_of_a_subgraph_is_held(lab: Lab, surface: str) -> None:
    handler = BudgetCallbackHandler(Budget(max_requests=2))
    graph = graph_of(graph_of(graph_of(node_of(lab.chat()))))
    for _ in range(2):
        SURFACES[surface](graph, {"said": []}, configured(handler))
    with pytest.raises(BudgetExceeded):
        SURFACES[surface](graph, {"said": []}, configured(handler))
    agree(lab, handler)
    assert len(lab.calls) == 2


@surfaces
def test_a_fan_out_never_passes_the_ceiling_and_its_siblings_are_booked(lab: Lab, call: Any) -> None:
    handler = BudgetCallbackHandler(Budget("$0.30"), pricing=DIME)
    with pytest.raises(BudgetExceeded):
        call(graph_of(node_of(lab.chat("dime")), times=8), {"said": []}, configured(handler))
    lab.provider.wait_until_idle()
    assert [call.outcome for call in lab.calls] == ["completed"] * 3
    assert (handler.spent_usd, handler.reserved_usd) == (Decimal("0.30"), ZERO)
    assert handler.report().uncertain == 0


@surfaces
def test_models_called_by_tools_and_by_agents_that_are_tools_are_held(lab: Lab, call: Any) -> None:
    inner: Any = lab.claude()
    helper: Any = create_agent(lab.responses("gpt-4o-mini"), [lookup], name="helper")

    async def aask(question: str) -> str:
        answer = await helper.ainvoke({"messages": [("user", (await inner.ainvoke(question)).text)]})
        return str(answer["messages"][-1].text)

    @tool
    def ask(question: str) -> str:
        """Ask another model."""
        answer = helper.invoke({"messages": [("user", inner.invoke(question).text)]})
        return str(answer["messages"][-1].text)

    ask.coroutine = aask
    boss = create_agent(lab.chat(), [ask], name="boss")
    lab.script(
        {
            "gpt-4o": lambda request: Reply(text="done") if outputs_in(request) else caller_of("ask", question="why"),
            "*": Reply(text="because"),
        }
    )
    handler = BudgetCallbackHandler(Budget("$1.00"))
    call(boss, ASK, configured(handler))
    agree(lab, handler)
    assert sorted(lab.models) == sorted(["gpt-4o", CLAUDE, "gpt-4o-mini", "gpt-4o"])
    if sys.version_info >= (3, 11):  # before, async code loses the agents' names with their configs
        assert {"boss", "helper"} <= set(handler.report().by_agent)


@pytest.mark.parametrize("surface", ["invoke", "stream"])
def test_the_functional_api_is_held(lab: Lab, surface: str) -> None:
    model = lab.chat()

    @task
    def say(text: str) -> str:
        return str(model.invoke(text).text)

    @entrypoint()
    def flow(texts: list[str]) -> list[str]:
        return [future.result() for future in [say(text) for text in texts]]

    handler = BudgetCallbackHandler(Budget("$1.00"))
    SURFACES[surface](flow, ["a", "b", "c"], configured(handler))
    agree(lab, handler)
    assert len(lab.calls) == 3


@few_surfaces
@pytest.mark.parametrize("twice", ["config", "model", "scope"])
def test_a_handler_that_is_given_twice_counts_once(lab: Lab, surface: str, twice: str) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    lab.script(lambda request: Reply(text="done") if outputs_in(request) else caller_of("lookup"))
    model: Any = lab.chat(callbacks=[handler]) if twice == "model" else lab.chat()
    agent = create_agent(model, [lookup])
    if twice == "scope":
        with budget_scope(handler), budget_scope(handler):
            SURFACES[surface](agent, ASK, configured(handler))
    else:
        SURFACES[surface](agent, ASK, configured(handler, handler))
    agree(lab, handler)
    assert (len(lab.calls), handler.report().breakdown.tools.calls) == (2, 1)


@surfaces
def test_each_of_several_handlers_holds_every_call_or_none_does(lab: Lab, call: Any) -> None:
    ample, tight = BudgetCallbackHandler(Budget("$1.00")), BudgetCallbackHandler(Budget(max_requests=1))
    model = lab.chat()
    call(model, "hi", configured(ample, tight))
    for handlers in ((ample, tight), (tight, ample)):
        with pytest.raises(BudgetExceeded):
            call(model, "hi", configured(*handlers))
    for handler in (ample, tight):
        agree(lab, handler)
    assert ample.report().uncertain == 0
    assert len(lab.calls) == 1
