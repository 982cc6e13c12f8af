"""What a run and a thread may spend is kept through pauses, restarts and other processes."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

from budget_guard import Budget
from budget_guard.integrations.langchain import BudgetCallbackHandler, BudgetExceeded, BudgetMiddleware
from budget_guard.testing import Reply
from tests.integrations.langchain.agents import Lab, caller_of, configured, lookup
from tests.integrations.langchain.test_middleware import LOOP, dimes, pausing, run, ways


def agent_of(lab: Lab, saver: Any = None, tools: Any = (lookup,), handler: Any = None, **options: Any) -> Any:
    """A new agent and a new handler, as another process would make them."""
    middleware = BudgetMiddleware(handler or dimes("$50.00"), **options)
    return create_agent(lab.chat("dime"), list(tools), middleware=[middleware], checkpointer=saver)


@ways
def test_each_run_has_the_whole_of_its_limit_and_they_share_the_budget(lab: Lab, asynchronous: bool) -> None:
    lab.script(LOOP)
    handler = dimes("$0.70")
    agent = agent_of(lab, handler=handler, run_limit="$0.30")
    for calls in (3, 6, 7):
        ended = run(agent, asynchronous=asynchronous)
        assert len(lab.calls) == calls
        limit = "$0.70" if calls == 7 else "$0.30"
        assert ended["messages"][-1].content.startswith(f"Budget exceeded: max_cost_usd={limit}, and {limit} is spent")
    assert str(handler.spent_usd) == "0.7"
    assert handler.reserved_usd == 0


@ways
def test_a_thread_has_one_limit_for_all_its_runs(lab: Lab, asynchronous: bool) -> None:
    lab.script(LOOP)
    saver = InMemorySaver()
    agent = agent_of(lab, saver, thread_limit="$0.50", run_limit=Budget(max_requests=3))
    for calls in (3, 5, 5):
        run(agent, configured(thread_id="1"), asynchronous=asynchronous)
        assert len(lab.calls) == calls
    run(agent, configured(thread_id="2"), asynchronous=asynchronous)
    assert len(lab.calls) == 8


@ways
def test_a_thread_goes_on_in_another_process_with_what_it_has_left(lab: Lab, asynchronous: bool) -> None:
    lab.script(LOOP)
    saver, config = InMemorySaver(), configured(thread_id="1")
    first = agent_of(lab, saver, thread_limit="$0.50", run_limit="$0.20")
    run(first, config, asynchronous=asynchronous)
    run(agent_of(lab, saver, thread_limit="$0.50", run_limit="$0.20"), config, asynchronous=asynchronous)
    assert len(lab.calls) == 4
    run(first, config, asynchronous=asynchronous)  # which knows of the other's calls from the state alone
    assert len(lab.calls) == 5


@ways
@pytest.mark.parametrize("restart", [False, True], ids=["same_process", "restart"])
def test_a_run_that_is_paused_and_resumed_goes_on_with_what_it_has_left(
    lab: Lab, asynchronous: bool, restart: bool
) -> None:
    @tool
    def ask() -> str:
        """Ask a human."""
        return str(interrupt("go on?"))

    lab.script(caller_of("ask"))
    saver, config = InMemorySaver(), configured(thread_id="1")
    options: dict[str, Any] = {"tools": [ask], "run_limit": "$0.30"}
    agent = agent_of(lab, saver, **options)
    state = run(agent, config, asynchronous=asynchronous)
    for calls in (1, 2, 3):
        assert "__interrupt__" in state
        assert len(lab.calls) == calls
        if restart:
            agent = agent_of(lab, saver, **options)
        state = run(agent, config, asynchronous=asynchronous, given=Command(resume="yes"))
    assert "__interrupt__" not in state
    assert state["messages"][-1].content.startswith("Budget exceeded: max_cost_usd=$0.30, and $0.30 is spent")
    assert len(lab.calls) == 3


def test_what_a_failed_node_spent_is_known_all_the_same(lab: Lab) -> None:
    class Fails(AgentMiddleware[Any, Any]):
        """Fails after the call is paid for, so that the state's update is lost."""

        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            handler(request)
            raise RuntimeError("after the call")

    handler, saver = dimes("$50.00"), InMemorySaver()
    middleware = BudgetMiddleware(handler, thread_limit="$0.20")
    agent = create_agent(lab.chat("dime"), middleware=[middleware, Fails()], checkpointer=saver)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="after the call"):
            run(agent, configured(thread_id="1"))
    assert run(agent, configured(thread_id="1"))["messages"][-1].content.startswith("Budget exceeded")
    assert len(lab.calls) == 2


@pausing
def test_a_human_can_raise_the_limit_that_stands_in_the_way(lab: Lab, asynchronous: bool) -> None:
    lab.script([LOOP, LOOP, LOOP, Reply(text="done")])
    handler, saver, config = dimes("$5.00"), InMemorySaver(), configured(thread_id="1")
    agent = agent_of(lab, saver, handler=handler, run_limit="$0.20", exit_behavior="interrupt")
    paused = run(agent, config, asynchronous=asynchronous)
    assert paused["__interrupt__"][0].value["scope"].startswith("run:run-")
    done = run(agent, config, asynchronous=asynchronous, given=Command(resume={"max_cost_usd": "0.40"}))
    assert done["messages"][-1].content == "done"
    assert (len(lab.calls), handler.times_raised) == (4, 0)


def test_the_error_names_the_limit(lab: Lab) -> None:
    lab.script(LOOP)
    agent = agent_of(lab, run_limit=Budget(max_requests=2), exit_behavior="error")
    with pytest.raises(BudgetExceeded) as stop:
        run(agent)
    assert (stop.value.dimension, stop.value.limit) == ("max_requests", 2)
    assert stop.value.scope.startswith("run:run-")


def test_the_state_keeps_to_itself(lab: Lab) -> None:
    saver, config = InMemorySaver(), configured(thread_id="1")
    agent = agent_of(lab, saver, thread_limit="$0.50", run_limit="$0.20")
    assert set(run(agent, config)) == {"messages"}
    kept = agent.get_state(config).values
    assert kept["budget_run"]["amounts"][0] == kept["budget_thread"]["amounts"][0] == 100_000_000
    assert "budget_run" not in agent.get_input_jsonschema()["properties"]


@pytest.mark.parametrize("both", [False, True], ids=["alone", "with_callback"])
def test_what_tools_spend_counts_for_the_run(lab: Lab, both: bool) -> None:
    inner = lab.chat("dime")

    @tool
    def think() -> str:
        """Ask another model."""
        return inner.invoke("think").text

    lab.script(lambda request: caller_of("think") if request.body.get("tools") else Reply())
    handler = dimes("$50.00")
    agent = agent_of(lab, handler=handler, tools=[think], run_limit="$0.40", guard_tools=True)
    run(agent, configured(handler) if both else None)
    assert len(lab.calls) == 4
    assert handler.report().breakdown.llm.calls == 4


def test_handlers_of_others_do_not_count_for_it(lab: Lab) -> None:
    lab.script(LOOP)
    other = dimes("$50.00")
    run(agent_of(lab, run_limit="$0.30"), configured(other))
    assert len(lab.calls) == 3
    assert other.report().breakdown.llm.calls == 3
    assert other.reserved_usd == 0


def test_a_thread_that_has_a_handlers_budget_of_its_own_is_steered_by_it(lab: Lab) -> None:
    lab.script(Reply(text="done"))
    handler = BudgetCallbackHandler(Budget("$1.00"), scope="thread")
    agent = create_agent(
        lab.chat(),
        middleware=[BudgetMiddleware(handler, downgrade_to=lab.chat("gpt-4o-mini"))],
        checkpointer=InMemorySaver(),
    )
    handler.for_thread("1").charge("before", "0.85")
    for thread in ("1", "2"):
        run(agent, configured(thread_id=thread))
    assert lab.models == ["gpt-4o-mini", "gpt-4o"]


@pytest.mark.parametrize("fails", [False, True])
def test_the_ceilings_of_one_call_are_those_of_no_later_one(fails: bool) -> None:
    from budget_guard_langchain.scope import extra_sessions

    middleware = BudgetMiddleware(Budget("$1.00"), run_limit="$0.50")
    ceiling = Budget("$0.50").session()
    with suppress(RuntimeError), middleware._active([ceiling], {}):
        assert [session for _, session in extra_sessions.get()] == [ceiling]
        with middleware._active([], {}):
            assert len(extra_sessions.get()) == 1
        if fails:
            raise RuntimeError
    assert extra_sessions.get() == ()
