"""A run that was stopped goes on where it was, and does nothing twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("agents")

from agents import Agent, FunctionTool, Runner, RunState, SQLiteSession, function_tool

from budget_guard import Budget
from budget_guard.integrations.openai_agents import BudgetExceeded, BudgetGuard
from budget_guard.testing import Reply
from tests.integrations.openai_agents.support import (
    BIG,
    Lab,
    agent_named,
    agree,
    by_role,
    caller_of,
    capped,
)

modes = pytest.mark.parametrize("mode", ["run", "run_streamed"])

SCRIPT = by_role({"Worker": [caller_of("pay", to="a"), caller_of("pay", to="b"), Reply(text="both are paid")]})


def payer(paid: list[str], *, model: Any = BIG, needs_approval: Any = False) -> Agent[Any]:
    """An agent with a tool that must not be run twice."""

    def pay(to: str) -> str:
        paid.append(to)
        return f"paid {to}"

    tool: FunctionTool = function_tool(pay, needs_approval=needs_approval)
    return agent_named("Worker", model, tools=[tool], model_settings=capped(300))


@modes
@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize("spec", ["name", "responses", "chat"])
async def test_a_stopped_run_finishes_with_a_raised_limit_without_running_a_tool_again(
    lab: Lab, spec: str, limit: int, mode: str
) -> None:
    lab.script(SCRIPT)
    paid: list[str] = []
    guard = BudgetGuard(Budget("$1.00", max_requests=limit))
    agent = payer(paid, model={"name": BIG, "responses": lab.responses(), "chat": lab.chat()}[spec])
    with pytest.raises(BudgetExceeded) as stop:
        await lab.run(mode, agent, "pay a and b", hooks=guard)
    assert paid == ["a", "b"][:limit]
    assert stop.value.last_agent is agent
    guard.raise_limits(max_requests=10)
    result = await lab.run(mode, stop.value.last_agent, stop.value.resume_input(), hooks=guard)
    assert result.final_output == "both are paid"
    assert paid == ["a", "b"]
    assert len(lab.calls) == 3
    agree(lab.provider, guard)


async def test_the_stop_carries_the_report_and_the_work_so_far(lab: Lab) -> None:
    lab.script(SCRIPT)
    guard = BudgetGuard(Budget("$1.00", max_requests=2))
    with pytest.raises(BudgetExceeded) as stop:
        await lab.run("run", payer([]), "pay a and b", hooks=guard)
    error = stop.value
    assert (error.dimension, error.limit, error.actual, error.estimate) == ("max_requests", 2, 2, 1)
    assert error.report is not None
    assert error.report.total_spent == lab.provider.bill_usd
    assert error.report.terminated_by == "max_requests"
    assert error.decision_id == guard.session.decisions()[-1].id
    assert "raise_limits(max_requests=...)" in str(error)
    said = json.dumps(error.resume_input())
    assert "pay a and b" in said
    assert "paid a" in said
    assert "paid b" in said
    assert error.run_data is not None
    assert len(error.run_data.raw_responses) == 2


@modes
async def test_a_run_that_was_stopped_before_its_first_call_resumes_from_its_input(lab: Lab, mode: str) -> None:
    lab.script(SCRIPT)
    guard = BudgetGuard(Budget("$0.000_01"))
    agent = payer([])
    with pytest.raises(BudgetExceeded) as stop:
        await lab.run(mode, agent, "pay a and b", hooks=guard)
    assert stop.value.resume_input() == [{"role": "user", "content": "pay a and b"}]
    guard.raise_limits(max_cost_usd=1)
    result = await lab.run(mode, stop.value.last_agent, stop.value.resume_input(), hooks=guard)
    assert result.final_output == "both are paid"
    agree(lab.provider, guard)


def test_a_stop_that_no_run_raised_says_so() -> None:
    guard = BudgetGuard(Budget(max_requests=1))
    error = BudgetExceeded(dimension="max_requests", limit=1, actual=1, scope="run:x")
    with pytest.raises(RuntimeError, match="run_data"):
        error.resume_input()
    with pytest.raises(RuntimeError, match="run_data"):
        _ = error.last_agent
    assert guard.spent_usd == 0


@modes
async def test_an_unraised_limit_stops_the_resumed_run_at_once(lab: Lab, mode: str) -> None:
    lab.script(SCRIPT)
    guard = BudgetGuard(Budget("$1.00", max_requests=1))
    with pytest.raises(BudgetExceeded) as stop:
        await lab.run(mode, payer([]), hooks=guard)
    with pytest.raises(BudgetExceeded):
        await lab.run(mode, stop.value.last_agent, stop.value.resume_input(), hooks=guard)
    assert len(lab.calls) == 1


@pytest.mark.parametrize("through_json", [False, True])
async def test_a_stopped_stream_resumes_from_its_state(lab: Lab, through_json: bool) -> None:
    lab.script(SCRIPT)
    paid: list[str] = []
    guard = BudgetGuard(Budget("$1.00", max_requests=2))
    agent = payer(paid)
    result = Runner.run_streamed(agent, "pay a and b", hooks=guard, run_config=lab.config())
    with pytest.raises(BudgetExceeded):
        async for _ in result.stream_events():
            pass
    state: Any = result.to_state()
    if through_json:
        state = await RunState.from_json(agent, json.loads(json.dumps(state.to_json())))
    guard.raise_limits(max_requests=10)
    resumed = await Runner.run(agent, state, hooks=guard, run_config=lab.config())
    assert resumed.final_output == "both are paid"
    assert paid == ["a", "b"]
    assert len(lab.calls) == 3
    agree(lab.provider, guard)


@modes
async def test_a_run_with_a_session_goes_on_from_what_the_session_remembers(
    lab: Lab, mode: str, tmp_path: Path
) -> None:
    lab.script(SCRIPT)
    paid: list[str] = []
    guard = BudgetGuard(Budget("$1.00", max_requests=2))
    session = SQLiteSession("s", tmp_path / "s.db")
    try:
        with pytest.raises(BudgetExceeded):
            await lab.run(mode, payer(paid), "pay a and b", hooks=guard, session=session)
        guard.raise_limits(max_requests=10)
        result = await lab.run(mode, payer(paid), "go on", hooks=guard, session=session)
    finally:
        session.close()
    assert result.final_output == "both are paid"
    assert paid == ["a", "b"]
    agree(lab.provider, guard)


@modes
async def test_a_tool_that_asks_the_guard_for_approval_pauses_the_run_near_its_limit(lab: Lab, mode: str) -> None:
    lab.script(SCRIPT)
    paid: list[str] = []
    guard = BudgetGuard(Budget("$1.00", max_requests=2, soft_limit=1.0))
    agent = payer(paid, needs_approval=guard.needs_approval)
    result: Any = await lab.run(mode, agent, hooks=guard)
    assert paid == ["a"]
    (interruption,) = result.interruptions
    state = result.to_state()
    guard.raise_limits(max_requests=10)
    state.approve(interruption)
    resumed = await lab.run(mode, agent, state, hooks=guard)
    assert resumed.final_output == "both are paid"
    assert paid == ["a", "b"]
    assert len(lab.calls) == 3
    agree(lab.provider, guard)


async def test_a_paused_run_that_is_approved_without_more_budget_is_stopped_after_the_tool(lab: Lab) -> None:
    lab.script(SCRIPT)
    paid: list[str] = []
    guard = BudgetGuard(Budget("$1.00", max_requests=1, soft_limit=1.0))
    agent = payer(paid, needs_approval=guard.needs_approval)
    result: Any = await lab.run("run", agent, hooks=guard)
    state = result.to_state()
    state.approve(result.interruptions[0])
    with pytest.raises(BudgetExceeded):
        await lab.run("run", agent, state, hooks=guard)
    assert paid == ["a"]
    agree(lab.provider, guard)


@modes
async def test_a_stop_that_went_through_a_sub_agent_resumes_without_running_a_tool_again(lab: Lab, mode: str) -> None:
    paid: list[str] = []
    lab.script(
        by_role(
            {
                "Worker": [caller_of("pay", to="a"), Reply(text="paid")],
                "Boss": [caller_of("pay", to="z"), caller_of("ask", input="pay a"), Reply(text="done")],
            }
        )
    )
    guard = BudgetGuard(Budget("$1.00", max_requests=3))
    helper = payer(paid)
    boss = agent_named("Boss", BIG, tools=[*helper.tools, helper.as_tool("ask", "Have it paid.")])
    with pytest.raises(BudgetExceeded) as stop:
        await lab.run(mode, boss, hooks=guard)
    assert paid == ["z", "a"]
    guard.raise_limits(max_requests=10)
    result = await lab.run(mode, stop.value.last_agent, stop.value.resume_input(), hooks=guard)
    assert result.final_output == "done"
    assert paid == ["z", "a"]
    agree(lab.provider, guard)
