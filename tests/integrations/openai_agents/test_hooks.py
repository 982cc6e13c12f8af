"""Hooks of the user's beside the guard's, and the other ways to bring a guard along."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("agents")

from agents import Agent, RunConfig, RunHooks, Runner
from agents.lifecycle import RunHooksBase

from budget_guard import Budget
from budget_guard.integrations.openai_agents import (
    BudgetExceeded,
    BudgetGuard,
    BudgetRevoked,
    CompositeRunHooks,
)
from budget_guard.testing import Reply
from tests.integrations.openai_agents.support import (
    BIG,
    SMALL,
    Lab,
    agent_named,
    agree,
    by_role,
    caller_of,
    capped,
    lookup,
    run_in,
)

modes = pytest.mark.parametrize("mode", ["run", "run_streamed"])
specs = pytest.mark.parametrize("spec", ["name", "instance"])

SCRIPT = by_role(
    {
        "Triage": [caller_of("lookup"), caller_of("transfer_to_worker")],
        "Worker": [Reply(text="done")],
    }
)
HOOKS = sorted(name for name in vars(RunHooksBase) if name.startswith("on_"))


def triage(model: Any = BIG) -> Agent[Any]:
    return agent_named("Triage", model, tools=[lookup], handoffs=[agent_named("Worker", model)])


class Recorder(RunHooks[Any]):
    """Writes down every call, as any hook of the user's might."""

    def __init__(self, name: str, log: list[tuple[str, str]]) -> None:
        for hook in HOOKS:
            setattr(self, hook, self._recorder(name, hook, log))

    def _recorder(self, name: str, hook: str, log: list[tuple[str, str]]) -> Callable[..., Any]:
        async def record(*_: Any, **__: Any) -> None:  # the SDK passes some by keyword
            log.append((name, hook))

        return record


@modes
async def test_hooks_of_the_users_are_called_with_a_guard_as_without(lab: Lab, mode: str) -> None:
    lab.script(SCRIPT)
    alone: list[tuple[str, str]] = []
    await lab.run(mode, triage(), hooks=Recorder("mine", alone))
    lab.script(SCRIPT)
    beside: list[tuple[str, str]] = []
    guard = BudgetGuard(Budget("$1.00"))
    await lab.run(mode, triage(), hooks=CompositeRunHooks(guard, Recorder("mine", beside)))
    assert beside == alone
    assert {hook for _, hook in beside} == set(HOOKS)
    agree(lab.provider, guard)


@modes
async def test_hooks_are_called_in_the_order_given_however_they_are_nested(lab: Lab, mode: str) -> None:
    lab.script(SCRIPT)
    log: list[tuple[str, str]] = []
    guard = BudgetGuard(Budget("$1.00"))
    first, second, third = (Recorder(name, log) for name in "abc")
    await lab.run(mode, triage(), hooks=CompositeRunHooks(first, CompositeRunHooks(second, guard), third))
    names = [name for name, _ in log]
    assert names == ["a", "b", "c"] * (len(names) // 3)
    agree(lab.provider, guard)


def test_every_hook_that_the_sdk_has_is_passed_on() -> None:
    assert set(HOOKS) <= set(vars(CompositeRunHooks))


async def test_hooks_after_one_that_raises_are_not_called(lab: Lab) -> None:
    log: list[tuple[str, str]] = []
    guard = BudgetGuard(Budget("$1.00"))
    guard.revoke("enough")
    with pytest.raises(BudgetRevoked):
        await lab.run("run", triage(), hooks=CompositeRunHooks(guard, Recorder("mine", log)))
    assert lab.calls == []


@pytest.mark.parametrize("wrong", [None, ..., BudgetGuard, "guard"], ids=repr)
def test_what_is_no_hooks_object_is_a_type_error_that_says_what_to_do(wrong: Any) -> None:
    with pytest.raises(TypeError, match="RunHooks"):
        CompositeRunHooks(BudgetGuard(Budget("$1.00")), wrong)


@modes
@specs
@pytest.mark.parametrize("way", ["hooks and run_config", "twice in a composite", "hooks and with"])
async def test_a_guard_that_is_brought_along_twice_counts_once(lab: Lab, way: str, spec: str, mode: str) -> None:
    lab.script(SCRIPT)
    guard = BudgetGuard(Budget("$1.00", max_requests=3, max_tool_calls=1), tool_costs={"lookup": "0"})
    agent = triage(BIG if spec == "name" else lab.responses())
    config = lab.config()
    if way == "hooks and run_config":
        await run_in(mode, agent, "go", hooks=guard, run_config=guard.run_config(config))
    elif way == "hooks and with":
        with guard:
            await run_in(mode, agent, "go", hooks=guard, run_config=config)
    else:
        await run_in(mode, agent, "go", hooks=CompositeRunHooks(guard, guard), run_config=config)
    assert guard.report().breakdown.tools.calls == 1
    agree(lab.provider, guard)


@modes
@specs
async def test_a_guard_can_come_with_the_run_config_alone(lab: Lab, spec: str, mode: str) -> None:
    lab.script(SCRIPT)
    guard = BudgetGuard(Budget("$1.00", max_requests=2))
    agent = triage(BIG if spec == "name" else lab.responses())
    with pytest.raises(BudgetExceeded):
        await run_in(mode, agent, "go", run_config=guard.run_config(lab.config()))
    agree(lab.provider, guard)
    assert guard.report().breakdown.tools.calls == 1  # its hooks are called too


@modes
@specs
async def test_a_model_of_the_run_config_is_guarded(lab: Lab, spec: str, mode: str) -> None:
    guard = BudgetGuard(Budget("$1.00"))
    model = SMALL if spec == "name" else lab.chat(SMALL)
    await run_in(mode, agent_named("Worker", BIG), "go", hooks=guard, run_config=lab.config(model=model))
    assert [call.model for call in lab.calls] == [SMALL]
    agree(lab.provider, guard)


@modes
@pytest.mark.parametrize("asynchronously", [False, True])
async def test_a_block_guards_runs_that_take_no_hooks(lab: Lab, asynchronously: bool, mode: str) -> None:
    lab.script(SCRIPT)
    guard = BudgetGuard(Budget("$1.00"))
    if asynchronously:
        async with guard as entered:
            await lab.run(mode, triage())
    else:
        with guard as entered:
            await lab.run(mode, triage(lab.responses()))
    assert entered is guard
    agree(lab.provider, guard)
    spent = guard.spent_usd
    await lab.run(mode, triage())
    assert guard.spent_usd == spent


async def test_a_stop_in_a_block_does_not_stop_other_runs_in_it(lab: Lab) -> None:
    lab.script(Reply(text="done"))
    guard = BudgetGuard(Budget("$0.01"))
    with guard:
        with pytest.raises(BudgetExceeded):
            await lab.run("run", agent_named("Worker", BIG, model_settings=capped(5_000)))
        await lab.run("run", agent_named("Worker", BIG, model_settings=capped(100)))
    agree(lab.provider, guard)
    assert len(lab.calls) == 1


async def test_blocks_nest_and_a_run_in_both_spends_from_both(lab: Lab) -> None:
    outer, inner = BudgetGuard(Budget("$1.00")), BudgetGuard(Budget("$1.00"))
    with outer:
        with inner:
            await lab.run("run", agent_named("Worker", BIG))
        await lab.run("run", agent_named("Worker", BIG))
    agree(lab.provider, outer)
    assert inner.spent_usd * 2 == outer.spent_usd


async def test_a_stream_that_was_started_in_a_block_is_guarded_after_it(lab: Lab) -> None:
    lab.script(SCRIPT)
    guard = BudgetGuard(Budget("$1.00"))
    with guard:
        result = Runner.run_streamed(triage(), "go", run_config=lab.config())
    async for _ in result.stream_events():
        pass
    agree(lab.provider, guard)


async def test_blocks_in_tasks_at_the_same_time_do_not_mix(lab: Lab) -> None:
    guards = [BudgetGuard(Budget("$1.00")) for _ in range(4)]

    async def work(number: int) -> None:
        with guards[number]:
            for _ in range(number + 1):
                await lab.run("run", agent_named("Worker", BIG))

    await asyncio.gather(*map(work, range(4)))
    assert [guard.report().breakdown.llm.calls for guard in guards] == [1, 2, 3, 4]


async def test_a_fork_has_the_same_settings_and_a_budget_of_its_own(lab: Lab) -> None:
    lab.script(by_role({"Worker": Reply(tool_calls=caller_of("lookup").tool_calls)}))
    guard = BudgetGuard(Budget("$1.00", max_requests=2), tool_costs={"lookup": "0.01"}, user="u1")
    agent = agent_named("Worker", BIG, tools=[lookup])
    with pytest.raises(BudgetExceeded):
        await lab.run("run", agent, hooks=guard)
    guard.raise_limits(max_requests=9)
    fork = guard.fork()
    assert fork.spent_usd == 0
    assert fork.budget.max_requests == 2
    with pytest.raises(BudgetExceeded):
        await lab.run("run", agent, hooks=fork)
    assert fork.spent_usd == guard.spent_usd
    assert fork.report().tags == guard.report().tags == {"user": "u1"}
    assert fork.report().session_id != guard.report().session_id


@modes
async def test_a_revoked_guard_refuses_every_call_and_says_why(lab: Lab, mode: str) -> None:
    lab.script(SCRIPT)
    guard = BudgetGuard(Budget("$1.00"))

    class Revoking(RunHooks[Any]):
        async def on_tool_end(self, *_: Any) -> None:
            guard.revoke("compromised")

    with pytest.raises(BudgetRevoked, match="compromised"):
        await lab.run(mode, triage(), hooks=CompositeRunHooks(guard, Revoking()))
    assert len(lab.calls) == 1
    agree(lab.provider, guard)
    assert guard.report().terminated_by == "revoked"


async def test_a_run_config_that_the_user_gave_is_left_as_it_was(lab: Lab) -> None:
    config: RunConfig = lab.config()
    provider = config.model_provider
    await lab.run("run", agent_named("Worker", BIG), hooks=BudgetGuard(Budget("$1.00")), run_config=config)
    assert config.model_provider is provider


@modes
async def test_two_guards_can_come_with_one_run_config(lab: Lab, mode: str) -> None:
    lab.script(SCRIPT)
    first, second = BudgetGuard(Budget("$1.00")), BudgetGuard(Budget("$1.00", max_requests=2))
    with pytest.raises(BudgetExceeded):
        await run_in(mode, triage(), "go", run_config=second.run_config(first.run_config(lab.config())))
    agree(lab.provider, first)
    agree(lab.provider, second)


@modes
async def test_a_hook_that_takes_its_arguments_by_name_works_in_a_composite(lab: Lab, mode: str) -> None:
    seen: list[str] = []

    class ByName(RunHooks[Any]):
        async def on_handoff(self, *, context: Any, from_agent: Any, to_agent: Any) -> None:  # type: ignore[override]  # by keyword alone
            seen.append(f"{from_agent.name} to {to_agent.name}")

    lab.script(SCRIPT)
    guard = BudgetGuard(Budget("$1.00"))
    await lab.run(mode, triage(), hooks=CompositeRunHooks(guard, ByName()))
    assert seen == ["Triage to Worker"]
