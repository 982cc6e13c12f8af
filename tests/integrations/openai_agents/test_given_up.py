"""Streams and calls that are given up, in every way there is, at every point: nothing stays held or uncounted.

The ways are combined with two endpoints, with one and two guards, and with the eight points of a stream at which a
consumer can stop.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

pytest.importorskip("agents")

from agents import Agent, Runner

from budget_guard import Budget
from budget_guard.integrations.openai_agents import BudgetGuard, CompositeRunHooks
from budget_guard.testing import LocalProvider, Reply
from tests.integrations.closed_loops import closed
from tests.integrations.openai_agents.support import (
    Lab,
    agent_named,
    by_role,
    caller_of,
    capped,
    client_of,
    lookup,
    never_below,
)

POINTS = range(8)
TEXT = "one two three four five six seven"
SCRIPT = by_role({"Worker": [caller_of("lookup"), Reply(text=TEXT, chunks=7)]})
WAYS = ("break", "raise", "cancel", "aclose", "collect", "task")
setups = pytest.mark.parametrize(("endpoint", "two"), [("responses", False), ("chat", True)])


class GivenUp(Exception):
    """What a consumer raises in the middle."""


def hooks_of(two: bool) -> tuple[Any, list[BudgetGuard]]:
    made = [BudgetGuard(Budget("$1.00")) for _ in range(1 + two)]
    return (CompositeRunHooks(*made) if two else made[0]), made


def worker(lab: Lab, endpoint: str) -> Agent[Any]:
    model = lab.responses() if endpoint == "responses" else lab.chat()
    return agent_named("Worker", model, tools=[lookup], model_settings=capped(300))


def nothing_is_held(provider: LocalProvider, made: list[BudgetGuard]) -> None:
    for guard in made:
        never_below(provider, guard)
        assert guard.report().breakdown.llm.calls >= len([call for call in provider.calls if call.cost_nano])


async def give_up(result: Any, point: int, how: str) -> None:
    seen = 0
    events = result.stream_events()
    async for event in events:
        if event.type == "raw_response_event":
            seen += 1
        if seen > 2 * point:
            if how == "raise":
                raise GivenUp
            if how == "cancel":
                result.cancel()
            if how == "aclose":
                await events.aclose()
            break


@setups
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("point", POINTS)
async def test_a_stream_that_is_given_up_leaves_nothing_held(
    lab: Lab, point: int, how: str, endpoint: str, two: bool
) -> None:
    lab.script(SCRIPT)
    hooks, made = hooks_of(two)
    result: Any = Runner.run_streamed(worker(lab, endpoint), "go", hooks=hooks, run_config=lab.config())
    consumer = asyncio.ensure_future(give_up(result, point, how))
    if how == "task":
        for _ in range(25 * point):
            await asyncio.sleep(0)
        consumer.cancel()
    await asyncio.wait([consumer])
    if not consumer.cancelled():
        assert isinstance(consumer.exception(), GivenUp | None)
    if how == "collect":
        del result
        gc.collect()
    else:
        result.cancel()
    await lab.quiet()
    nothing_is_held(lab.provider, made)


@setups
@pytest.mark.parametrize("mode", ["run", "run_streamed"])
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_a_loop_that_is_closed_over_a_run_leaves_nothing_held(point: int, mode: str, endpoint: str, two: bool) -> None:
    with LocalProvider(by_role({"Worker": [caller_of("lookup"), Reply(text=TEXT, chunks=7)]})) as provider:
        hooks, made = hooks_of(two)
        loop = asyncio.new_event_loop()
        reached = asyncio.Event()
        lab = Lab(provider, client_of(provider))

        async def consume() -> None:
            if mode == "run":
                await Runner.run(worker(lab, endpoint), "go", hooks=hooks, run_config=lab.config())
                return
            seen = 0
            result = Runner.run_streamed(worker(lab, endpoint), "go", hooks=hooks, run_config=lab.config())
            async for event in result.stream_events():
                seen += event.type == "raw_response_event"
                if seen > 2 * point:
                    reached.set()
                    await asyncio.Event().wait()  # for ever

        async def part() -> None:
            kept.append(asyncio.ensure_future(consume()))
            if mode == "run_streamed":
                waiting = asyncio.ensure_future(reached.wait())
                await asyncio.wait([waiting, kept[0]], return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
            for _ in range(12 * point + 5):
                await asyncio.sleep(0)

        kept: list[Any] = []
        loop.run_until_complete(part())
        with closed(loop):
            for guard in made:
                assert guard.reserved_usd == 0  # also while everything is still referred to
            kept.clear()
            gc.collect()
            nothing_is_held(provider, made)


@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("mode", ["run", "run_streamed"])
async def test_a_run_that_is_cancelled_at_every_await_leaves_nothing_held(lab: Lab, mode: str, two: bool) -> None:
    lab.script(SCRIPT)
    every: list[list[BudgetGuard]] = []
    done = False
    while not done:
        hooks, made = hooks_of(two)
        every.append(made)
        task = asyncio.ensure_future(lab.run(mode, worker(lab, "responses"), hooks=hooks))
        for _ in range(7 * len(every)):
            await asyncio.sleep(0)
        done = task.done()
        task.cancel()
        await asyncio.wait([task])
        await lab.quiet()
        assert all(guard.reserved_usd == 0 for guard in made)
    assert len(every) > 10
    for guards in zip(*every, strict=True):  # what was sent last may have come after its run was over
        assert sum(guard.spent_usd for guard in guards) >= lab.provider.bill_usd
