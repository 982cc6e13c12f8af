"""A stop gets through whatever retries, falls back or turns errors into messages, and leaves siblings alone."""

from __future__ import annotations

import operator
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypedDict

import pytest

pytest.importorskip("langgraph")
pytest.importorskip("langchain")

import langchain.agents.middleware as middlewares
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware, ModelRetryMiddleware, ToolRetryMiddleware
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphBubbleUp
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import RetryPolicy, Send

import budget_guard
from budget_guard import Budget, ModelCall, weigh
from budget_guard.integrations import langchain as adapter
from budget_guard.integrations.langchain import BudgetCallbackHandler, BudgetExceeded, BudgetRevoked
from budget_guard.testing import Reply
from tests.builders import ZERO
from tests.integrations.langchain.agents import DIME, SURFACES, Lab, agree, caller_of, configured, lookup, outputs_in

ASK: dict[str, Any] = {"messages": [("user", "go")]}
surfaces = pytest.mark.parametrize("surface", ["invoke", "stream", "ainvoke", "astream_events"])


def model_retry(lab: Lab) -> Any:
    return ModelRetryMiddleware(initial_delay=0)


def model_fallback(lab: Lab) -> Any:
    return ModelFallbackMiddleware(lab.chat("dime"), lab.claude("claude-haiku-4-5"))


def tool_error(lab: Lab) -> Any:
    if not hasattr(middlewares, "ToolErrorMiddleware"):
        pytest.skip("this version has none")
    return middlewares.ToolErrorMiddleware(lambda error, request: "the tool failed")


def tool_retry(lab: Lab) -> Any:
    return ToolRetryMiddleware(initial_delay=0)


SWALLOWERS: list[Callable[[Lab], Any]] = [model_retry, model_fallback, tool_error, tool_retry]


@surfaces
@pytest.mark.parametrize("swallower", SWALLOWERS, ids=lambda swallower: swallower.__name__)
def test_a_stop_passes_through_middleware(lab: Lab, swallower: Callable[[Lab], Any], surface: str) -> None:
    lab.script(caller_of("lookup"))
    handler = BudgetCallbackHandler(Budget(max_requests=2))
    agent = create_agent(lab.chat(), [lookup], middleware=[swallower(lab)])
    with pytest.raises(BudgetExceeded, match="max_requests=2"):
        SURFACES[surface](agent, ASK, configured(handler))
    assert len(lab.calls) == 2
    agree(lab, handler)


@surfaces
@pytest.mark.parametrize("swallower", [tool_error, tool_retry], ids=lambda swallower: swallower.__name__)
def test_a_stop_inside_a_tool_passes_through_what_handles_its_errors(
    lab: Lab, swallower: Callable[[Lab], Any], surface: str
) -> None:
    inner = lab.claude()

    @tool
    def ask(question: str) -> str:
        """Ask another model."""
        return str(inner.invoke(question).text)

    lab.script(lambda request: caller_of("ask", question="why", times=2) if request.tools else Reply(text="because"))
    handler = BudgetCallbackHandler(Budget(max_requests=2))
    agent = create_agent(lab.chat(), [ask], middleware=[swallower(lab)])
    with pytest.raises(BudgetExceeded):
        SURFACES[surface](agent, ASK, configured(handler))
    assert len(lab.calls) == 2
    agree(lab, handler)


@surfaces
def test_a_stop_passes_through_a_tool_node_and_a_retry_policy(lab: Lab, surface: str) -> None:
    model, inner = lab.chat().bind_tools([lookup]), lab.claude()
    tried: list[int] = []

    @tool
    def ask() -> str:
        """Ask another model."""
        tried.append(1)
        return str(inner.invoke("why").text)

    async def acall(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    call = RunnableLambda(lambda state: {"messages": [model.invoke(state["messages"])]}, afunc=acall)
    graph = StateGraph(MessagesState)
    policy = RetryPolicy(initial_interval=0, max_attempts=5)
    graph.add_node("model", call, retry_policy=policy)
    graph.add_node("tools", ToolNode([ask], handle_tool_errors=True), retry_policy=policy)
    graph.add_edge(START, "model")
    graph.add_edge("model", "tools")
    graph.add_edge("tools", "model")
    lab.script(lambda request: caller_of("ask") if request.tools else Reply(text="because"))
    handler = BudgetCallbackHandler(Budget(max_requests=1))
    with pytest.raises(BudgetExceeded):
        SURFACES[surface](graph.compile(), ASK, configured(handler))
    assert len(tried) == len(lab.calls) == 1
    agree(lab, handler)
    with pytest.raises(BudgetExceeded):
        SURFACES[surface](graph.compile(), ASK, configured(handler))
    assert len(lab.calls) == 1


@surfaces
def test_a_stop_comes_out_of_with_retry_without_any_spend(lab: Lab, surface: str) -> None:
    handler = BudgetCallbackHandler(Budget(max_requests=1))
    model = lab.chat().with_retry(wait_exponential_jitter=False, stop_after_attempt=3)
    SURFACES[surface](model, "hi", configured(handler))
    with pytest.raises(BudgetExceeded):
        SURFACES[surface](model, "hi", configured(handler))
    assert len(lab.calls) == 1
    agree(lab, handler)


class State(TypedDict):
    said: Annotated[list[str], operator.add]


@pytest.mark.parametrize("surface", ["ainvoke", "astream", "invoke"])
def test_parallel_siblings_of_a_stopped_node_finish_and_are_booked(lab: Lab, surface: str) -> None:
    model = lab.chat("dime")
    handler = BudgetCallbackHandler(Budget("$0.20", max_wait_s=0), pricing=DIME)

    async def awork(state: Any) -> State:
        try:
            return {"said": [str((await model.ainvoke("hi")).text)]}
        finally:
            lab.provider.resume()  # once one is refused, those that were sent get their answers

    def work(state: Any) -> State:
        try:
            return {"said": [str(model.invoke("hi").text)]}
        finally:
            lab.provider.resume()

    graph = StateGraph(State)
    graph.add_node("work", RunnableLambda(work, afunc=awork))
    graph.add_conditional_edges(START, lambda _: [Send("work", {"said": []}) for _ in range(3)])
    lab.provider.pause()
    with pytest.raises(BudgetExceeded):
        SURFACES[surface](graph.compile(), {"said": []}, configured(handler))
    lab.provider.wait_until_idle()
    assert [call.outcome for call in lab.calls] == ["completed"] * 2
    assert (handler.reserved_usd, handler.report().uncertain) == (ZERO, ZERO)
    assert handler.report().breakdown.llm.calls == 2


@surfaces
def test_after_a_stop_the_limit_is_raised_and_the_run_goes_on_where_it_was(lab: Lab, surface: str) -> None:
    lab.script(lambda request: caller_of("lookup") if outputs_in(request) < 3 else Reply(text="done"))
    handler = BudgetCallbackHandler(Budget(max_requests=2))
    agent: Any = create_agent(lab.chat(), [lookup], checkpointer=InMemorySaver())
    config = configured(handler, thread_id="t")
    with pytest.raises(BudgetExceeded):
        SURFACES[surface](agent, ASK, config)
    assert len(lab.calls) == 2
    handler.raise_limits(max_requests=10)
    SURFACES[surface](agent, None, config)
    assert agent.get_state(config).values["messages"][-1].text == "done"
    assert len(lab.calls) == 4
    agree(lab, handler)


@surfaces
def test_a_revoked_handler_stops_the_next_call_and_no_cheaper_model_takes_it(lab: Lab, surface: str) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    handler.revoke("compromised")
    for model in (lab.chat(), lab.chat().with_fallbacks([lab.claude()])):
        with pytest.raises(BudgetRevoked, match="compromised"):
            SURFACES[surface](model, "hi", configured(handler))
    assert lab.calls == []


@pytest.mark.parametrize("model", ["gpt-4o-mini-foo", "no-such-model"])
def test_a_model_of_unknown_price_is_refused(lab: Lab, model: str) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    with pytest.raises(adapter.UnknownPriceError, match=model):
        lab.chat(model).invoke("hi", configured(handler))
    assert lab.calls == []


def test_a_stop_is_the_cores_error_and_the_graphs_and_can_be_pickled(lab: Lab) -> None:
    handler = BudgetCallbackHandler(Budget(max_cost_usd="0.000001"))
    with pytest.raises(budget_guard.BudgetExceeded) as stop:
        lab.chat().invoke("hi", configured(handler))
    assert isinstance(stop.value, GraphBubbleUp)
    assert isinstance(stop.value, adapter.BudgetStop)
    again = pickle.loads(pickle.dumps(stop.value))
    assert type(again) is BudgetExceeded
    assert str(again) == str(stop.value)


def test_a_stream_is_stopped_once_its_budget_is_revoked(lab: Lab) -> None:
    lab.script(Reply(text="one two three four five six", chunks=6))
    handler = BudgetCallbackHandler(Budget("$1.00"))
    stream = lab.chat().stream("hi", configured(handler))
    next(stream)
    handler.revoke("compromised")
    with pytest.raises(BudgetRevoked):
        list(stream)
    lab.provider.wait_until_idle()
    assert handler.reserved_usd == 0
    assert handler.spent_usd >= lab.provider.bill_usd


@pytest.mark.skipif("stream_events" not in SURFACES, reason="this langchain-core has none")
def test_an_event_stream_is_stopped_once_its_budget_is_revoked(lab: Lab) -> None:
    lab.script(Reply(text="one two three four five six", chunks=6))
    handler = BudgetCallbackHandler(Budget("$1.00"))
    stream = iter(lab.chat().stream_events("hi", configured(handler), version="v3"))
    next(stream)
    handler.revoke("compromised")
    with pytest.raises(BudgetRevoked):
        list(stream)
    lab.provider.wait_until_idle()
    assert handler.reserved_usd == 0
    assert handler.spent_usd >= lab.provider.bill_usd


def test_a_call_in_an_event_loop_does_not_wait_for_room_and_one_in_a_thread_does(lab: Lab) -> None:
    handler = BudgetCallbackHandler(Budget("$0.10", max_wait_s=60), pricing=DIME)
    model = lab.chat("dime")
    hold = handler.session.authorize(ModelCall("dime", weigh(messages="hi"))).require()
    with pytest.raises(BudgetExceeded):  # for a minute nothing else could run
        SURFACES["ainvoke"](model, "hi", configured(handler))
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(model.invoke, "hi", configured(handler))
        hold.release("429")
        assert answer.result(timeout=30).text == "ok"
