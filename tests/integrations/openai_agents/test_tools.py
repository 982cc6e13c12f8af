"""Tool calls: counted, capped, priced, and never left open."""

from __future__ import annotations

import asyncio
import warnings
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("agents")

from agents import (
    Agent,
    ModelResponse,
    ModelSettings,
    ModelTracing,
    RunConfig,
    RunContextWrapper,
    RunHooks,
    Usage,
    function_tool,
)
from openai import AsyncOpenAI

from budget_guard import Budget
from budget_guard.integrations.openai_agents import BudgetExceeded, BudgetGuard, CompositeRunHooks
from budget_guard.testing import LocalProvider, Reply
from budget_guard_openai_agents.call import Arguments
from budget_guard_openai_agents.guarded_run import GuardedRun, activate
from tests.integrations.openai_agents.support import (
    BIG,
    Lab,
    agent_named,
    by_role,
    caller_of,
    capped,
    client_of,
    lookup,
    never_below,
    run_anyhow,
)

modes = pytest.mark.parametrize("mode", ["run", "run_streamed"])


def calling(times: int, tool: str = "lookup") -> Any:
    return by_role({"Worker": [caller_of(tool, times=times), Reply(text="done")]})


def worker(*tools: Any, **options: Any) -> Agent[Any]:
    return agent_named("Worker", BIG, tools=list(tools) or [lookup], model_settings=capped(300), **options)


def tools_cost(guard: BudgetGuard) -> tuple[int, Decimal]:
    tools = guard.report().breakdown.tools
    return tools.calls, tools.total


@modes
async def test_tools_are_counted_and_free_unless_the_user_says_otherwise(lab: Lab, mode: str) -> None:
    lab.script(calling(3))
    guard = BudgetGuard(Budget("$1.00"))
    await lab.run(mode, worker(), hooks=guard)
    assert tools_cost(guard) == (3, Decimal(0))
    assert guard.report().breakdown.tools.by_tool["lookup"].calls == 3
    assert guard.spent_usd == lab.provider.bill_usd
    assert guard.reserved_usd == 0


@modes
@pytest.mark.parametrize(
    "cost",
    ["0.01", 0.01, Decimal("0.01"), lambda result: len(result) / 1000],
    ids=["text", "float", "Decimal", "function"],
)
async def test_a_tool_costs_what_the_user_says(lab: Lab, cost: Any, mode: str) -> None:
    lab.script(calling(4))
    guard = BudgetGuard(Budget("$1.00"), tool_costs={"lookup": cost})
    await lab.run(mode, worker(), hooks=guard)
    assert tools_cost(guard) == (4, Decimal("0.04"))  # "value of a" has ten characters
    assert guard.spent_usd == lab.provider.bill_usd + Decimal("0.04")
    assert guard.reserved_usd == 0


@modes
async def test_a_tool_that_would_be_one_too_many_is_not_run(lab: Lab, mode: str) -> None:
    lab.script(by_role({"Worker": caller_of("count")}))
    ran: list[int] = []

    @function_tool
    async def count() -> str:
        ran.append(1)
        return "counted"

    guard = BudgetGuard(Budget("$1.00", max_tool_calls=2))
    with pytest.raises(BudgetExceeded) as stop:
        await lab.run(mode, worker(count), hooks=guard)
    assert stop.value.dimension == "max_tool_calls"
    assert stop.value.run_data is not None
    assert len(ran) == tools_cost(guard)[0] == 2
    assert guard.spent_usd == lab.provider.bill_usd
    assert guard.reserved_usd == 0


@modes
async def test_a_tool_that_does_not_fit_into_the_money_is_not_run(lab: Lab, mode: str) -> None:
    lab.script(by_role({"Worker": caller_of("count")}))
    ran: list[int] = []

    @function_tool
    async def count() -> str:
        ran.append(1)
        return "counted"

    guard = BudgetGuard(Budget("$1.00"), tool_costs={"count": "0.30"})
    with pytest.raises(BudgetExceeded) as stop:
        await lab.run(mode, worker(count), hooks=guard)
    assert stop.value.dimension == "max_cost_usd"
    assert len(ran) == 3
    assert guard.spent_usd == lab.provider.bill_usd + Decimal("0.90")
    assert guard.reserved_usd == 0


@modes
async def test_no_more_tools_run_in_parallel_than_are_allowed(lab: Lab, mode: str) -> None:
    ran: list[int] = []

    @function_tool
    async def count() -> str:
        ran.append(1)
        return "counted"

    lab.script(calling(10, "count"))
    guard = BudgetGuard(Budget("$1.00", max_tool_calls=4))
    with pytest.raises(BudgetExceeded):
        await lab.run(mode, worker(count), hooks=guard)
    assert len(ran) <= 4
    assert tools_cost(guard)[0] <= 4
    assert guard.reserved_usd == 0


@modes
@pytest.mark.parametrize("swallowed", [True, False])
async def test_a_tool_that_raises_is_booked(lab: Lab, swallowed: bool, mode: str) -> None:
    def fail() -> str:
        raise LookupError("no such thing")

    tool = function_tool(fail) if swallowed else function_tool(fail, failure_error_function=None)
    lab.script(calling(2, "fail"))
    guard = BudgetGuard(Budget("$1.00"), tool_costs={"fail": "0.05"})
    if swallowed:
        await lab.run(mode, worker(tool), hooks=guard)
    else:
        with pytest.raises(Exception, match="no such thing"):
            await lab.run(mode, worker(tool), hooks=guard)
    await lab.quiet()
    assert tools_cost(guard) == (2, Decimal("0.10"))
    assert guard.reserved_usd == 0


async def test_a_tool_of_a_run_that_another_runner_has_started_is_booked_at_once(lab: Lab) -> None:
    guard, other = (BudgetGuard(Budget("$1.00"), tool_costs={"lookup": "0.01"}) for _ in range(2))
    for block in (guard, other):
        with block:  # a block is no run: nothing tells when what is started in it has ended
            await guard.on_tool_start(RunContextWrapper(None), worker(), lookup)
    assert (tools_cost(guard), guard.reserved_usd) == ((2, Decimal("0.02")), Decimal(0))


async def test_a_call_of_a_run_that_is_not_the_guards_is_held_by_its_hooks(lab: Lab) -> None:
    guard, other = (BudgetGuard(Budget("$1.00")) for _ in range(2))
    run = GuardedRun((other,), None)
    context, agent = RunContextWrapper(None), worker()
    with activate(run), pytest.warns(RuntimeWarning, match="hooks alone"):
        await guard.on_llm_start(context, agent, None, [])
        assert (guard.reserved_usd > 0, other.reserved_usd) == (True, Decimal(0))
        usage = Usage(requests=1, input_tokens=10, output_tokens=5, total_tokens=15)
        await guard.on_llm_end(context, agent, ModelResponse(output=[], usage=usage, response_id=None))
    assert guard.spent_usd > 0 and guard.reserved_usd == 0


async def test_a_model_is_given_every_argument_that_the_sdk_gives() -> None:
    given = Arguments("be brief", "hi", ModelSettings(), [], None, [], ModelTracing.DISABLED, "resp_1", "conv_1", "p")
    seen: list[Any] = []

    def model(*by_position: Any, **by_name: Any) -> Any:
        seen.extend((by_position, by_name))

    given.stream_response(model)
    assert seen == [given[:7], {"previous_response_id": "resp_1", "conversation_id": "conv_1", "prompt": "p"}]


@modes
async def test_tools_that_are_cancelled_are_booked(lab: Lab, mode: str) -> None:
    started = asyncio.Event()

    @function_tool
    async def hang() -> str:
        started.set()
        await asyncio.Event().wait()
        return ""

    lab.script(calling(2, "hang"))
    guard = BudgetGuard(Budget("$1.00"), tool_costs={"hang": "0.05"})
    run = asyncio.ensure_future(lab.run(mode, worker(hang), hooks=guard))
    await started.wait()
    assert guard.reserved_usd > 0
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await lab.quiet()
    assert tools_cost(guard) == (2, Decimal("0.10"))
    never_below(lab.provider, guard)


@modes
@pytest.mark.parametrize("wrong", ["raises", "negative", "nonsense"])
async def test_a_cost_function_that_fails_leaves_nothing_held_and_the_call_counted(
    lab: Lab, wrong: str, mode: str
) -> None:
    def cost(result: Any) -> Any:
        if wrong == "raises":
            raise KeyError("price")
        return -1 if wrong == "negative" else "five dollars"

    lab.script(calling(1))
    guard = BudgetGuard(Budget("$1.00", max_tool_calls=1), tool_costs={"lookup": cost})
    with pytest.raises(Exception, match=r"price|negative|five dollars|-1"):
        await lab.run(mode, worker(), hooks=guard)
    assert tools_cost(guard)[0] == 1
    assert guard.reserved_usd == 0
    assert guard.spent_usd == lab.provider.bill_usd


@modes
async def test_tools_of_sub_agents_count_too_and_so_does_the_sub_agent(lab: Lab, mode: str) -> None:
    lab.script(
        by_role(
            {
                "Boss": [caller_of("ask", times=3, input="help"), Reply(text="done")],
                "Helper": [caller_of("lookup"), Reply(text="helped")],
            }
        )
    )
    helper = agent_named("Helper", BIG, tools=[lookup])
    guard = BudgetGuard(Budget("$1.00"), tool_costs={"lookup": "0.01"})
    await lab.run(mode, agent_named("Boss", BIG, tools=[helper.as_tool("ask", "Ask.")]), hooks=guard)
    by_tool = guard.report().breakdown.tools.by_tool
    assert (by_tool["ask"].calls, by_tool["lookup"].calls) == (3, 3)
    assert by_tool["lookup"].total == Decimal("0.03")
    assert guard.report().by_agent["Helper"].total > Decimal("0.03")


@modes
async def test_a_hook_of_the_users_that_fails_before_the_tool_leaves_nothing_held(lab: Lab, mode: str) -> None:
    class Failing(RunHooks[Any]):
        async def on_tool_start(self, *_: Any) -> None:
            raise RuntimeError("not today")

    lab.script(calling(1))
    guard = BudgetGuard(Budget("$1.00"), tool_costs={"lookup": "0.05"})
    with pytest.raises(Exception, match="not today"):
        await lab.run(mode, worker(), hooks=CompositeRunHooks(guard, Failing()))
    await lab.quiet()
    assert guard.reserved_usd == 0


async def test_what_a_tool_spends_by_itself_can_be_charged_in_it(lab: Lab) -> None:
    lab.script(calling(1, "search"))
    guard = BudgetGuard(Budget("$1.00"))

    @function_tool
    async def search() -> str:
        guard.charge("serp", "0.02")
        return "found"

    await lab.run("run", worker(search), hooks=guard)
    assert guard.spent_usd == lab.provider.bill_usd + Decimal("0.02")


@pytest.mark.parametrize("cost", ["five dollars", -1, float("nan")])
def test_a_cost_that_makes_no_sense_is_refused_by_name(cost: Any) -> None:
    with pytest.raises(ValueError, match=r"tool_costs\['serp'\]"):
        BudgetGuard(Budget("$1.00"), tool_costs={"serp": cost})


@pytest.mark.parametrize("mode", ["run", "run_sync", "run_streamed"])
def test_a_cost_of_a_tool_that_no_agent_has_is_warned_of_at_the_end_of_the_outermost_run(mode: str) -> None:
    script = by_role({"Boss": [caller_of("ask", input="help"), Reply(text="done")], "Helper": Reply(text="helped")})
    with LocalProvider(script) as provider, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        guard = BudgetGuard(Budget("$1.00"), tool_costs={"lokup": "0.01", "ask": "0.02"})

        def told() -> list[str]:
            return [str(each.message) for each in caught if "tool_costs" in str(each.message)]

        def agents(client: AsyncOpenAI) -> tuple[Agent[Any], RunConfig]:
            helper = agent_named("Helper", BIG)

            async def output(result: Any) -> str:
                seen.append(told())  # the inner run is over, and the outer one may still see the tool
                return str(result.final_output)

            ask = helper.as_tool("ask", "Ask.", custom_output_extractor=output)
            return agent_named("Boss", BIG, tools=[ask]), Lab(provider, client).config()

        seen: list[list[str]] = []
        for _ in range(2):
            run_anyhow(mode, agents, client_of(provider), hooks=guard)
            assert seen[0] == []
            (warned,) = told()
            assert "tool_costs names 'lokup', but" in warned
