"""What a call is priced by: the name of the model, and what the provider says it used."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("agents")

from agents import Agent, Model, ModelProvider, ModelSettings
from agents.items import TResponseStreamEvent

from budget_guard import Budget, ModelCall, Usage
from budget_guard.estimate.prompt import weigh
from budget_guard.integrations.openai_agents import BudgetGuard
from budget_guard.testing import Reply
from tests.integrations.openai_agents.support import (
    BIG,
    NANO,
    SMALL,
    DelegatingModel,
    Lab,
    NamelessModel,
    agent_named,
    agree,
    by_role,
    caller_of,
)

SUB_AGENTS = by_role(
    {"Boss": [caller_of("ask", times=10, input="help"), Reply(text="done")], "Helper": Reply(text="helped")}
)


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


class GeneratingModel(DelegatingModel):
    """One that calls the other when its first event is asked for."""

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[TResponseStreamEvent]:
        async for event in super().stream_response(*args, **kwargs):
            yield event


@pytest.mark.parametrize("around", [DelegatingModel, GeneratingModel])
@pytest.mark.parametrize("mode", ["run", "run_streamed"])
async def test_a_model_around_a_model_that_is_guarded_too_counts_once(
    lab: Lab, mode: str, around: type[DelegatingModel]
) -> None:
    inner = lab.responses()
    guard = BudgetGuard(Budget("$1.00"))
    await lab.run(mode, agent_named("Worker", inner), hooks=guard)
    await lab.run(mode, agent_named("Worker", around(inner)), hooks=guard)
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
    helper = agent_named("Helper", SMALL)
    boss = agent_named("Boss", BIG, tools=[helper.as_tool("ask", "Ask the helper.")])
    lab.script(SUB_AGENTS)
    guard = BudgetGuard(Budget("$1.00"))
    await lab.run("run", boss, hooks=guard)
    by_agent = guard.report().by_agent
    assert by_agent["Helper"].calls == 10
    assert by_agent["Helper"].total == sum(call.cost_nano or 0 for call in lab.calls if call.model != BIG) / NANO
    assert by_agent["Boss"].total == sum(call.cost_nano or 0 for call in lab.calls if call.model == BIG) / NANO


def test_a_guard_and_its_forks_take_prices_per_million() -> None:
    guard = BudgetGuard(Budget("$1.00"), per_million={"my-model": (2.5, 10)})

    for each in (guard, guard.fork()):
        call = ModelCall("my-model", weigh(messages=["x" * 5_000]), max_output_tokens=200)
        each.session.authorize(call).require().commit(Usage(input=1_000, output=100))
        assert each.spent_usd == Decimal("0.0035")
