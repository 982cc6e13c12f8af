"""The runner in front of the SDK's own, and what is left where somebody else's is in front of it."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("agents")

from agents import (
    Agent,
    MultiProvider,
    OpenAIResponsesModel,
    RunContextWrapper,
    Runner,
    RunResultStreaming,
    function_tool,
)
from agents.models import get_default_model
from agents.run import AgentRunner, get_default_agent_runner, set_default_agent_runner

from budget_guard import Budget, LoopPolicy
from budget_guard.integrations.openai_agents import BudgetExceeded, BudgetGuard, LoopDetected
from budget_guard.testing import LocalProvider, Reply
from budget_guard_openai_agents import runner
from budget_guard_openai_agents.hooks_only import HooksOnly
from tests.builders import ZERO, session
from tests.integrations.openai_agents.support import (
    BIG,
    DelegatingModel,
    Lab,
    NamelessModel,
    agent_named,
    agree,
    by_role,
    caller_of,
    capped,
    client_of,
    lookup,
    never_below,
    run_anyhow,
    run_in,
)

modes = pytest.mark.parametrize("mode", ["run", "run_streamed"])
specs = pytest.mark.parametrize("spec", ["name", "instance"])

LOOP = by_role({"Worker": [*[caller_of("lookup", key=str(n)) for n in range(4)], Reply(text="done")]})
ENDLESS = Reply(tool_calls=caller_of("lookup").tool_calls, text="this is what I have")


def worker(lab: Lab, spec: str = "name", **options: Any) -> Agent[Any]:
    model = BIG if spec == "name" else lab.responses()
    return agent_named("Worker", model, tools=[lookup], model_settings=capped(300), **options)


@pytest.fixture
def warned() -> Iterator[list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        yield caught


class ForeignRunner(AgentRunner):
    """Somebody else's runner, which knows nothing of the one that was there before."""


class DelegatingRunner(AgentRunner):
    """Somebody else's runner, which hands over to the one that was there before."""

    def __init__(self, inner: AgentRunner) -> None:
        self.inner = inner

    async def run(self, *args: Any, **kwargs: Any) -> Any:
        return await self.inner.run(*args, **kwargs)

    def run_streamed(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner.run_streamed(*args, **kwargs)


def named(messages: list[warnings.WarningMessage]) -> list[str]:
    return [str(message.message) for message in messages if "BudgetGuard" in str(message.message)]


@modes
@specs
async def test_behind_a_foreign_runner_the_budget_still_holds_and_one_warning_says_what_does_not(
    lab: Lab, warned: list[warnings.WarningMessage], spec: str, mode: str
) -> None:
    lab.script(LOOP)
    guard = BudgetGuard(Budget("$1.00", max_requests=3))
    set_default_agent_runner(ForeignRunner())
    with pytest.raises(BudgetExceeded) as stop:
        await lab.run(mode, worker(lab, spec), hooks=guard)
    assert stop.value.dimension == "max_requests"
    with pytest.raises(BudgetExceeded):
        await lab.run(mode, worker(lab, spec), hooks=guard)
    assert len(lab.calls) == 3
    (message,) = named(warned)
    assert "run_config=guard.run_config()" in message
    agree(lab.provider, guard)
    assert guard.report().breakdown.tools.calls == 3


@modes
async def test_behind_a_foreign_runner_a_limit_in_dollars_holds(
    lab: Lab, warned: list[warnings.WarningMessage], mode: str
) -> None:
    lab.script(Reply(tool_calls=caller_of("lookup").tool_calls, output_tokens=300))
    guard = BudgetGuard(Budget("$0.02"))
    set_default_agent_runner(ForeignRunner())
    with pytest.raises(BudgetExceeded) as stop:
        await lab.run(mode, worker(lab), hooks=guard, max_turns=50)
    assert stop.value.dimension == "max_cost_usd"
    assert 0 < lab.provider.bill_usd <= guard.spent_usd <= stop.value.limit
    never_below(lab.provider, guard)


@modes
async def test_behind_a_foreign_runner_a_call_that_fails_leaves_nothing_held(
    lab: Lab, warned: list[warnings.WarningMessage], mode: str
) -> None:
    lab.script([caller_of("lookup"), Reply(status=500)])
    guard = BudgetGuard(Budget("$1.00"))
    set_default_agent_runner(ForeignRunner())

    async def run() -> None:
        with pytest.raises(Exception, match="500"):
            await lab.run(mode, worker(lab), hooks=guard)

    await run()
    gc.collect()
    never_below(lab.provider, guard)


async def test_behind_a_foreign_runner_a_call_whose_run_is_gone_is_booked_before_the_next_is_held() -> None:
    spending = session()
    hooks = HooksOnly(spending)
    agent: Any = Agent(name="Worker", model="dime")
    with pytest.warns(RuntimeWarning, match="hooks alone"):
        await hooks.reserve(RunContextWrapper(None), agent, None, [])  # and nobody keeps its context
    gc.collect()
    assert (spending.spent_usd, spending.reserved_usd) == (ZERO, Decimal("0.10"))
    kept: RunContextWrapper[Any] = RunContextWrapper(None)
    await hooks.reserve(kept, agent, None, [])
    assert (spending.spent_usd, spending.reserved_usd) == (Decimal("0.10"), Decimal("0.10"))
    assert list(hooks.calls) == [id(kept)]


async def test_behind_a_foreign_runner_an_agent_without_a_model_has_the_sdks_own() -> None:
    spending = session(Budget("$5.00", unpriced="allow"))
    hooks = HooksOnly(spending)
    with pytest.warns(RuntimeWarning, match="hooks alone"):
        await hooks.reserve(RunContextWrapper(None), Agent(name="Worker", model_settings=capped(30)), None, [])
    (decision,) = spending.decisions()
    assert decision.requested == get_default_model()


async def test_behind_a_foreign_runner_a_model_without_a_name_is_known_by_its_class(lab: Lab) -> None:
    spending = session(Budget("$5.00", unpriced="allow"))
    nameless = NamelessModel(lab.responses())
    with pytest.warns(RuntimeWarning, match="hooks alone"):
        await HooksOnly(spending).reserve(
            RunContextWrapper(None), agent_named("Worker", nameless, model_settings=capped(30)), None, []
        )
    (decision,) = spending.decisions()
    assert decision.requested == "NamelessModel"


@modes
async def test_behind_a_foreign_runner_a_call_that_failed_is_booked_when_its_context_is_used_again(
    lab: Lab, warned: list[warnings.WarningMessage], mode: str
) -> None:
    lab.script([Reply(status=500), Reply(text="done")])
    guard = BudgetGuard(Budget("$1.00"))
    set_default_agent_runner(ForeignRunner())
    context: RunContextWrapper[Any] = RunContextWrapper(None)
    with pytest.raises(Exception, match="500"):
        await lab.run(mode, worker(lab), hooks=guard, context=context)
    await lab.run(mode, worker(lab), hooks=guard, context=context)
    never_below(lab.provider, guard)
    assert guard.report().breakdown.llm.calls == 2
    assert guard.report().uncertain > 0


@modes
async def test_an_instance_that_was_guarded_once_is_not_counted_twice_behind_a_foreign_runner(
    lab: Lab, warned: list[warnings.WarningMessage], mode: str
) -> None:
    agent = agent_named("Worker", lab.responses(), model_settings=capped(300))
    guard = BudgetGuard(Budget("$1.00"))
    await lab.run(mode, agent, hooks=guard)
    set_default_agent_runner(ForeignRunner())
    await lab.run(mode, agent, hooks=guard)
    assert len(lab.calls) == 2
    agree(lab.provider, guard)


@modes
@specs
async def test_a_runner_that_hands_over_to_ours_changes_nothing(
    lab: Lab, warned: list[warnings.WarningMessage], spec: str, mode: str
) -> None:
    lab.script(LOOP)
    guard = BudgetGuard(Budget("$1.00"))
    set_default_agent_runner(DelegatingRunner(get_default_agent_runner()))
    await lab.run(mode, worker(lab, spec), hooks=guard)
    assert named(warned) == []
    agree(lab.provider, guard)


@modes
@specs
@pytest.mark.parametrize("on_exceeded", ["raise", "finalize"])
async def test_two_of_our_runners_in_one_chain_count_once(lab: Lab, on_exceeded: Any, spec: str, mode: str) -> None:
    lab.script(ENDLESS)
    budget = Budget("$1.00", max_requests=3, finalization_reserve="$0.10")
    BudgetGuard(budget)  # puts ours in front
    set_default_agent_runner(DelegatingRunner(get_default_agent_runner()))
    guard = BudgetGuard(budget, on_exceeded=on_exceeded)  # and once more
    if on_exceeded == "finalize":
        result = await lab.run(mode, worker(lab, spec), hooks=guard)
        assert result.final_output == "this is what I have"
        assert len(lab.calls) == 3
    else:
        with pytest.raises(BudgetExceeded):
            await lab.run(mode, worker(lab, spec), hooks=guard)
        assert len(lab.calls) == 2  # the third is kept for an answer
    agree(lab.provider, guard)


async def test_many_guards_put_one_runner_in_front() -> None:
    BudgetGuard(Budget("$1.00"))
    front = get_default_agent_runner()
    for _ in range(5):
        BudgetGuard(Budget("$1.00"))
    assert get_default_agent_runner() is front
    assert isinstance(front, AgentRunner)


@modes
async def test_runs_without_a_guard_go_straight_through(lab: Lab, mode: str) -> None:
    lab.script(LOOP)
    guard = BudgetGuard(Budget(max_requests=1))
    result = await lab.run(mode, worker(lab))
    assert result.final_output == "done"
    assert len(lab.calls) == 5
    assert guard.report().breakdown.llm.calls == 0
    assert guard.session.decisions() == []


def test_a_run_without_a_guard_gives_its_result_from_synchronous_code_too() -> None:
    BudgetGuard(Budget("$1.00"))  # puts ours in front
    with LocalProvider(Reply()) as provider:
        agent = agent_named("Worker", BIG)
        result = run_anyhow("run_sync", lambda client: (agent, Lab(provider, client).config()), client_of(provider))
    assert result.final_output == "ok"


def test_what_the_runner_before_ours_has_is_reached_through_it() -> None:
    before: Any = ForeignRunner()
    before.colour = "green"
    set_default_agent_runner(before)
    BudgetGuard(Budget("$1.00"))
    ours: Any = get_default_agent_runner()
    assert ours is not before and ours.colour == "green"
    with pytest.raises(AttributeError, match="shape"):
        _ = ours.shape


async def test_the_provider_of_a_streamed_run_is_closed_where_the_sdk_has_no_way_to_wait_for_it(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on, closed = asyncio.Event(), list[MultiProvider]()

    async def aclose(self: MultiProvider) -> None:
        await going_on.wait()
        closed.append(self)

    monkeypatch.setattr(MultiProvider, "aclose", aclose, raising=False)
    monkeypatch.setattr(RunResultStreaming, "_ensure_model_provider_cleanup_on_completion", None, raising=False)
    await run_in("run_streamed", agent_named("Worker", lab.responses()), "go", hooks=BudgetGuard(Budget("$1.00")))
    while not runner._closing:  # kept until it is done
        await asyncio.sleep(0)
    assert closed == []
    going_on.set()
    await lab.quiet()
    assert len(closed) == 1 and not runner._closing


@modes
@pytest.mark.parametrize("cost", ["0.01", lambda result: "0.01"], ids=["fixed", "by result"])
async def test_behind_a_foreign_runner_tools_cost_what_they_cost(
    lab: Lab, warned: list[warnings.WarningMessage], cost: Any, mode: str
) -> None:
    lab.script(LOOP)
    guard = BudgetGuard(Budget("$1.00"), tool_costs={"lookup": cost})
    set_default_agent_runner(ForeignRunner())
    await lab.run(mode, worker(lab), hooks=guard)
    assert guard.report().breakdown.tools.total == Decimal("0.04")
    assert guard.report().breakdown.tools.calls == 4
    assert guard.reserved_usd == 0


@modes
async def test_behind_a_foreign_runner_a_loop_is_looked_for_in_each_run_by_itself(
    lab: Lab, warned: list[warnings.WarningMessage], mode: str
) -> None:
    guard = BudgetGuard(Budget("$1.00", loop=LoopPolicy(max_repeats=2)))
    set_default_agent_runner(ForeignRunner())
    lab.script(by_role({"Worker": [*[caller_of("lookup")] * 2, Reply(text="done")]}))
    for _ in range(3):
        await lab.run(mode, worker(lab), hooks=guard)
    lab.script(ENDLESS)
    with pytest.raises(LoopDetected):
        await lab.run(mode, worker(lab), hooks=guard)
    assert 2 < len(lab.calls) <= 6


@modes
@specs
async def test_behind_a_foreign_runner_hooks_in_a_block_of_the_same_guard_count_once(
    lab: Lab, warned: list[warnings.WarningMessage], spec: str, mode: str
) -> None:
    lab.script(LOOP)
    guard = BudgetGuard(Budget("$1.00"))
    set_default_agent_runner(ForeignRunner())
    with guard:
        await lab.run(mode, worker(lab, spec), hooks=guard)
    agree(lab.provider, guard)


@modes
async def test_behind_a_foreign_runner_a_tool_that_raises_is_booked_and_leaves_nothing_held(
    lab: Lab, warned: list[warnings.WarningMessage], mode: str
) -> None:
    @function_tool(failure_error_function=None)
    async def fail() -> str:
        raise LookupError("no such thing")

    lab.script(caller_of("fail"))
    guard = BudgetGuard(Budget("$1.00"), tool_costs={"fail": "0.05"})
    set_default_agent_runner(ForeignRunner())

    async def run() -> None:
        with pytest.raises(Exception, match="no such thing"):
            await lab.run(mode, agent_named("Worker", BIG, tools=[fail]), hooks=guard)

    await run()
    await lab.quiet()
    gc.collect()
    assert guard.reserved_usd == 0
    assert guard.report().breakdown.tools.total == Decimal("0.05")


@modes
async def test_a_provider_that_is_made_for_the_run_is_closed_and_one_that_is_given_is_not(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    closed: list[Any] = []

    async def aclose(self: MultiProvider) -> None:
        closed.append(self)

    monkeypatch.setattr(MultiProvider, "aclose", aclose, raising=False)  # older SDKs lack it
    agent = agent_named("Worker", lab.responses())
    guard = BudgetGuard(Budget("$1.00"))
    await run_in(mode, agent, "go", hooks=guard)  # no run_config
    await lab.quiet()
    assert len(closed) == 1
    await lab.run(mode, agent, run_config=lab.config(model_provider=MultiProvider()), hooks=guard)
    await lab.quiet()
    assert len(closed) == 1
    agree(lab.provider, guard)


@pytest.mark.skipif(
    not hasattr(RunResultStreaming, "_ensure_model_provider_cleanup_on_completion"),
    reason="the SDK has no way to have a result wait",
)
async def test_a_streamed_run_is_over_only_when_its_provider_is_closed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[MultiProvider] = []

    async def aclose(self: MultiProvider) -> None:
        for _ in range(50):
            await asyncio.sleep(0)
        closed.append(self)

    monkeypatch.setattr(MultiProvider, "aclose", aclose)
    await run_in("run_streamed", agent_named("Worker", lab.responses()), "go", hooks=BudgetGuard(Budget("$1.00")))
    assert len(closed) == 1


@pytest.mark.parametrize("mode", ["run", "run_sync", "run_streamed"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_provider_that_is_made_for_the_run_is_closed_on_its_loop_and_a_failure_is_only_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, mode: str, fails: bool
) -> None:
    closed: list[asyncio.AbstractEventLoop] = []
    ran: list[asyncio.AbstractEventLoop] = []

    async def aclose(self: MultiProvider) -> None:
        await asyncio.sleep(0)
        closed.append(asyncio.get_running_loop())
        if fails:
            raise RuntimeError("sk-secret")

    monkeypatch.setattr(MultiProvider, "aclose", aclose, raising=False)
    with LocalProvider(Reply()) as provider:
        client = client_of(provider)

        class Model(DelegatingModel):
            async def get_response(self, *args: Any, **kwargs: Any) -> Any:
                ran.append(asyncio.get_running_loop())
                return await super().get_response(*args, **kwargs)

            def stream_response(self, *args: Any, **kwargs: Any) -> Any:
                ran.append(asyncio.get_running_loop())
                return super().stream_response(*args, **kwargs)

        inner = OpenAIResponsesModel(BIG, openai_client=client)
        monkeypatch.setattr(MultiProvider, "get_model", lambda self, name: Model(inner))
        guard = BudgetGuard(Budget("$1.00"))
        result = run_anyhow(mode, lambda _: (agent_named("Worker", BIG), None), client, hooks=guard)  # type: ignore[arg-type,return-value]  # no run config
        assert result.final_output == "ok"
        agree(provider, guard)
    assert closed == ran
    assert ("could not be closed" in caplog.text) is fails
    assert "sk-secret" not in caplog.text


async def test_a_run_that_is_cancelled_while_its_provider_is_closed_closes_it_and_is_cancelled(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing, closed = asyncio.Event(), asyncio.Event()

    async def aclose(self: MultiProvider) -> None:
        closing.set()
        for _ in range(5):
            await asyncio.sleep(0)
        closed.set()

    monkeypatch.setattr(MultiProvider, "aclose", aclose, raising=False)
    guard = BudgetGuard(Budget("$1.00"))
    run = asyncio.ensure_future(Runner.run(agent_named("Worker", lab.responses()), "go", hooks=guard))
    await closing.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert closed.is_set()
    agree(lab.provider, guard)
