"""Agents are capped by name within one run, and reported with all that they have started."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("agents")

from agents import Agent, Runner

from budget_guard import Budget
from budget_guard.integrations.openai_agents import BudgetExceeded, BudgetGuard
from budget_guard.testing import Reply
from tests.integrations.openai_agents.support import (
    BIG,
    NANO,
    Lab,
    agent_named,
    agree,
    by_role,
    caller_of,
    capped,
    lookup,
    role_of,
)

TWO_CENTS = 2_000
"""Output tokens: two cents at $10 a million."""
NAMES = [f"Agent{i}" for i in range(10)]
LAST = Reply(text="done", output_tokens=TWO_CENTS)
ROW = [caller_of("lookup"), caller_of("lookup"), LAST]


def budget() -> Budget:
    return Budget("$9.00", agents={"Agent3": Budget("$0.05")}, max_wait_s=0)


def worker(name: str, **options: Any) -> Agent[Any]:
    return agent_named(name, BIG, tools=[lookup], model_settings=capped(TWO_CENTS), **options)


def bill_by_agent(lab: Lab) -> dict[str, Decimal]:
    """The provider's ledger."""
    bill: Counter[str] = Counter()
    for call in lab.calls:
        bill[role_of(call)] += call.cost_nano or 0
    return {name: nano / NANO for name, nano in bill.items()}


def spent_by_agent(guard: BudgetGuard) -> dict[str, Decimal]:
    return {name: spend.total for name, spend in guard.report().by_agent.items() if spend.total}


async def test_of_ten_agents_the_capped_one_stops_with_its_name_and_nine_finish(lab: Lab) -> None:
    expensive = [Reply(tool_calls=each.tool_calls, output_tokens=TWO_CENTS) for each in ROW[:2]]
    lab.script(by_role({name: [*expensive, LAST] for name in NAMES}))
    guard = BudgetGuard(budget())
    runs = [Runner.run(worker(name), "go", hooks=guard, run_config=lab.config()) for name in NAMES]

    ended = await asyncio.gather(*runs, return_exceptions=True)

    stops = [each for each in ended if isinstance(each, BaseException)]
    (stop,) = stops
    assert isinstance(stop, BudgetExceeded)
    assert ended.index(stop) == 3
    assert stop.scope.endswith("/Agent3") and "'Agent3'" in str(stop)
    assert (stop.dimension, stop.limit) == ("max_cost_usd", Decimal("0.05"))
    assert [each.final_output for each in ended if not isinstance(each, BaseException)] == ["done"] * 9
    agree(lab.provider, guard)
    assert spent_by_agent(guard) == bill_by_agent(lab)
    assert bill_by_agent(lab)["Agent3"] <= Decimal("0.05")


@pytest.mark.parametrize("mode", ["run", "run_streamed"])
async def test_a_capped_sub_agent_stops_alone_and_its_parent_goes_on_to_the_end(lab: Lab, mode: str) -> None:
    boss_row = [caller_of(f"ask_{name}", input="help") for name in NAMES]
    dear = [Reply(tool_calls=each.tool_calls, output_tokens=TWO_CENTS) for each in ROW[:2]]
    lab.script(by_role({"Boss": [*boss_row, Reply(text="done")], **{name: [*dear, LAST] for name in NAMES}}))
    guard = BudgetGuard(budget())
    tools = [worker(name).as_tool(f"ask_{name}", "Ask it.") for name in NAMES]
    boss = agent_named("Boss", BIG, tools=[*tools], model_settings=capped(300))

    result = await lab.run(mode, boss, hooks=guard, max_turns=20)

    assert result.final_output == "done"
    agree(lab.provider, guard)
    assert spent_by_agent(guard) == bill_by_agent(lab)
    (blocked,) = guard.session.decisions(action="block")
    assert "'Agent3'" in blocked.reason
    assert [role_of(call) for call in lab.calls].count("Agent3") == 2
    report = guard.report()
    boss_spend = report.by_agent["Boss"]
    assert boss_spend.with_started == report.total_spent == lab.provider.bill_usd
    assert boss_spend.total < boss_spend.with_started
    assert all(report.by_agent[name].with_started == report.by_agent[name].total for name in NAMES)
    outputs = [str(item.output) for item in result.new_items if item.type == "tool_call_output_item"]
    assert outputs.pop(3).startswith("An error occurred")  # the SDK's own words for it
    assert outputs == ["done"] * 9


async def test_what_a_sub_agent_starts_counts_for_all_above_it(lab: Lab) -> None:
    lab.script(
        by_role(
            {
                "Boss": [caller_of("ask", input="help"), Reply(text="done")],
                "Helper": [caller_of("ask_reader", input="read"), Reply(text="helped")],
                "Reader": Reply(text="read"),
            }
        )
    )
    reader = agent_named("Reader", BIG, model_settings=capped(300)).as_tool("ask_reader", "Ask it.")
    helper = agent_named("Helper", BIG, tools=[reader], model_settings=capped(300)).as_tool("ask", "Ask it.")
    guard = BudgetGuard(Budget("$9.00"), tool_costs={"ask_reader": "0.01"})
    await lab.run("run", agent_named("Boss", BIG, tools=[helper], model_settings=capped(300)), hooks=guard)

    spends = guard.report().by_agent
    own = {name: spend.total for name, spend in spends.items()}
    assert own["Helper"] == bill_by_agent(lab)["Helper"] + Decimal("0.01")
    assert spends["Reader"].with_started == own["Reader"]
    assert spends["Helper"].with_started == own["Helper"] + own["Reader"]
    assert spends["Boss"].with_started == own["Boss"] + own["Helper"] + own["Reader"] == guard.spent_usd
