"""Every call of every kind of run is seen once, and costs what the provider bills."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

import pytest

pytest.importorskip("agents")

from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrail,
    Model,
    ModelProvider,
    ModelSettings,
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
    NANO,
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


class Shelf(ModelProvider):
    """A user's own provider, which keeps one model and gives it out under any name."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def get_model(self, model_name: str | None) -> Model:
        return self.model


@pytest.mark.parametrize("mode", ["run", "run_streamed"])
async def test_a_model_that_a_provider_gives_out_is_priced_by_the_name_it_was_asked_for(lab: Lab, mode: str) -> None:
    guard = BudgetGuard(Budget("$1.00"))
    config = lab.config(model_provider=Shelf(NamelessModel(lab.responses(BIG))))
    await lab.run(mode, agent_named("Worker", BIG), hooks=guard, run_config=config)
    agree(lab.provider, guard)
    assert list(guard.report().breakdown.llm.by_model) == [BIG]


async def test_one_model_that_is_given_out_under_two_names_has_two_prices(lab: Lab) -> None:
    class Echo(NamelessModel):
        """Calls whatever it was asked for, by the note in its settings."""

        async def get_response(self, *args: Any, **kwargs: Any) -> Any:
            name = kwargs["model_settings"].metadata["model"]
            return await lab.responses(name).get_response(*args, **kwargs)

    def agent(name: str, **options: Any) -> Agent[Any]:
        return agent_named(name, name, model_settings=ModelSettings(metadata={"model": name}), **options)

    helper = agent("gpt-4.1-mini")
    boss = agent(BIG, tools=[helper.as_tool("ask", "Ask the helper.")])
    lab.script({BIG: [caller_of("ask", times=3, input="help"), Reply(text="done")], "gpt-4.1-mini": Reply()})
    guard = BudgetGuard(Budget("$1.00"))
    await lab.run("run", boss, hooks=guard, run_config=lab.config(model_provider=Shelf(Echo(lab.responses()))))
    agree(lab.provider, guard)
    assert {name: spend.calls for name, spend in guard.report().breakdown.llm.by_model.items()} == {
        BIG: 2,
        "gpt-4.1-mini": 3,
    }


@pytest.mark.parametrize("mode", ["run", "run_streamed"])
async def test_a_model_around_a_model_that_is_guarded_too_counts_once(lab: Lab, mode: str) -> None:
    inner = lab.responses()
    guard = BudgetGuard(Budget("$1.00"))
    await lab.run(mode, agent_named("Worker", inner), hooks=guard)
    await lab.run(mode, agent_named("Worker", DelegatingModel(inner)), hooks=guard)
    assert len(lab.calls) == 2
    agree(lab.provider, guard)


@pytest.mark.parametrize("mode", ["run", "run_streamed"])
async def test_cached_and_reasoning_tokens_and_the_model_that_answered_are_priced_as_billed(
    lab: Lab, mode: str
) -> None:
    reply = Reply(input_tokens=250, cached_tokens=128, output_tokens=90, reasoning_tokens=60, model="gpt-5-2025-08-07")
    lab.script(reply)
    guard = BudgetGuard(Budget("$1.00"))
    for model in (lab.responses("gpt-5"), lab.chat("gpt-5")):
        await lab.run(mode, agent_named("Worker", model), "x" * 200, hooks=guard)
    agree(lab.provider, guard)
    assert guard.spent_usd == 2 * Decimal("0.0010685")


async def test_spend_is_attributed_to_the_agents_that_caused_it(lab: Lab) -> None:
    helper = agent_named("Helper", HELPER)
    boss = agent_named("Boss", BIG, tools=[helper.as_tool("ask", "Ask the helper.")])
    lab.script(SCRIPT)
    guard = BudgetGuard(Budget("$1.00"))
    await lab.run("run", boss, hooks=guard)
    by_agent = guard.report().by_agent
    assert by_agent["Helper"].calls == 10
    assert by_agent["Helper"].total == sum(call.cost_nano or 0 for call in lab.calls if call.model != BIG) / NANO
    assert by_agent["Boss"].total == sum(call.cost_nano or 0 for call in lab.calls if call.model == BIG) / NANO
