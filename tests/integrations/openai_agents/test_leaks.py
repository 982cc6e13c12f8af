"""Long use leaves nothing behind: no tasks, no context, no growing structures."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

pytest.importorskip("agents")

from agents import Agent, Runner, function_tool
from agents.run import CallModelData, ModelInputData

from budget_guard import Budget
from budget_guard.integrations.openai_agents import BudgetExceeded, BudgetGuard
from budget_guard.testing import LocalProvider, Reply
from budget_guard_openai_agents.guarded_run import current_run, guarded_already
from tests.garbage import left_to_the_collector
from tests.integrations.openai_agents.support import (
    BIG,
    Lab,
    agent_named,
    agree,
    by_role,
    caller_of,
    client_of,
    lookup,
    run_anyhow,
)

modes = pytest.mark.parametrize("mode", ["run", "run_streamed"])
LOOP = by_role({"Worker": [caller_of("lookup"), Reply(text="done")]})


@pytest.mark.parametrize("mode", ["run", "run_sync", "run_streamed"])
@pytest.mark.parametrize("stopped", [False, True])
def test_the_context_is_clean_after_a_run(mode: str, stopped: bool) -> None:
    with LocalProvider(LOOP) as provider:
        client = client_of(provider)
        guard = BudgetGuard(Budget("$1.00", max_requests=1 if stopped else None))
        agent = agent_named("Worker", BIG, tools=[lookup])

        def run() -> None:
            run_anyhow(mode, lambda client: (agent, Lab(provider, client).config()), client, hooks=guard)

        if stopped:
            with pytest.raises(BudgetExceeded):
                run()
        else:
            run()
        assert current_run() is None
        assert not guarded_already()
        agree(provider, guard)


@modes
async def test_the_consumer_of_a_stream_and_the_tools_are_not_inside_a_call(lab: Lab, mode: str) -> None:
    seen: list[bool] = []

    @function_tool
    async def look() -> str:
        seen.append(guarded_already())
        return "looked"

    lab.script(by_role({"Worker": [caller_of("look"), Reply(text="done")]}))
    agent = agent_named("Worker", BIG, tools=[look])
    guard = BudgetGuard(Budget("$1.00"))
    if mode == "run":
        await lab.run(mode, agent, hooks=guard)
    else:
        result = Runner.run_streamed(agent, "go", hooks=guard, run_config=lab.config())
        assert current_run() is None
        async for _ in result.stream_events():
            seen.append(guarded_already() or current_run() is not None)
    assert seen
    assert not any(seen)


@pytest.mark.parametrize("spec", ["name", "instance"])
async def test_two_hundred_calls_in_one_run_leave_no_bookkeeping_behind(lab: Lab, spec: str) -> None:
    sizes: list[int] = []

    def weight(run: Any) -> int:
        return sum(len(value) for value in vars(run).values() if isinstance(value, (dict, list, set)))

    @function_tool
    async def measure() -> str:
        sizes.append(weight(current_run()))
        return "measured"

    lab.script(Reply(tool_calls=caller_of("measure").tool_calls))
    guard = BudgetGuard(Budget("$100.00", max_requests=200))
    agent: Agent[Any] = agent_named("Worker", BIG if spec == "name" else lab.chat(), tools=[measure])

    def forget(data: CallModelData[Any]) -> ModelInputData:
        return ModelInputData(data.model_data.input[-2:], data.model_data.instructions)

    config = lab.config(call_model_input_filter=forget)  # the client takes a second a call for hundreds of items
    with pytest.raises(BudgetExceeded):
        await lab.run("run", agent, hooks=guard, run_config=config, max_turns=300)
    assert len(sizes) == 200
    assert sizes[-1] == sizes[100]
    assert guard.report().by_agent["Worker"].calls == 400  # the filter's new list is the agent's too
    agree(lab.provider, guard)


@modes
async def test_two_hundred_runs_of_one_guard_let_go_of_each(lab: Lab, mode: str) -> None:
    runs: weakref.WeakSet[Any] = weakref.WeakSet()

    @function_tool
    async def note() -> str:
        runs.add(current_run())
        return "noted"

    lab.script(by_role({"Worker": [caller_of("note"), Reply(text="done")]}))
    guard = BudgetGuard(Budget("$100.00"))
    agent = agent_named("Worker", lab.responses(), tools=[note])
    for _ in range(20):
        await asyncio.gather(*(lab.run(mode, agent, hooks=guard) for _ in range(5)))
    await asyncio.sleep(0)
    gc.collect()
    assert len(runs) == 0
    assert len(lab.calls) == 200
    agree(lab.provider, guard)


@modes
async def test_a_guard_that_nobody_holds_is_collected(lab: Lab, mode: str) -> None:
    guard = BudgetGuard(Budget("$1.00"))
    agent = agent_named("Worker", lab.responses(), tools=[lookup])
    lab.script(LOOP)
    await lab.run(mode, agent, hooks=guard)
    gone = weakref.ref(guard)
    del guard
    await asyncio.sleep(0)
    gc.collect()
    assert gone() is None


async def test_a_run_that_is_over_leaves_nothing_to_the_garbage_collector(lab: Lab) -> None:
    """A response of httpx refers to itself, so what it refers to besides is there until that comes round."""
    lab.script(LOOP)
    agent, guard = agent_named("Worker", BIG, tools=[lookup]), BudgetGuard(Budget("$1.00"))
    await lab.run("run", agent, hooks=guard)
    with left_to_the_collector() as left:
        await lab.run("run", agent, hooks=guard)
    assert left <= {"ReadStream"}
