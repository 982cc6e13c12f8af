"""A stop inside a tool is a stop of the run that called the tool, whatever the SDK makes of the error."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("agents")

from agents import Agent, RunHooks, Runner, Tool, function_tool

from budget_guard import Budget
from budget_guard.integrations.openai_agents import BudgetExceeded, BudgetGuard, CompositeRunHooks
from budget_guard.testing import ProviderRequest, Reply, Script
from tests.integrations.openai_agents.support import (
    BIG,
    Lab,
    agent_named,
    agree,
    by_role,
    caller_of,
    capped,
    lookup,
    never_below,
    role_of,
)

modes = pytest.mark.parametrize("mode", ["run", "run_streamed"])
behaviours = pytest.mark.parametrize("behaviour", ["run_llm_again", "stop_on_first_tool"])

SCRIPT = by_role(
    {
        "Boss": [caller_of("ask", input="help"), Reply(text="done")],
        "Helper": [caller_of("lookup"), Reply(text="helped")],
    }
)


def boss(model: Any = BIG, *, helper: Agent[Any] | None = None, **options: Any) -> Agent[Any]:
    helper = helper or agent_named("Helper", model, tools=[lookup], model_settings=capped(300))
    tool = helper.as_tool("ask", "Ask the helper.")
    return agent_named("Boss", model, tools=[tool], model_settings=capped(300), **options)


@modes
@behaviours
@pytest.mark.parametrize("spec", ["name", "instance"])
async def test_a_limit_that_a_sub_agent_reaches_stops_its_parent(
    lab: Lab, spec: str, behaviour: Any, mode: str
) -> None:
    lab.script(SCRIPT)
    guard = BudgetGuard(Budget(max_requests=2))  # the second call of the helper is one too many
    agent = boss(BIG if spec == "name" else lab.responses(), tool_use_behavior=behaviour)
    with pytest.raises(BudgetExceeded) as stop:
        await lab.run(mode, agent, hooks=guard)
    assert stop.value.dimension == "max_requests"
    assert stop.value.last_agent is agent
    assert len(lab.calls) == 2
    agree(lab.provider, guard)


@modes
@behaviours
async def test_a_limit_that_a_nested_run_reaches_stops_the_run_whose_tool_swallowed_it(
    lab: Lab, behaviour: Any, mode: str
) -> None:
    @function_tool
    async def ask(input: str) -> str:
        try:
            await Runner.run(agent_named("Helper", BIG, tools=[lookup]), input, run_config=lab.config())
        except Exception:
            return "never mind"
        return "helped"

    lab.script(SCRIPT)
    guard = BudgetGuard(Budget(max_requests=2))
    agent = agent_named("Boss", BIG, tools=[ask], tool_use_behavior=behaviour)
    with pytest.raises(BudgetExceeded):
        await lab.run(mode, agent, hooks=guard)
    assert len(lab.calls) == 2
    agree(lab.provider, guard)


@modes
async def test_siblings_in_flight_finish_and_are_booked(lab: Lab, mode: str) -> None:
    def script(request: ProviderRequest) -> Script:
        asked = role_of(request)
        return {"Boss": caller_of("ask", times=6, input="help"), "Helper": Reply(text="helped")}[asked]

    lab.script(script)
    guard = BudgetGuard(Budget(max_requests=4))
    ended: list[str] = []

    async def extract(result: Any) -> str:
        ended.append(str(result.final_output))
        return str(result.final_output)

    helper = agent_named("Helper", BIG, model_settings=capped(300))
    tool = helper.as_tool("ask", "Ask the helper.", custom_output_extractor=extract)
    agent = agent_named("Boss", BIG, tools=[tool])

    with pytest.raises(BudgetExceeded):
        await lab.run(mode, agent, hooks=guard)
    assert [call.outcome for call in lab.calls] == ["completed"] * 4
    assert ended == ["helped"] * 3
    agree(lab.provider, guard)


@modes
async def test_a_stopped_sub_agent_is_not_held_against_a_later_run(lab: Lab, mode: str) -> None:
    lab.script(SCRIPT)
    guard = BudgetGuard(Budget(max_requests=2))
    with pytest.raises(BudgetExceeded):
        await lab.run(mode, boss(), hooks=guard)
    guard.raise_limits(max_requests=20)
    result = await lab.run(mode, boss(), hooks=guard)
    assert result.final_output == "done"
    agree(lab.provider, guard)


@modes
async def test_a_nested_run_with_a_guard_of_its_own_spends_from_both(lab: Lab, mode: str) -> None:
    inner = BudgetGuard(Budget("$1.00"))

    @function_tool
    async def ask(input: str) -> str:
        helper = agent_named("Helper", BIG, tools=[lookup])
        result = await Runner.run(helper, input, run_config=lab.config(), hooks=inner)
        return str(result.final_output)

    lab.script(SCRIPT)
    outer = BudgetGuard(Budget("$1.00"))
    await lab.run(mode, agent_named("Boss", BIG, tools=[ask]), hooks=outer)
    agree(lab.provider, outer)
    helpers = sum(call.cost_nano or 0 for call in lab.calls if role_of(call) == "Helper")
    assert inner.spent_usd * 10**9 == helpers > 0
    assert inner.report().breakdown.llm.calls == 2


@modes
@pytest.mark.parametrize("inner_limit", [1, None])
async def test_the_guard_of_a_nested_run_alone_stops_that_run_alone(
    lab: Lab, inner_limit: int | None, mode: str
) -> None:
    inner = BudgetGuard(Budget("$1.00", max_requests=inner_limit))

    @function_tool
    async def ask(input: str) -> str:
        helper = agent_named("Helper", BIG, tools=[lookup])
        await Runner.run(helper, input, run_config=lab.config(), hooks=inner)
        return "helped"

    lab.script(SCRIPT)
    outer = BudgetGuard(Budget("$1.00"))
    result = await lab.run(mode, agent_named("Boss", BIG, tools=[ask]), hooks=outer)
    assert result.final_output == "done"  # the SDK told the model of the error
    assert len(lab.calls) == (3 if inner_limit else 4)
    agree(lab.provider, outer)


@modes
async def test_the_outer_guard_stops_a_nested_run_that_its_own_guard_would_let_go_on(lab: Lab, mode: str) -> None:
    inner = BudgetGuard(Budget("$1.00"))

    @function_tool
    async def ask(input: str) -> str:
        helper = agent_named("Helper", BIG, tools=[lookup])
        await Runner.run(helper, input, run_config=lab.config(), hooks=inner)
        return "helped"

    lab.script(SCRIPT)
    outer = BudgetGuard(Budget(max_requests=2))
    with pytest.raises(BudgetExceeded) as stop:
        await lab.run(mode, agent_named("Boss", BIG, tools=[ask]), hooks=outer)
    assert stop.value.scope == f"run:{outer.session.id}"
    assert inner.reserved_usd == 0
    assert inner.report().breakdown.llm.calls == 1
    never_below(lab.provider, outer)


async def test_two_guards_of_one_run_both_hold(lab: Lab) -> None:
    lab.script(SCRIPT)
    for first, second in ((1, 20), (20, 1)):
        guards = BudgetGuard(Budget(max_requests=first)), BudgetGuard(Budget(max_requests=second))
        lab.script(SCRIPT)
        with pytest.raises(BudgetExceeded) as stop:
            await lab.run("run", boss(), hooks=CompositeRunHooks(*guards))
        tight = guards[first > second]
        assert stop.value.scope == f"run:{tight.session.id}"
        assert len(lab.calls) == 1
        for guard in guards:
            agree(lab.provider, guard)


@modes
async def test_a_limit_that_is_raised_before_the_parent_goes_on_lets_it_go_on(lab: Lab, mode: str) -> None:
    guard = BudgetGuard(Budget(max_requests=2))

    class Generous(RunHooks[Any]):
        async def on_tool_end(self, context: Any, agent: Agent[Any], tool: Tool, result: Any) -> None:
            if tool.name == "ask":
                guard.raise_limits(max_requests=20)

    lab.script(SCRIPT)
    result = await lab.run(mode, boss(), hooks=CompositeRunHooks(guard, Generous()))
    assert result.final_output == "done"
    assert len(lab.calls) == 3
    agree(lab.provider, guard)


@modes
@behaviours
async def test_a_stop_in_a_sub_agent_holds_for_its_parent_even_where_a_smaller_call_would_fit(
    lab: Lab, behaviour: Any, mode: str
) -> None:
    lab.script(SCRIPT)
    guard = BudgetGuard(Budget("$0.02"))
    helper = agent_named("Helper", BIG, model_settings=capped(5_000))
    with pytest.raises(BudgetExceeded):
        await lab.run(mode, boss(helper=helper, tool_use_behavior=behaviour), hooks=guard)
    assert len(lab.calls) == 1
    agree(lab.provider, guard)


@modes
@behaviours
async def test_a_limit_of_tool_calls_that_a_sub_agent_reaches_stops_its_parent(
    lab: Lab, behaviour: Any, mode: str
) -> None:
    lab.script(SCRIPT)
    guard = BudgetGuard(Budget("$1.00", max_tool_calls=1))  # the sub-agent is one itself
    with pytest.raises(BudgetExceeded) as stop:
        await lab.run(mode, boss(tool_use_behavior=behaviour), hooks=guard)
    assert stop.value.dimension == "max_tool_calls"
    assert len(lab.calls) == 2
    agree(lab.provider, guard)
