"""One last answer, without tools, out of the money that was kept back for it."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("agents")

from agents import Agent, RunHooks

from budget_guard import Budget
from budget_guard.integrations.openai_agents import BudgetExceeded, BudgetGuard, CompositeRunHooks
from budget_guard.testing import Reply, ToolCall
from tests.integrations.openai_agents.support import (
    BIG,
    Lab,
    agent_named,
    agree,
    by_role,
    caller_of,
    capped,
    lookup,
)

modes = pytest.mark.parametrize("mode", ["run", "run_streamed"])
specs = pytest.mark.parametrize("spec", ["name", "instance"])

ENDLESS = Reply(tool_calls=[ToolCall("lookup", {"key": "more"})], text="this is what I have", output_tokens=300)
"""Calls tools as long as it may."""
STUBBORN = Reply(tool_calls=[ToolCall("lookup", {"key": "more"})], ignore_tool_choice=True, output_tokens=300)


def finalizing(limit: Any = "$0.03", **options: Any) -> BudgetGuard:
    return BudgetGuard(Budget(limit, finalization_reserve="$0.01", **options), on_exceeded="finalize")


def worker(lab: Lab, spec: str = "name", **options: Any) -> Agent[Any]:
    model = BIG if spec == "name" else lab.responses()
    return agent_named("Worker", model, **{"tools": [lookup], "model_settings": capped(300), **options})


@modes
@specs
async def test_a_run_at_its_limit_ends_with_one_answer_without_tools(lab: Lab, spec: str, mode: str) -> None:
    lab.script(ENDLESS)
    guard = finalizing()
    result = await lab.run(mode, worker(lab, spec), hooks=guard, max_turns=50)
    assert result.final_output == "this is what I have"
    *others, last = lab.calls
    assert last.tool_choice == "none"
    assert "used up" in str(last.messages[-1])
    assert others
    assert all(call.tool_choice != "none" for call in others)
    agree(lab.provider, guard)
    assert sum(call.cost_nano or 0 for call in others) <= 20_000_000 < 30_000_000
    assert "used up" not in str(result.to_input_list())  # the note is not a part of the conversation


@modes
async def test_a_limit_of_requests_leaves_one_for_the_answer(lab: Lab, mode: str) -> None:
    lab.script(ENDLESS)
    guard = finalizing("$1.00", max_requests=3)
    result = await lab.run(mode, worker(lab), hooks=guard)
    assert result.final_output == "this is what I have"
    assert len(lab.calls) == 3
    agree(lab.provider, guard)


@modes
@specs
async def test_a_model_that_calls_tools_all_the_same_is_stopped_after_its_one_answer(
    lab: Lab, spec: str, mode: str
) -> None:
    lab.script(STUBBORN)
    guard = finalizing("$1.00", max_requests=3)
    with pytest.raises(BudgetExceeded):
        await lab.run(mode, worker(lab, spec), hooks=guard, max_turns=50)
    assert [call.tool_choice for call in lab.calls].count("none") == 1
    assert len(lab.calls) == 3
    agree(lab.provider, guard)


@modes
async def test_a_run_that_ends_in_time_leaves_the_reserve_alone(lab: Lab, mode: str) -> None:
    lab.script(by_role({"Worker": [caller_of("lookup"), Reply(text="done")]}))
    guard = finalizing("$1.00")
    result = await lab.run(mode, worker(lab), hooks=guard)
    assert result.final_output == "done"
    assert all(call.tool_choice != "none" for call in lab.calls)
    agree(lab.provider, guard)


@modes
async def test_the_last_answer_can_hand_off_to_nobody(lab: Lab, mode: str) -> None:
    lab.script(ENDLESS)
    other = agent_named("Other", BIG)
    guard = finalizing("$1.00", max_requests=2)
    await lab.run(mode, worker(lab, handoffs=[other]), hooks=guard)
    first, last = lab.calls
    assert "transfer_to_other" in first.tools
    assert "transfer_to_other" not in last.tools
    agree(lab.provider, guard)


@modes
async def test_a_sub_agent_at_the_limit_makes_its_parent_answer(lab: Lab, mode: str) -> None:
    lab.script(
        by_role(
            {
                "Boss": Reply(tool_calls=[ToolCall("ask", {"input": "help"})], text="the boss's last word"),
                "Helper": [caller_of("lookup"), Reply(text="helped")],
            }
        )
    )
    helper = agent_named("Helper", BIG, tools=[lookup])
    boss = agent_named("Boss", BIG, tools=[helper.as_tool("ask", "Ask.")])
    guard = finalizing("$1.00", max_requests=3)  # the third is kept for the answer
    result = await lab.run(mode, boss, hooks=guard)
    assert result.final_output == "the boss's last word"
    assert len(lab.calls) == 3
    agree(lab.provider, guard)


@modes
async def test_where_the_reserve_does_not_pay_for_an_answer_the_run_is_stopped(lab: Lab, mode: str) -> None:
    lab.script(ENDLESS)
    guard = BudgetGuard(Budget("$0.01", finalization_reserve="$0.000_01"), on_exceeded="finalize")
    with pytest.raises(BudgetExceeded):
        await lab.run(mode, worker(lab), hooks=guard)
    assert all(call.tool_choice != "none" for call in lab.calls)
    agree(lab.provider, guard)


@modes
async def test_each_run_of_a_guard_may_answer_as_long_as_the_money_lasts(lab: Lab, mode: str) -> None:
    lab.script(ENDLESS)
    guard = finalizing("$1.00", max_requests=2)
    assert (await lab.run(mode, worker(lab), hooks=guard)).final_output == "this is what I have"
    with pytest.raises(BudgetExceeded):
        await lab.run(mode, worker(lab), hooks=guard)
    assert len(lab.calls) == 2
    guard.raise_limits(max_requests=4)
    assert (await lab.run(mode, worker(lab), hooks=guard)).final_output == "this is what I have"
    agree(lab.provider, guard)


@modes
async def test_it_works_inside_a_composite_and_with_a_second_guard_beside_it(lab: Lab, mode: str) -> None:
    lab.script(ENDLESS)
    guard, ample = finalizing("$1.00", max_requests=2), BudgetGuard(Budget("$9.00"))
    hooks = CompositeRunHooks(RunHooks[Any](), CompositeRunHooks(ample, guard))
    result = await lab.run(mode, worker(lab), hooks=hooks)
    assert result.final_output == "this is what I have"
    agree(lab.provider, guard)
    agree(lab.provider, ample)


def test_it_needs_money_of_its_own() -> None:
    with pytest.raises(ValueError, match="finalization_reserve"):
        BudgetGuard(Budget("$1.00"), on_exceeded="finalize")
    with pytest.raises(ValueError, match="on_exceeded='stop'"):
        BudgetGuard(Budget("$1.00"), on_exceeded="stop")  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ValueError, match="on_cut_off='stop'"):
        BudgetGuard(Budget("$1.00"), on_cut_off="stop")  # type: ignore[arg-type]  # on purpose


@modes
@pytest.mark.parametrize("insists_on", ["lookup", "transfer_to_other"])
async def test_one_answer_it_is_even_where_the_reserve_would_pay_for_two(lab: Lab, insists_on: str, mode: str) -> None:
    call = [ToolCall(insists_on, {})]
    stubborn = Reply(tool_calls=call, ignore_tool_choice=True, output_tokens=300)
    lab.script(by_role({"Worker": stubborn, "Other": Reply(text="me too", output_tokens=300)}))
    guard = BudgetGuard(Budget("$0.12", max_requests=3, finalization_reserve="$0.10"), on_exceeded="finalize")
    first = worker(lab)
    if insists_on == "transfer_to_other":
        guard = BudgetGuard(Budget("$0.104", finalization_reserve="$0.10"), on_exceeded="finalize")  # no call but that
        first = worker(lab, handoffs=[agent_named("Other", BIG, model_settings=capped(300))])
    with pytest.raises(BudgetExceeded):
        await lab.run(mode, first, hooks=guard, max_turns=50)
    assert [call.tool_choice for call in lab.calls].count("none") == 1
    assert lab.calls[-1].tool_choice == "none"
    agree(lab.provider, guard)
