"""The middleware among other middleware, around tools that spend, and in deep agents."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Any

import pytest

pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    SummarizationMiddleware,
    ToolErrorMiddleware,
)
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from budget_guard import Budget
from budget_guard.integrations.langchain import (
    BudgetCallbackHandler,
    BudgetDowngrade,
    BudgetExceeded,
    BudgetMiddleware,
    budget_scope,
)
from budget_guard.testing import ProviderRequest, Reply, ToolCall
from tests.integrations.langchain.agents import BIG, SMALL, Lab, agree, caller_of, configured, lookup, outputs_in
from tests.integrations.langchain.test_middleware import GO, LOOP, dimes, run, ways

orders = pytest.mark.parametrize("inside", [False, True], ids=["outside", "inside"])


def around(inside: bool, budget: AgentMiddleware[Any, Any, Any], *others: AgentMiddleware[Any, Any, Any]) -> Any:
    return [*others, budget] if inside else [budget, *others]


@ways
@orders
@pytest.mark.parametrize("behavior", ["end", "error"])
def test_no_other_middleware_keeps_it_from_stopping(lab: Lab, asynchronous: bool, inside: bool, behavior: Any) -> None:
    lab.script(LOOP)
    handler = dimes("$0.30")
    others = (
        ModelRetryMiddleware(max_retries=2, initial_delay=0),
        ModelFallbackMiddleware(lab.chat("dime")),
        ToolErrorMiddleware(lambda error, request: "failed"),
    )
    budget = BudgetMiddleware(handler, exit_behavior=behavior)
    agent = create_agent(lab.chat("dime"), [lookup], middleware=around(inside, budget, *others))
    if behavior == "end":
        assert run(agent, asynchronous=asynchronous)["messages"][-1].content.startswith("Budget exceeded")
    else:
        with pytest.raises(BudgetExceeded):
            run(agent, asynchronous=asynchronous)
    assert len(lab.calls) == 3
    assert handler.reserved_usd == 0
    assert len(handler.session.decisions(action="block")) == 1


@ways
@orders
def test_attempts_and_fallbacks_are_held_one_by_one(lab: Lab, asynchronous: bool, inside: bool) -> None:
    lab.script(lambda request: Reply(status=429) if request.model == BIG else Reply(text="done"))
    handler = BudgetCallbackHandler(Budget("$1.00"))
    others = (
        ModelFallbackMiddleware(lab.claude("claude-haiku-4-5")),
        ModelRetryMiddleware(max_retries=1, initial_delay=0, on_failure="error"),
    )
    agent = create_agent(lab.chat(BIG, max_tokens=None), middleware=around(inside, BudgetMiddleware(handler), *others))
    assert run(agent, asynchronous=asynchronous)["messages"][-1].text == "done"
    assert lab.models == [BIG, BIG, "claude-haiku-4-5"]
    agree(lab, handler)


@ways
@orders
def test_it_switches_under_a_fallback_to_its_own_cheaper_model(lab: Lab, asynchronous: bool, inside: bool) -> None:
    budget = BudgetMiddleware(Budget("$0.004"), downgrade_to=lab.chat(SMALL))  # the dear one does not fit
    agent = create_agent(lab.chat(BIG), middleware=around(inside, budget, ModelRetryMiddleware(max_retries=2)))
    run(agent, asynchronous=asynchronous)
    assert lab.models == [SMALL]
    agree(lab, budget.handler)


@ways
def test_two_budgets_of_one_agent_both_hold(lab: Lab, asynchronous: bool) -> None:
    class Mine(BudgetMiddleware[Any, Any]):
        """LangChain takes one middleware of a name."""

    lab.script(LOOP)
    both = dimes("$0.60"), dimes("$0.40")
    middleware = [BudgetMiddleware(both[0]), Mine(both[1])]
    run(create_agent(lab.chat("dime"), [lookup], middleware=middleware), asynchronous=asynchronous)
    assert len(lab.calls) == 4
    assert [str(handler.spent_usd) for handler in both] == ["0.4", "0.4"]
    assert [handler.reserved_usd for handler in both] == [0, 0]


def test_anothers_limits_are_not_for_a_human_to_raise_here(lab: Lab) -> None:
    lab.script(LOOP)
    other = dimes("$0.20")
    middleware = BudgetMiddleware(dimes("$9.00"), exit_behavior="interrupt")
    agent = create_agent(lab.chat("dime"), [lookup], middleware=[middleware], checkpointer=InMemorySaver())
    ended = run(agent, configured(other, thread_id="1"))
    assert ended["messages"][-1].content.startswith("Budget exceeded: max_cost_usd=$0.20")
    assert len(lab.calls) == 2


def test_a_switch_that_does_not_help_is_not_tried_again(lab: Lab) -> None:
    class Insists(AgentMiddleware[Any, Any]):
        """Has another budget that asks for the same cheaper model, whatever is called."""

        tries = 0

        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            self.tries += 1
            raise BudgetDowngrade(model=BIG, target=SMALL, reason="it says so")

    insists = Insists()
    middleware = [BudgetMiddleware(Budget("$1.00"), downgrade_to=lab.chat(SMALL)), insists]
    with pytest.raises(BudgetDowngrade, match="it says so"):
        run(create_agent(lab.chat(BIG), middleware=middleware))
    assert insists.tries == 2
    assert lab.calls == []


def test_a_model_with_fallbacks_of_its_own_is_left_to_them(lab: Lab) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00", downgrade=SMALL))
    handler.charge("before", "0.85")
    with_fallbacks: Any = lab.chat(BIG).with_fallbacks([lab.chat(SMALL)])
    run(create_agent(with_fallbacks, middleware=[BudgetMiddleware(handler)]))
    assert lab.models == [SMALL]


@ways
def test_the_models_of_tools_and_of_summaries_are_counted(lab: Lab, asynchronous: bool) -> None:
    inner = lab.responses(SMALL)

    @tool
    async def athink() -> str:
        """Ask another model."""
        return (await inner.ainvoke("think")).text

    @tool
    def think() -> str:
        """Ask another model."""
        return inner.invoke("think").text

    def script(request: ProviderRequest) -> Reply:
        if request.model != BIG or outputs_in(request):
            return Reply(text="words", input_tokens=40, output_tokens=10)
        return caller_of("athink" if asynchronous else "think", times=2)

    lab.script(script)
    handler = BudgetCallbackHandler(Budget("$1.00"))
    summaries = SummarizationMiddleware(model=lab.chat("gpt-4.1-nano"), trigger=("messages", 3), keep=("messages", 2))
    both: list[Any] = [BudgetMiddleware(handler, guard_tools=True), summaries]
    agent = create_agent(lab.chat(BIG), [athink if asynchronous else think], middleware=both)
    # Before 3.11 LangChain loses the callbacks of a config in another's async node.
    lost = asynchronous and sys.version_info < (3, 11)
    with budget_scope(handler) if lost else nullcontext():
        run(agent, configured(handler), asynchronous=asynchronous)
    assert sorted(set(lab.models)) == sorted([BIG, SMALL, "gpt-4.1-nano"])
    assert lab.models.count(SMALL) == 2
    agree(lab, handler)


@ways
@pytest.mark.parametrize("fit", [1, 2])
def test_a_tool_whose_call_is_refused_answers_so_and_the_agent_ends(lab: Lab, asynchronous: bool, fit: int) -> None:
    inner = lab.chat("dime")

    @tool
    def think() -> str:
        """Ask another model."""
        return inner.invoke("think").text

    lab.script(lambda request: caller_of("think", times=2) if request.body.get("tools") else Reply(text="thought"))
    handler = dimes(Budget(max_requests=fit))
    agent = create_agent(lab.chat("dime"), [think], middleware=[BudgetMiddleware(handler, guard_tools=True)])
    messages = run(agent, asynchronous=asynchronous)["messages"]
    answers = [message for message in messages if isinstance(message, ToolMessage)]
    assert sorted(answer.status for answer in answers) == ["error"] * (3 - fit) + ["success"] * (fit - 1)
    refused = f"Budget exceeded: max_requests={fit}, and {fit} is spent or held. Call no more tools."
    assert {answer.content for answer in answers if answer.status == "error"} == {refused}
    assert messages[-1].content.startswith("Budget exceeded")
    assert len(lab.calls) == fit
    assert handler.reserved_usd == 0


def test_a_tool_call_that_may_not_be_made_answers_so(lab: Lab) -> None:
    lab.script([LOOP, LOOP, Reply(text="done")])
    handler = BudgetCallbackHandler(Budget("$1.00", max_tool_calls=1))
    agent = create_agent(lab.chat(), [lookup], middleware=[BudgetMiddleware(handler, guard_tools=True)])
    messages = run(agent)["messages"]
    assert [m.status for m in messages if isinstance(m, ToolMessage)] == ["success", "error"]
    assert messages[-1].content == "done"


def test_without_guarding_tools_the_agent_is_built_as_without_it(lab: Lab) -> None:
    plain = create_agent(lab.chat(), middleware=[BudgetMiddleware(Budget("$1.00"))])
    assert set(plain.get_graph().nodes) == set(create_agent(lab.chat()).get_graph().nodes)
    guarding = create_agent(lab.chat(), middleware=[BudgetMiddleware(Budget("$1.00"), guard_tools=True)])
    assert "tools" not in plain.get_graph().nodes
    assert "tools" in guarding.get_graph().nodes


def test_a_subclass_has_the_same_parts(lab: Lab) -> None:
    class Mine(BudgetMiddleware[Any, Any]):
        """Somebody's own."""

    mine = Mine(Budget("$1.00"), guard_tools=True, run_limit="0.50")
    assert isinstance(mine, Mine)
    assert mine.name == "Mine"
    nodes = create_agent(lab.chat(), middleware=[mine]).get_graph().nodes
    assert {"tools", "Mine.before_agent"} <= set(nodes)


@ways
@pytest.mark.parametrize("both", [False, True], ids=["alone", "with_callback"])
def test_a_deep_agent_is_counted_with_all_its_sub_agents(lab: Lab, asynchronous: bool, both: bool) -> None:
    deepagents = pytest.importorskip("deepagents")

    def script(request: ProviderRequest) -> Reply:
        if request.model == BIG and not outputs_in(request):
            task = {"description": "look", "subagent_type": "researcher"}
            return Reply(tool_calls=[ToolCall("task", task)] * 2, input_tokens=900, output_tokens=50)
        return Reply(text="found", input_tokens=900, output_tokens=10)

    lab.script(script)
    handler = BudgetCallbackHandler(Budget("$2.00"))
    researcher = {
        "name": "researcher",
        "description": "Looks.",
        "system_prompt": "Look.",
        "model": lab.chat(SMALL),
        "tools": [],
    }
    agent = deepagents.create_deep_agent(
        model=lab.chat(BIG), subagents=[researcher], middleware=[BudgetMiddleware(handler, guard_tools=True)]
    )
    done = run(agent, configured(handler) if both else None, asynchronous=asynchronous)
    assert done["messages"][-1].content == "found"
    assert sorted(lab.models) == [BIG, BIG, SMALL, SMALL]
    agree(lab, handler)


@ways
def test_a_deep_agent_whose_sub_agents_spend_it_all_ends_well(lab: Lab, asynchronous: bool) -> None:
    deepagents = pytest.importorskip("deepagents")
    task = {"description": "look", "subagent_type": "researcher"}
    lab.script(lambda request: Reply(tool_calls=[ToolCall("task", task)]) if request.model == "dime" else LOOP)
    prices = {name: {"input": 0, "output": 0, "requests": "0.10", "max_output": 100} for name in ("dime", "other")}
    handler = BudgetCallbackHandler(Budget("$0.50"), pricing=prices)
    researcher = {
        "name": "researcher",
        "description": "Looks.",
        "system_prompt": "Look.",
        "model": lab.chat("other"),
        "tools": [lookup],
    }
    agent = deepagents.create_deep_agent(
        model=lab.chat("dime"), subagents=[researcher], middleware=[BudgetMiddleware(handler, guard_tools=True)]
    )
    messages = run(agent, asynchronous=asynchronous, given=dict(GO))["messages"]
    assert lab.models == ["dime"] + ["other"] * 4
    assert messages[-1].content.startswith("Budget exceeded")
    assert [m.status for m in messages if isinstance(m, ToolMessage)] == ["error"]
    assert handler.reserved_usd == 0
