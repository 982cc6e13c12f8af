"""Guardrails that trip: what they cut off, or throw away, is paid for."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("agents")

from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrail,
    InputGuardrailTripwireTriggered,
    OutputGuardrail,
    OutputGuardrailTripwireTriggered,
)

from budget_guard import Budget
from budget_guard.integrations.openai_agents import BudgetGuard
from tests.integrations.openai_agents.support import BIG, Lab, agent_named, agree, capped, never_below

modes = pytest.mark.parametrize("mode", ["run", "run_streamed"])


def worker(**options: Any) -> Agent[Any]:
    return agent_named("Worker", BIG, model_settings=capped(500), **options)


@modes
async def test_a_guardrail_that_trips_during_a_paid_call_is_accounted_for(lab: Lab, mode: str) -> None:
    async def trip(context: Any, agent: Agent[Any], input: Any) -> GuardrailFunctionOutput:
        await lab.provider.await_calls(1)  # the agent's own call is at the provider
        if mode == "run_streamed":
            lab.provider.resume()  # there the SDK looks at guardrails between the events of the model only
        return GuardrailFunctionOutput(None, tripwire_triggered=True)

    guard = BudgetGuard(Budget("$1.00"))
    agent = worker(input_guardrails=[InputGuardrail(trip)])
    lab.provider.pause()
    with pytest.raises(InputGuardrailTripwireTriggered):
        await lab.run(mode, agent, hooks=guard)
    lab.provider.resume()
    await lab.quiet()
    assert len(lab.calls) == 1
    never_below(lab.provider, guard)
    assert guard.spent_usd > 0


@modes
async def test_a_guardrail_that_trips_before_any_call_costs_nothing(lab: Lab, mode: str) -> None:
    async def trip(context: Any, agent: Agent[Any], input: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(None, tripwire_triggered=True)

    guard = BudgetGuard(Budget("$1.00"))
    first = InputGuardrail(trip, run_in_parallel=False)
    with pytest.raises(InputGuardrailTripwireTriggered):
        await lab.run(mode, worker(input_guardrails=[first]), hooks=guard)
    assert lab.calls == []
    assert guard.spent_usd == guard.reserved_usd == 0


@modes
async def test_an_answer_that_an_output_guardrail_rejects_is_paid_for(lab: Lab, mode: str) -> None:
    async def trip(context: Any, agent: Agent[Any], output: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(None, tripwire_triggered=True)

    guard = BudgetGuard(Budget("$1.00"))
    agent = worker(output_guardrails=[OutputGuardrail(trip)])
    with pytest.raises(OutputGuardrailTripwireTriggered):
        await lab.run(mode, agent, hooks=guard)
    agree(lab.provider, guard)
    assert guard.spent_usd > 0
