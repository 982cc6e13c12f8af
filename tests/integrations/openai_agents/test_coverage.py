"""Every call of every kind of run is seen once, and costs what the provider bills."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

import pytest

pytest.importorskip("agents")

from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrail,
    ModelSettings,
    ModelTracing,
    OpenAIChatCompletionsModel,
    OpenAIProvider,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    function_tool,
    set_default_openai_client,
)
from agents.models import _openai_shared
from openai import AsyncOpenAI

from budget_guard import Budget
from budget_guard.integrations.openai_agents import BudgetExceeded, BudgetGuard
from budget_guard.testing import LocalProvider, ProviderRequest, Reply
from tests.integrations.openai_agents.support import (
    BIG,
    NAMELESS_PRICE,
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

MODES = ["run", "run_sync", "run_streamed"]
HELPER = "gpt-4.1"

MakeModel: TypeAlias = Callable[[str], Any]


@dataclass
class Setting:
    """How the models of one test are made."""

    kind: str
    client: AsyncOpenAI
    provider: LocalProvider
    settings: ModelSettings

    def model(self, name: str) -> Any:
        made: dict[str, Callable[[], Any]] = {
            "name": lambda: name,
            "name, default client": lambda: name,
            "responses": lambda: OpenAIResponsesModel(name, openai_client=self.client),
            "chat": lambda: OpenAIChatCompletionsModel(name, openai_client=self.client),
            "custom": lambda: DelegatingModel(OpenAIResponsesModel(name, openai_client=self.client), name),
            # its class stands for one price only, so it takes the part of the big model alone
            "nameless": lambda: NamelessModel(OpenAIChatCompletionsModel(BIG, openai_client=self.client)),
        }
        return made[self.kind]()

    def config(self) -> RunConfig:
        if self.kind == "name":
            return RunConfig(model_provider=OpenAIProvider(openai_client=self.client), tracing_disabled=True)
        return RunConfig(tracing_disabled=True)

    def agent(self, name: str, model: str = BIG, **options: Any) -> Agent[Any]:
        return agent_named(name, self.model(model), model_settings=self.settings, **options)


KINDS = ["name", "name, default client", "responses", "chat", "custom", "nameless"]


def tool_loop(setting: Setting) -> Agent[Any]:
    return setting.agent("Worker", tools=[lookup])


def handoff(setting: Setting) -> Agent[Any]:
    return setting.agent("Triage", handoffs=[setting.agent("Helper", HELPER)])


def sub_agents(setting: Setting) -> Agent[Any]:
    helper = setting.agent("Helper", HELPER)
    return setting.agent("Boss", tools=[helper.as_tool("ask", "Ask the helper.")])


def guardrail_agent(setting: Setting) -> Agent[Any]:
    async def check(context: Any, agent: Agent[Any], input: Any) -> GuardrailFunctionOutput:
        judged = await Runner.run(setting.agent("Helper", HELPER), input, run_config=setting.config())
        return GuardrailFunctionOutput(judged.final_output, tripwire_triggered=False)

    return setting.agent("Worker", tools=[lookup], input_guardrails=[InputGuardrail(check)])


def nested_run(setting: Setting) -> Agent[Any]:
    @function_tool
    async def delegate() -> str:
        result = await Runner.run(setting.agent("Helper", HELPER), "go", run_config=setting.config())
        return str(result.final_output)

    return setting.agent("Delegator", tools=[delegate])


def nested_streamed_run(setting: Setting) -> Agent[Any]:
    @function_tool
    async def delegate() -> str:
        result = await run_in("run_streamed", setting.agent("Helper", HELPER), "go", run_config=setting.config())
        return str(result.final_output)

    return setting.agent("Delegator", tools=[delegate])


def nested_run_in_a_thread(setting: Setting) -> Agent[Any]:
    @function_tool
    def delegate() -> str:
        own = client_of(setting.provider)  # connections belong to one event loop
        kind = "name" if setting.kind == "name, default client" else setting.kind
        there = Setting(kind, own, setting.provider, setting.settings)
        result = run_anyhow("run_sync", lambda _: (there.agent("Helper", HELPER), there.config()), own)
        return str(result.final_output)

    return setting.agent("Delegator", tools=[delegate])


SCENARIOS: dict[Callable[[Setting], Agent[Any]], int] = {
    tool_loop: 3,
    handoff: 2,
    sub_agents: 12,
    guardrail_agent: 4,
    nested_run: 3,
    nested_streamed_run: 3,
    nested_run_in_a_thread: 3,
}
"""Each with the calls it takes."""

SCRIPT = by_role(
    {
        "Worker": [
            caller_of("lookup", key="a"),
            caller_of("lookup", key="b"),
            Reply(text="done", output_tokens=1_000, reasoning_tokens=30),
        ],
        "Triage": caller_of("transfer_to_helper"),
        "Boss": [caller_of("ask", times=10, input="help"), Reply(text="done")],
        "Delegator": [caller_of("delegate"), Reply(text="done")],
        "Helper": Reply(text="helped", output_tokens=1_000, reasoning_tokens=30),
    }
)


def answer(request: ProviderRequest) -> Reply:
    reply = SCRIPT(request)
    assert isinstance(reply, Reply)
    return reply


@pytest.fixture(params=KINDS)
def setting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setting]:
    with LocalProvider(SCRIPT) as provider:
        client = client_of(provider)
        if request.param == "name, default client":
            monkeypatch.setattr(_openai_shared, "_default_openai_client", None)  # put back afterwards
            set_default_openai_client(client)
        yield Setting(request.param, client, provider, capped(1_000, include_usage=True))


def guard_of(budget: Budget, **options: Any) -> BudgetGuard:
    return BudgetGuard(budget, pricing=NAMELESS_PRICE, **options)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
@pytest.mark.parametrize("mode", MODES)
def test_every_call_is_seen_once_and_costs_what_is_billed(
    mode: str, scenario: Callable[[Setting], Agent[Any]], setting: Setting
) -> None:
    guard = guard_of(Budget("$50.00"))
    run_anyhow(mode, lambda _: (scenario(setting), setting.config()), setting.client, hooks=guard)
    assert len(setting.provider.calls) == SCENARIOS[scenario]
    agree(setting.provider, guard)
    assert guard.session.terminated_by is None


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
@pytest.mark.parametrize("mode", ["run", "run_streamed"])
def test_the_cap_holds_wherever_the_call_comes_from(
    mode: str, scenario: Callable[[Setting], Agent[Any]], setting: Setting
) -> None:
    setting.provider.reset(lambda request: dataclasses.replace(answer(request), output_tokens=1_000))
    # an answer is $0.010, the helper's $0.008: the first call fits, and a few sub-agents where there are many
    cap = Decimal("0.050") if scenario is sub_agents else Decimal("0.015")
    guard = guard_of(Budget(cap))
    with pytest.raises(BudgetExceeded) as stop:
        run_anyhow(mode, lambda _: (scenario(setting), setting.config()), setting.client, hooks=guard)
    assert stop.value.dimension == "max_cost_usd"
    never_below(setting.provider, guard)
    assert guard.spent_usd <= cap
    assert len(setting.provider.calls) < SCENARIOS[scenario]
    # the two calls of the guardrail's run are made at once, and the stop of one cuts the other off
    assert setting.provider.calls or scenario is guardrail_agent


@pytest.mark.parametrize("way", ["thread", "pool", "executor", "worker"])
async def test_a_tool_whose_thread_or_worker_loses_the_run_is_told_of_once(lab: Lab, way: str) -> None:
    inner = agent_named("Inner", BIG, model_settings=capped(100))
    queue: asyncio.Queue[asyncio.Future[str]] = asyncio.Queue()

    async def serve() -> None:
        while True:
            asked = await queue.get()
            await lab.run("run", inner)
            asked.set_result("done")

    def in_a_thread() -> None:
        async def one() -> None:
            with LocalProvider(Reply()) as provider:
                async with client_of(provider) as client:
                    model = OpenAIResponsesModel(BIG, openai_client=client)
                    with BudgetGuard(Budget("$1")):
                        await ask(model)  # it is marked from now on
                    await ask(model)

        async def ask(model: Any) -> None:
            arguments: Any = (None, "go", capped(100), [], None, [], ModelTracing.DISABLED)
            await model.get_response(*arguments, previous_response_id=None, conversation_id=None, prompt=None)

        asyncio.run(one())

    @function_tool
    async def work() -> str:
        for _ in range(2):
            if way == "worker":
                asked: asyncio.Future[str] = asyncio.get_running_loop().create_future()
                queue.put_nowait(asked)
                await asked
            elif way == "thread":
                thread = threading.Thread(target=in_a_thread)
                thread.start()
                while thread.is_alive():
                    await asyncio.sleep(0)
            else:
                with ThreadPoolExecutor(1) as pool:
                    if way == "pool":
                        await asyncio.wrap_future(pool.submit(in_a_thread))
                    else:
                        await asyncio.get_running_loop().run_in_executor(pool, in_a_thread)
        return "worked"

    worker = asyncio.ensure_future(serve())
    lab.script(by_role({"Outer": [caller_of("work"), Reply(text="all")], "Inner": Reply(text="x")}))
    guard = BudgetGuard(Budget("$1.00"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await lab.run("run", agent_named("Outer", lab.chat(), tools=[work]), hooks=guard)
    worker.cancel()
    told = [str(each.message) for each in caught if "outside of every guarded run" in str(each.message)]
    assert len(told) == 1
    assert "'work'" in told[0]
    assert "copy_context" in told[0]


async def test_a_thread_of_a_tool_that_runs_an_agent_with_a_client_of_its_own_is_told_of(lab: Lab) -> None:
    def in_a_thread() -> None:
        async def one() -> None:
            async with client_of(lab.provider) as client:
                model = OpenAIResponsesModel(BIG, openai_client=client)
                await lab.run("run", agent_named("Inner", model, model_settings=capped(100)))

        asyncio.run(one())

    @function_tool
    async def work() -> str:
        await asyncio.get_running_loop().run_in_executor(None, in_a_thread)
        return "worked"

    lab.script(by_role({"Outer": [caller_of("work"), Reply(text="all")], "Inner": Reply(text="x")}))
    guard = BudgetGuard(Budget("$1.00"))
    with pytest.warns(RuntimeWarning, match="outside of every guarded run while the tool 'work'"):
        await lab.run("run", agent_named("Outer", lab.chat(), tools=[work]), hooks=guard)


async def test_a_run_without_a_guard_and_with_a_client_of_its_own_is_not_told_of_while_a_tool_runs(lab: Lab) -> None:
    client = client_of(lab.provider)
    model = OpenAIResponsesModel(BIG, openai_client=client)
    begun, go_on = asyncio.Event(), asyncio.Event()

    @function_tool
    async def work() -> str:
        begun.set()
        await go_on.wait()
        return "worked"

    async def beside() -> None:
        await begun.wait()
        await lab.run("run", agent_named("Inner", model, model_settings=capped(100)))
        go_on.set()

    lab.script(by_role({"Outer": [caller_of("work"), Reply(text="all")], "Inner": Reply(text="x")}))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        outer = agent_named("Outer", lab.chat(), tools=[work])
        await asyncio.gather(lab.run("run", outer, hooks=BudgetGuard(Budget("$1.00"))), beside())
    await client.close()


async def test_a_run_without_a_guard_beside_a_guarded_one_is_not_told_of(lab: Lab) -> None:
    agent = agent_named("Worker", lab.chat())
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        await asyncio.gather(
            lab.run("run", agent, hooks=BudgetGuard(Budget("$1.00"))),
            lab.run("run", agent),
        )
