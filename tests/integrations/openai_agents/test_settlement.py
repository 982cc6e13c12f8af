"""Whatever ends a call, nothing stays held, and nothing that may have been billed is given back."""

from __future__ import annotations

import asyncio
import gc
import types
from collections.abc import Callable, Coroutine, Generator
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("agents")

from agents import (
    Agent,
    Runner,
    function_tool,
)
from openai import APIConnectionError, APIStatusError, APITimeoutError

from budget_guard import Budget
from budget_guard.integrations.openai_agents import BudgetGuard
from budget_guard.testing import Reply
from tests.integrations.openai_agents.support import (
    DelegatingModel,
    Lab,
    agent_named,
    agree,
    by_role,
    caller_of,
    capped,
    never_below,
)

MODES = ["run", "run_streamed"]
ENDPOINTS: list[Callable[[Lab], Any]] = [lambda lab: lab.responses(), lambda lab: lab.chat()]
endpoints = pytest.mark.parametrize("model_of", ENDPOINTS, ids=["responses", "chat"])
modes = pytest.mark.parametrize("mode", MODES)

LOOP = by_role({"Worker": [*[caller_of("step")] * 2, Reply(text="done, and at some length")]})


def stepper(lab: Lab, model: Any, *, pause_at: int = -1, **options: Any) -> Agent[Any]:
    """An agent of three calls; call *pause_at* finds the provider paused."""
    steps = iter(range(1, 99))

    @function_tool
    async def step() -> str:
        if next(steps) == pause_at:
            lab.provider.pause()
        return "stepped"

    if pause_at == 0:
        lab.provider.pause()
    return agent_named("Worker", model, tools=[step], model_settings=capped(500), **options)


@endpoints
@modes
@pytest.mark.parametrize("held_call", range(3))
async def test_a_run_that_is_cancelled_while_the_provider_works_pays_for_that_call(
    lab: Lab, held_call: int, mode: str, model_of: Callable[[Lab], Any]
) -> None:
    lab.script(LOOP)
    guard = BudgetGuard(Budget("$1.00"))
    agent = stepper(lab, model_of(lab), pause_at=held_call)
    run = asyncio.ensure_future(lab.run(mode, agent, hooks=guard))
    await lab.provider.await_calls(held_call + 1)
    assert guard.reserved_usd > 0
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await lab.quiet()
    never_below(lab.provider, guard)
    assert guard.report().uncertain > 0
    assert guard.report().breakdown.llm.calls == held_call + 1


@types.coroutine
def _cancelled_at(coroutine: Coroutine[Any, Any, Any], suspension: int) -> Generator[Any, Any, Any]:
    """Await *coroutine*, and cancel the task when it is suspended for the *suspension*-th time."""
    task = asyncio.current_task()
    assert task is not None
    sent: Any = None
    thrown: BaseException | None = None
    for count in range(100_000):
        try:
            awaited = coroutine.send(sent) if thrown is None else coroutine.throw(thrown)
        except StopIteration as end:
            return end.value
        if count == suspension:
            task.cancel()
        sent = thrown = None
        try:
            sent = yield awaited
        except BaseException as error:
            thrown = error
    return None


@modes
@pytest.mark.filterwarnings("ignore:coroutine 'run_single_turn' was never awaited")  # the SDK's own, when cut off there
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # asyncio's own, of a connection that is being made
async def test_a_run_that_is_cancelled_at_any_of_its_awaits_leaves_nothing_held(lab: Lab, mode: str) -> None:
    @function_tool
    async def step() -> str:
        return "stepped"

    async def work(guard: BudgetGuard) -> None:
        agent = agent_named("Worker", lab.responses(), tools=[step], model_settings=capped(500))
        await lab.run(mode, agent, hooks=guard)

    lab.script(LOOP)
    spent = Decimal(0)
    for suspension in range(500):
        guard = BudgetGuard(Budget("$1.00"))

        async def cancelled() -> None:
            await _cancelled_at(work(guard), suspension)  # noqa: B023  awaited at once

        try:
            await asyncio.ensure_future(cancelled())
        except asyncio.CancelledError:
            await lab.quiet()
        else:
            break
        # Of all runs together: the provider may read a request that was cut off only while the next run goes on.
        spent += guard.spent_usd
        assert guard.reserved_usd == 0
        assert spent >= lab.provider.bill_usd
    else:
        pytest.fail("the run never came to its end")
    assert suspension > 5  # it was cut off before
    lab.script(LOOP)
    whole = BudgetGuard(Budget("$1.00"))
    await work(whole)
    assert whole.spent_usd == guard.spent_usd
    agree(lab.provider, whole)
    gc.collect()  # what was left behind is found here, and not in another test


async def test_a_call_that_waits_for_a_second_budget_gives_the_first_one_its_hold_back_when_cancelled(
    lab: Lab,
) -> None:
    ample, tight = BudgetGuard(Budget("$10.00")), BudgetGuard(Budget("$0.02", max_wait_s=30))
    agent = agent_named("Worker", lab.responses(), model_settings=capped(1_000))
    with lab.provider.paused():
        first = asyncio.ensure_future(lab.run("run", agent, hooks=tight))
        await lab.provider.await_calls(1)
        with ample:
            second = asyncio.ensure_future(lab.run("run", agent, hooks=tight))
        while not ample.session.decisions():
            await asyncio.sleep(0)
        for _ in range(20):  # until it waits
            await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert ample.reserved_usd == 0
        assert ample.spent_usd == 0
    await first
    agree(lab.provider, tight)


@endpoints
@modes
@pytest.mark.parametrize("status", [400, 401, 404, 429])
async def test_a_call_that_the_provider_refused_costs_nothing(
    lab: Lab, status: int, mode: str, model_of: Callable[[Lab], Any]
) -> None:
    lab.script([caller_of("step"), Reply(status=status)])
    guard = BudgetGuard(Budget("$1.00"))
    with pytest.raises(APIStatusError):
        await lab.run(mode, stepper(lab, model_of(lab)), hooks=guard)
    assert [call.status for call in lab.calls] == [200, status]
    agree(lab.provider, guard)
    assert guard.report().uncertain == 0


@endpoints
@modes
@pytest.mark.parametrize("status", [500, 502])
async def test_a_call_that_failed_at_the_provider_is_booked_as_an_estimate(
    lab: Lab, status: int, mode: str, model_of: Callable[[Lab], Any]
) -> None:
    lab.script([caller_of("step"), Reply(status=status)])
    guard = BudgetGuard(Budget("$1.00"))
    with pytest.raises(APIStatusError):
        await lab.run(mode, stepper(lab, model_of(lab)), hooks=guard)
    never_below(lab.provider, guard)
    report = guard.report()
    assert report.uncertain == guard.spent_usd - lab.provider.bill_usd > 0


@endpoints
@modes
async def test_a_server_error_costs_nothing_for_who_trusts_the_provider(
    lab: Lab, mode: str, model_of: Callable[[Lab], Any]
) -> None:
    lab.script([caller_of("step"), Reply(status=500)])
    guard = BudgetGuard(Budget("$1.00", server_errors="release"))
    with pytest.raises(APIStatusError):
        await lab.run(mode, stepper(lab, model_of(lab)), hooks=guard)
    agree(lab.provider, guard)


@endpoints
@pytest.mark.parametrize(("mode", "drop_after"), [("run", 0), *[("run_streamed", chunks) for chunks in range(5)]])
async def test_a_call_whose_connection_broke_is_booked_as_an_estimate(
    lab: Lab, mode: str, drop_after: int, model_of: Callable[[Lab], Any]
) -> None:
    text = "twelve words are a fair amount of text to be cut off"
    lab.script([caller_of("step"), Reply(text=text, drop_after=drop_after)])
    guard = BudgetGuard(Budget("$1.00"))
    with pytest.raises(Exception, match=r"(?i)connection|closed|incomplete|read"):
        await lab.run(mode, stepper(lab, model_of(lab)), hooks=guard)
    assert [call.outcome for call in lab.calls] == ["completed", "dropped"]
    never_below(lab.provider, guard)
    assert guard.report().uncertain > 0


@modes
async def test_a_provider_that_is_not_there_costs_nothing(lab: Lab, mode: str) -> None:
    lab.provider.stop()
    guard = BudgetGuard(Budget("$1.00"))
    with pytest.raises(APIConnectionError):
        await lab.run(mode, stepper(lab, lab.responses()), hooks=guard)
    assert guard.spent_usd == guard.reserved_usd == 0
    assert guard.report().breakdown.llm.calls == 0
    lab.provider.start()


@modes
async def test_a_call_that_timed_out_is_booked_as_an_estimate(new_lab: Callable[..., Any], mode: str) -> None:
    lab: Lab = await new_lab(client_options={"timeout": 0.05})
    guard = BudgetGuard(Budget("$1.00"))
    with pytest.raises(APITimeoutError):
        await lab.run(mode, stepper(lab, lab.responses(), pause_at=0), hooks=guard)
    await lab.quiet()
    never_below(lab.provider, guard)
    assert guard.report().uncertain == guard.spent_usd > 0


@modes
async def test_an_error_between_calls_changes_nothing_that_was_booked(lab: Lab, mode: str) -> None:
    @function_tool(failure_error_function=None)
    async def step() -> str:
        raise LookupError("no such thing")

    lab.script(LOOP)
    guard = BudgetGuard(Budget("$1.00"))
    agent = agent_named("Worker", lab.responses(), tools=[step])
    with pytest.raises(Exception, match="no such thing"):
        await lab.run(mode, agent, hooks=guard)
    agree(lab.provider, guard)
    assert guard.report().breakdown.llm.calls == 1


async def test_a_run_that_a_timeout_of_the_callers_ends_leaves_nothing_held(lab: Lab) -> None:
    guard = BudgetGuard(Budget("$1.00"))
    agent = stepper(lab, lab.responses(), pause_at=0)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(Runner.run(agent, "go", hooks=guard, run_config=lab.config()), timeout=0.05)
    await lab.quiet()
    never_below(lab.provider, guard)


@modes
async def test_a_model_of_the_users_own_that_fails_is_booked_as_an_estimate(lab: Lab, mode: str) -> None:
    class Broken(DelegatingModel):
        async def get_response(self, *args: Any, **kwargs: Any) -> Any:
            await super().get_response(*args, **kwargs)
            raise RuntimeError("after the call")

        async def stream_response(self, *args: Any, **kwargs: Any) -> Any:
            async for event in super().stream_response(*args, **kwargs):
                if event.type == "response.completed":
                    raise RuntimeError("after the call")
                yield event

    guard = BudgetGuard(Budget("$1.00"))
    with pytest.raises(RuntimeError, match="after the call"):
        await lab.run(mode, stepper(lab, Broken(lab.responses())), hooks=guard)
    never_below(lab.provider, guard)
    assert guard.spent_usd >= lab.provider.bill_usd > Decimal(0)
