"""The middleware keeps an agent within its budget, counts each call once, and ends it well."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest

pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import BaseModel

from budget_guard import Budget
from budget_guard.integrations.langchain import (
    BudgetCallbackHandler,
    BudgetExceeded,
    BudgetMiddleware,
    BudgetRevoked,
    UnknownPriceError,
    budget_scope,
    budgeted_model,
)
from budget_guard.testing import Reply
from tests.integrations.langchain.agents import DIME, MODELS, SURFACES, Lab, agree, caller_of, configured, lookup

GO: Mapping[str, Any] = {"messages": [("user", "go")]}
LOOP = caller_of("lookup", key="a")


def run(agent: Any, config: Any = None, *, asynchronous: bool = False, given: Any = GO) -> Any:
    config = {"recursion_limit": 200, **(config or {})}
    return asyncio.run(agent.ainvoke(given, config)) if asynchronous else agent.invoke(given, config)


def dimes(limit: Any = "$1.00") -> BudgetCallbackHandler:
    """A handler of a budget in which the model "dime" costs $0.10 a call."""
    return BudgetCallbackHandler(limit if isinstance(limit, Budget) else Budget(limit), pricing=DIME)


ways = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
pausing = pytest.mark.parametrize(
    "asynchronous",
    [
        False,
        pytest.param(
            True, marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="LangGraph pauses no async node there")
        ),
    ],
    ids=["sync", "async"],
)
guards = pytest.mark.parametrize("guard_tools", [False, True], ids=["plain", "guard_tools"])
models = pytest.mark.parametrize("model_of", MODELS.values(), ids=MODELS)


@pytest.mark.parametrize("made", [BudgetMiddleware, budgeted_model])
def test_an_unknown_keyword_is_answered_with_the_one_that_was_meant(made: Any) -> None:
    with pytest.raises(TypeError, match=r"\(\) takes no on_cutoff=: did you mean on_cut_off\?"):
        made(Budget("$1.00"), on_cutoff="keep")


# --- counting


@ways
@guards
@pytest.mark.parametrize("both", [False, True], ids=["alone", "with_callback"])
def test_a_looping_agent_makes_exactly_the_calls_that_fit(
    lab: Lab, asynchronous: bool, guard_tools: bool, both: bool
) -> None:
    lab.script(LOOP)
    handler = dimes()
    agent = create_agent(lab.chat("dime"), [lookup], middleware=[BudgetMiddleware(handler, guard_tools=guard_tools)])
    run(agent, configured(handler) if both else None, asynchronous=asynchronous)
    assert len(lab.calls) == 10
    assert handler.spent_usd == 1
    assert handler.reserved_usd == 0
    assert handler.report().breakdown.llm.calls == 10


@pytest.mark.parametrize("call", SURFACES.values(), ids=SURFACES)
@models
def test_on_every_surface_it_books_what_is_billed(lab: Lab, model_of: Callable[..., BaseChatModel], call: Any) -> None:
    lab.script([LOOP, Reply(text="done", input_tokens=50, output_tokens=20)])
    middleware = BudgetMiddleware(Budget("$1.00"))
    call(create_agent(model_of(lab), [lookup], middleware=[middleware]), GO, {})
    assert len(lab.calls) == 2
    agree(lab, middleware.handler)


@ways
def test_a_scope_around_it_counts_as_well(lab: Lab, asynchronous: bool) -> None:
    around, middleware = BudgetCallbackHandler(Budget("$1.00")), BudgetMiddleware(Budget("$1.00"))
    agent = create_agent(lab.chat(), [lookup], middleware=[middleware])
    with budget_scope(around), budget_scope(middleware.handler):
        run(agent, asynchronous=asynchronous)
    agree(lab, around)
    agree(lab, middleware.handler)


def test_it_is_a_view_of_its_budget(lab: Lab) -> None:
    middleware = BudgetMiddleware(Budget("$1.00"))
    run(create_agent(lab.chat(), middleware=[middleware]))
    assert middleware.session is middleware.handler.session
    assert middleware.spent_usd == middleware.handler.spent_usd == lab.provider.bill_usd
    assert middleware.name == "BudgetMiddleware"
    assert BudgetMiddleware(Budget("$1.00"), guard_tools=True).name == "BudgetMiddleware"


@ways
def test_what_another_middleware_cancels_is_booked_and_nothing_stays_installed(lab: Lab, asynchronous: bool) -> None:
    lab.script(Reply(status=500))
    middleware = BudgetMiddleware(Budget("$1.00"))
    with pytest.raises(Exception, match="500"):
        run(create_agent(lab.chat(), middleware=[middleware]), asynchronous=asynchronous)
    assert middleware.reserved_usd == 0
    assert middleware.spent_usd > 0  # nobody knows


# --- ending


class Place(BaseModel):
    """A place."""

    city: str


@ways
@pytest.mark.parametrize(("tools", "fit"), [([], 0), ([lookup], 0), ([lookup], 1)], ids=["no_tools", "first", "later"])
@pytest.mark.parametrize("response_format", [None, Place], ids=["text", "structured"])
@guards
def test_it_ends_well_and_the_thread_can_go_on(
    lab: Lab, asynchronous: bool, tools: list[Any], response_format: Any, fit: int, guard_tools: bool
) -> None:
    lab.script(LOOP)
    handler = dimes(Budget("$1.00") if fit else Budget("$0.05"))
    handler.session.carry_over(handler.session.committed._replace(cost=900_000_000 if fit else 0))
    agent = create_agent(
        lab.chat("dime"),
        tools,
        middleware=[BudgetMiddleware(handler, guard_tools=guard_tools)],
        response_format=response_format,
        checkpointer=InMemorySaver(),
    )
    config = configured(thread_id="1")
    ended = run(agent, config, asynchronous=asynchronous)
    assert len(lab.calls) == fit
    last = ended["messages"][-1]
    assert isinstance(last, AIMessage)
    assert last.text.startswith(f"Budget exceeded: max_cost_usd={'$1.00' if fit else '$0.05'}")
    assert last.response_metadata["budget_guard"]["stopped_by"] == "max_cost_usd"
    assert last.response_metadata["budget_guard"]["decision_id"] == handler.session.decisions()[-1].id
    assert ended.get("structured_response") is None
    asked = {call["id"] for message in ended["messages"] for call in getattr(message, "tool_calls", [])}
    assert asked == {message.tool_call_id for message in ended["messages"] if isinstance(message, ToolMessage)}

    handler.raise_limits(max_cost_usd="2.00")
    lab.script(Reply(text="Rome") if response_format is None else caller_of("Place", city="Rome"))
    again = run(agent, config, asynchronous=asynchronous, given={"messages": [HumanMessage("again")]})
    assert "Rome" in again["messages"][-1].content
    assert again.get("structured_response") == (None if response_format is None else Place(city="Rome"))
    assert len(lab.calls) == 1


@ways
def test_it_raises_where_that_is_asked_for_and_goes_on_after_a_raise(lab: Lab, asynchronous: bool) -> None:
    lab.script([LOOP, LOOP, Reply(text="done")])
    handler = dimes("$0.20")
    agent = create_agent(
        lab.chat("dime"),
        [lookup],
        middleware=[BudgetMiddleware(handler, exit_behavior="error")],
        checkpointer=InMemorySaver(),
    )
    config = configured(thread_id="1")
    with pytest.raises(BudgetExceeded) as stop:
        run(agent, config, asynchronous=asynchronous)
    assert stop.value.report is not None
    assert stop.value.report.total_spent == handler.spent_usd
    handler.raise_limits(max_cost_usd="1.00")
    done = run(agent, config, asynchronous=asynchronous, given=None)
    assert done["messages"][-1].content == "done"
    assert len(lab.calls) == 3


@pytest.mark.parametrize("behavior", ["end", "interrupt"])
def test_a_budget_that_is_cut_off_ends_the_run(lab: Lab, behavior: Any) -> None:
    middleware = BudgetMiddleware(Budget("$1.00"), exit_behavior=behavior)
    middleware.revoke("compromised")
    agent = create_agent(lab.chat(), middleware=[middleware], checkpointer=InMemorySaver())
    last = run(agent, configured(thread_id="1"))["messages"][-1]
    assert last.content == f"Stopped: run:{middleware.session.id} was cut off: compromised."
    assert last.response_metadata["budget_guard"]["stopped_by"] == "revoked"
    with pytest.raises(BudgetRevoked):
        run(create_agent(lab.chat(), middleware=[BudgetMiddleware(middleware.handler, exit_behavior="error")]))
    assert lab.calls == []


def test_a_mistake_in_the_setup_is_no_way_to_end(lab: Lab) -> None:
    with pytest.raises(UnknownPriceError):
        run(create_agent(lab.chat("unheard-of"), middleware=[BudgetMiddleware(Budget("$1.00"))]))
    assert lab.calls == []


# --- asking a human


def asking(lab: Lab, handler: BudgetCallbackHandler, *, saver: Any = None, **options: Any) -> Any:
    middleware = BudgetMiddleware(handler, exit_behavior="interrupt", **options)
    return create_agent(lab.chat("dime"), [lookup], middleware=[middleware], checkpointer=saver)


@pausing
def test_a_human_raises_the_limit_and_the_run_finishes_without_repeating_itself(lab: Lab, asynchronous: bool) -> None:
    lab.script([LOOP, LOOP, LOOP, Reply(text="done")])
    handler = dimes("$0.20")
    agent, config = asking(lab, handler, saver=InMemorySaver()), configured(thread_id="1")
    for limit, calls in (("0.20", 2), ("0.30", 3)):
        given: Any = GO if calls == 2 else Command(resume={"max_cost_usd": limit})
        paused = run(agent, config, asynchronous=asynchronous, given=given)
        (question,) = paused["__interrupt__"]
        assert len(lab.calls) == calls
        assert question.value["type"] == "budget_exceeded"
        assert question.value["dimension"] == "max_cost_usd"
        assert (question.value["limit"], question.value["actual"]) == (str(handler.spent_usd),) * 2
        assert question.value["scope"] == f"run:{handler.session.id}"
    done = run(agent, config, asynchronous=asynchronous, given=Command(resume={"max_cost_usd": "5.00"}))
    assert done["messages"][-1].content == "done"
    assert (len(lab.calls), str(handler.spent_usd)) == (4, "0.4")
    assert handler.times_raised == 2


@ways
def test_a_human_who_declines_ends_the_run(lab: Lab, asynchronous: bool) -> None:
    lab.script(LOOP)
    handler = dimes("$0.20")
    agent, config = asking(lab, handler, saver=InMemorySaver()), configured(thread_id="1")
    run(agent, config, asynchronous=asynchronous)
    ended = run(agent, config, asynchronous=asynchronous, given=Command(resume=False))
    assert ended["messages"][-1].content.startswith("Budget exceeded")
    assert (len(lab.calls), handler.times_raised) == (2, 0)


def test_where_nothing_can_pause_it_ends(lab: Lab) -> None:
    lab.script(LOOP)
    ended = run(asking(lab, dimes("$0.20")))
    assert ended["messages"][-1].content.startswith("Budget exceeded")
    assert len(lab.calls) == 2


def test_calls_that_are_repeated_after_a_pause_are_counted_again(lab: Lab) -> None:
    class AsksFirst(AgentMiddleware[Any, Any]):
        """Calls a model of its own before the agent's, in the same node."""

        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            lab.chat("dime").invoke("first", {"callbacks": [spender]})
            return handler(request)

    spender = dimes("$0.10")
    middleware = BudgetMiddleware(spender, exit_behavior="interrupt")
    agent = create_agent(lab.chat("dime"), middleware=[middleware, AsksFirst()], checkpointer=InMemorySaver())
    config = configured(thread_id="1")
    assert "__interrupt__" in run(agent, config)
    done = run(agent, config, given=Command(resume={"max_cost_usd": "1.00"}))
    assert done["messages"][-1].content == "ok"
    assert (len(lab.calls), str(spender.spent_usd)) == (3, "0.3")


# --- what it refuses


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"budget": "$1.00"}, TypeError),
        ({"exit_behavior": "stop"}, ValueError),
        ({"on_cut_off": "never"}, ValueError),
        ({"wrap_up_at": 1.5}, ValueError),
        ({"downgrade_to": "openai:gpt-4o-mini", "budget": Budget("$1", downgrade="gpt-4o-mini")}, ValueError),
        ({"run_limit": "-1"}, ValueError),
        ({"thread_limit": "nan"}, ValueError),
    ],
)
def test_a_senseless_argument_is_named_in_the_error(options: dict[str, Any], error: type[Exception]) -> None:
    given = {"budget": Budget("$1.00"), **options}
    with pytest.raises(error, match=next(iter(options))):
        BudgetMiddleware(**given)
