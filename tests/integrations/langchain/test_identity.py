"""Agents are capped by name within one run, and reported with all that they have started."""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("langgraph")
pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain_core.tools import tool

from budget_guard import Budget
from budget_guard.integrations.langchain import BudgetCallbackHandler, BudgetExceeded, BudgetMiddleware
from budget_guard.testing import ProviderRequest, Reply
from tests.integrations.langchain.agents import Lab, agree, caller_of, configured, lookup, outputs_in

TWO_CENTS = 2_000
"""Output tokens: two cents at $10 a million."""
NAMES = [f"Agent{i}" for i in range(10)]
ASK: dict[str, Any] = {"messages": [("user", "go")]}
CAPPED = {"Agent3": Budget("$0.05")}


def role_of(request: ProviderRequest) -> str:
    found = re.search(r"I am (\w+)\.", str([request.instructions, list(request.messages)]))
    return found[1] if found else ""


def dear(request: ProviderRequest) -> Reply:
    """Two tool calls, then the end, at two cents each."""
    if role_of(request) == "Boss":
        done = outputs_in(request)
        return caller_of("ask", name=NAMES[done]) if done < len(NAMES) else Reply(text="done", output_tokens=5)
    calls = caller_of("lookup").tool_calls if outputs_in(request) < 2 else ()
    return Reply(text=None if calls else "done", tool_calls=calls, output_tokens=TWO_CENTS)


def agent_named(lab: Lab, name: str, tools: Any = (lookup,), **options: Any) -> Any:
    return create_agent(lab.chat(max_tokens=TWO_CENTS), [*tools], system_prompt=f"I am {name}.", name=name, **options)


def bill_by_agent(lab: Lab) -> dict[str, Decimal]:
    """The provider's ledger."""
    bill: Counter[str] = Counter()
    for call in lab.calls:
        bill[role_of(call)] += call.cost_nano or 0
    return {name: Decimal(nano) / 10**9 for name, nano in bill.items()}


def spent_by_agent(handler: BudgetCallbackHandler) -> dict[str, Decimal]:
    return {name: spend.total for name, spend in handler.report().by_agent.items() if spend.total}


def test_of_ten_agents_the_capped_one_stops_with_its_name_and_nine_finish(lab: Lab) -> None:
    lab.script(dear)
    handler = BudgetCallbackHandler(Budget("$9.00", agents=CAPPED, max_wait_s=0))

    def run(name: str) -> Any:
        try:
            return agent_named(lab, name).invoke(ASK, configured(handler))["messages"][-1].content
        except BudgetExceeded as stop:
            return stop

    with ThreadPoolExecutor(10) as pool:
        ended = list(pool.map(run, NAMES))

    stop = ended.pop(3)
    assert isinstance(stop, BudgetExceeded)
    assert stop.scope.endswith("/Agent3") and "'Agent3'" in str(stop)
    assert (stop.dimension, stop.limit) == ("max_cost_usd", Decimal("0.05"))
    assert ended == ["done"] * 9
    agree(lab, handler)
    assert spent_by_agent(handler) == bill_by_agent(lab)


def asker(lab: Lab, awaits: bool, **options: Any) -> Any:
    @tool
    def ask(name: str) -> str:
        """Ask another agent."""
        try:
            return str(agent_named(lab, name, **options).invoke(ASK)["messages"][-1].content)
        except BudgetExceeded as stop:
            return f"stopped: {stop}"

    if not awaits:
        return ask

    @tool("ask")
    async def later(name: str) -> str:
        """Ask another agent."""
        try:
            return str((await agent_named(lab, name, **options).ainvoke(ASK))["messages"][-1].content)
        except BudgetExceeded as stop:
            return f"stopped: {stop}"

    return later


async def test_a_capped_sub_agent_stops_alone_and_the_boss_is_reported_with_all_of_them(lab: Lab) -> None:
    lab.script(dear)
    handler = BudgetCallbackHandler(Budget("$9.00", agents=CAPPED, max_wait_s=0))
    boss = agent_named(lab, "Boss", [asker(lab, awaits=True)])
    config = configured(handler) | {"recursion_limit": 100}

    result = await boss.ainvoke(ASK, config)

    assert result["messages"][-1].content == "done"
    await lab.quiet()
    agree(lab, handler)
    assert spent_by_agent(handler) == bill_by_agent(lab)
    _seen(handler, result)


def test_in_blocking_code_it_is_the_same(lab: Lab) -> None:
    lab.script(dear)
    handler = BudgetCallbackHandler(Budget("$9.00", agents=CAPPED, max_wait_s=0))
    boss = agent_named(lab, "Boss", [asker(lab, awaits=False)])

    result = boss.invoke(ASK, configured(handler) | {"recursion_limit": 100})

    agree(lab, handler)
    _seen(handler, result)


def _seen(handler: BudgetCallbackHandler, result: Any) -> None:
    texts = [message.content for message in result["messages"] if message.type == "tool"]
    assert [text.startswith("stopped") and "Agent3" in text for text in texts].count(True) == 1
    assert texts.count("done") == 9
    report = handler.report()
    assert report.by_agent["Boss"].with_started == report.total_spent
    assert report.by_agent["Boss"].total < report.total_spent
    assert all(report.by_agent[name].with_started == report.by_agent[name].total for name in NAMES)


def test_a_capped_agent_with_the_middleware_ends_without_an_error(lab: Lab) -> None:
    lab.script(dear)
    handler = BudgetCallbackHandler(Budget("$9.00", agents=CAPPED, max_wait_s=0))
    capped, other = (agent_named(lab, name, middleware=[BudgetMiddleware(handler)]) for name in ("Agent3", "Agent4"))

    assert "Agent3" in str(handler.session.budget)
    assert capped.invoke(ASK)["messages"][-1].content != "done"
    assert other.invoke(ASK)["messages"][-1].content == "done"
    agree(lab, handler)
