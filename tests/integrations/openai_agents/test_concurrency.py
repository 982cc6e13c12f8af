"""Many runs at once: one guard's budget holds for all of them, and nobody pays for anybody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("agents")

from agents import Agent, RunConfig
from agents.models.interface import Model

from budget_guard import Budget, DowngradePolicy
from budget_guard.integrations.openai_agents import BudgetExceeded, BudgetGuard
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
)

TEN_CENTS = 10_000
"""Output tokens of `BIG`."""


async def many(lab: Lab, count: int, mode: str, guard: BudgetGuard, output: int = TEN_CENTS) -> list[BudgetExceeded]:
    """Run *count* agents at once; return the stops. Anything else is a failure."""
    agent = agent_named("Worker", lab.responses(), model_settings=capped(output))
    results = await asyncio.gather(*(lab.run(mode, agent, hooks=guard) for _ in range(count)), return_exceptions=True)
    stops = [result for result in results if isinstance(result, BudgetExceeded)]
    failures = [result for result in results if isinstance(result, BaseException) and result not in stops]
    assert failures == []
    return stops


def fits(stop: BudgetExceeded) -> bool:
    """Whether the refused call would have fitted beside what was spent and held then."""
    return Decimal(stop.actual) + Decimal(stop.estimate or 0) <= Decimal(stop.limit)


@pytest.mark.parametrize("mode", ["run", "run_streamed"])
async def test_a_hundred_runs_at_once_never_pass_the_cap_and_every_call_that_fits_is_made(lab: Lab, mode: str) -> None:
    lab.script(Reply(output_tokens=TEN_CENTS))
    guard = BudgetGuard(Budget("$1.00"))
    stops = await many(lab, 100, mode, guard)
    agree(lab.provider, guard)
    assert len(lab.calls) == 9  # a tenth is $0.10 of output and its input
    assert len(stops) == 91
    assert Decimal("0.90") <= lab.provider.bill_usd <= 1
    for stop in stops:
        assert stop.dimension == "max_cost_usd"
        assert not fits(stop)


@pytest.mark.parametrize("mode", ["run", "run_streamed"])
async def test_refused_calls_wait_for_what_others_give_back(lab: Lab, mode: str) -> None:
    lab.script(Reply(output_tokens=TEN_CENTS // 3))  # two thirds of every hold come back
    guard = BudgetGuard(Budget("$1.00", max_wait_s=30))
    stops = await many(lab, 100, mode, guard)
    agree(lab.provider, guard)
    assert Decimal("0.90") <= lab.provider.bill_usd <= 1
    assert len(lab.calls) + len(stops) == 100
    for stop in stops:  # nothing was held any more that could have come back
        assert not fits(stop)


async def test_without_a_wait_the_calls_that_do_not_fit_beside_the_open_ones_are_refused(lab: Lab) -> None:
    lab.script(Reply(output_tokens=TEN_CENTS // 3))
    guard = BudgetGuard(Budget("$1.00", max_wait_s=0))
    with lab.provider.paused():
        runs = asyncio.ensure_future(many(lab, 20, "run", guard))
        await lab.provider.await_calls(9)
    assert len(await runs) == 11
    agree(lab.provider, guard)


@pytest.mark.parametrize("mode", ["run", "run_streamed"])
async def test_twenty_runs_at_once_make_exactly_as_many_requests_as_are_allowed(lab: Lab, mode: str) -> None:
    guard = BudgetGuard(Budget(max_requests=7))
    stops = await many(lab, 20, mode, guard, output=100)
    assert len(lab.calls) == 7
    assert len(stops) == 13
    assert {stop.dimension for stop in stops} == {"max_requests"}
    agree(lab.provider, guard)


LOOP = by_role({"Worker": [*[caller_of("lookup", key=str(n)) for n in range(4)], Reply(text="done")]})


def by_name(lab: Lab) -> Any:
    return BIG


def as_responses(lab: Lab) -> Any:
    return lab.responses()


def as_chat(lab: Lab) -> Any:
    return lab.chat()


SPECS: Sequence[Callable[[Lab], Any]] = [by_name, as_responses, as_chat]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.__name__)
@pytest.mark.parametrize("mode", ["run", "run_streamed"])
async def test_a_downgrade_is_seen_in_the_run_that_is_short_of_money_and_in_no_other(
    lab: Lab, mode: str, spec: Callable[[Lab], Any]
) -> None:
    lab.script(LOOP)
    agent = agent_named("Worker", spec(lab), tools=[lookup], model_settings=capped(1_000, include_usage=True))
    before = agent.model
    poor = BudgetGuard(Budget("$1.00", downgrade=DowngradePolicy(to=SMALL, at=0.000_01)))
    rich = BudgetGuard(Budget("$1.00", downgrade=DowngradePolicy(to=SMALL, at=1)))

    async def run(name: str, guard: BudgetGuard | None) -> None:
        options = {} if guard is None else {"hooks": guard}
        await lab.run(mode, agent, f"for {name}", **options)

    with lab.provider.paused():
        runs = asyncio.gather(run("poor", poor), run("rich", rich), run("nobody", None))
        await lab.provider.await_calls(3)  # all three are under way at once
    await runs
    models = {
        name: [call.model for call in lab.calls if f"for {name}" in str(call.messages)]
        for name in ("poor", "rich", "nobody")
    }
    assert models == {"poor": [BIG, *[SMALL] * 4], "rich": [BIG] * 5, "nobody": [BIG] * 5}
    assert agent.model is before
    if isinstance(before, Model):
        assert getattr(before, "model") == BIG  # noqa: B009  not a field of `Model`
    for guard, name in ((poor, "poor"), (rich, "rich")):
        cost = sum(call.cost_nano or 0 for call in lab.calls if f"for {name}" in str(call.messages))
        assert guard.spent_usd == Decimal(cost) / 10**9
        assert guard.reserved_usd == 0

    spent = poor.spent_usd, rich.spent_usd
    await run("nobody", None)
    assert (poor.spent_usd, rich.spent_usd) == spent
    assert lab.calls[-1].model == BIG


async def test_guards_of_runs_at_the_same_time_do_not_mix(lab: Lab) -> None:
    lab.script(LOOP)
    shared = agent_named("Worker", lab.responses(), tools=[lookup])
    guards = [BudgetGuard(Budget("$1.00")) for _ in range(8)]
    await asyncio.gather(*(lab.run("run", shared, f"for {n}.", hooks=guard) for n, guard in enumerate(guards)))
    for n, guard in enumerate(guards):
        calls = [call for call in lab.calls if f"for {n}." in str(call.messages)]
        assert guard.report().breakdown.llm.calls == len(calls) == 5
        assert guard.spent_usd == Decimal(sum(call.cost_nano or 0 for call in calls)) / 10**9


@pytest.mark.parametrize("mode", ["run", "run_streamed"])
async def test_a_clone_of_a_guarded_agent_runs_unguarded(lab: Lab, mode: str) -> None:
    agent = agent_named("Worker", lab.responses())
    guard = BudgetGuard(Budget("$1.00"))
    await lab.run(mode, agent, hooks=guard)
    spent = guard.spent_usd
    clone: Agent[Any] = agent.clone(name="Clone")
    await lab.run(mode, clone, run_config=RunConfig(tracing_disabled=True))
    assert guard.spent_usd == spent
    assert len(lab.calls) == 2
