"""What one run starts at once runs side by side, on a budget that is small for the model's longest answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("agents")

from agents import Agent, GuardrailFunctionOutput, InputGuardrail, RunConfig, Runner, function_tool

from budget_guard import Budget
from budget_guard.integrations.openai_agents import BudgetGuard
from budget_guard.testing import Reply, ToolCall
from tests.integrations.openai_agents.support import Lab, agent_named, agree, by_role

TEN = range(10)
ANSWER = Reply(text="done", output_tokens=500, delay_s=0.05)
"""GPT-5 may write 128,000 tokens, which is $1.28."""


async def run_in_time(lab: Lab, agent: Agent[Any], guard: BudgetGuard) -> Any:
    return await asyncio.wait_for(lab.run("run", agent, hooks=guard), timeout=25)


async def test_ten_guardrails_with_models_of_their_own(lab: Lab) -> None:
    lab.script(ANSWER)
    guard = BudgetGuard(Budget("$1.00"))

    def guardrail(number: int) -> InputGuardrail[Any]:
        checker = agent_named(f"Checker{number}", lab.responses("gpt-5"))

        async def check(context: Any, agent: Any, input: Any) -> GuardrailFunctionOutput:
            await Runner.run(checker, "check", run_config=RunConfig(tracing_disabled=True))
            return GuardrailFunctionOutput(None, tripwire_triggered=False)

        return InputGuardrail(check)

    agent = agent_named("Worker", lab.responses("gpt-5"), input_guardrails=[guardrail(n) for n in TEN])
    await run_in_time(lab, agent, guard)
    assert len(lab.calls) == 11
    agree(lab.provider, guard)


async def test_ten_sub_agents_as_tools(lab: Lab) -> None:
    asks = Reply(tool_calls=[ToolCall(f"ask_{n}", {"input": "go"}) for n in TEN], output_tokens=500)
    workers = [agent_named(f"Worker{n}", lab.responses("gpt-5")) for n in TEN]
    lab.script(by_role({"Boss": [asks, *[ANSWER] * 10], **{worker.name: ANSWER for worker in workers}}))
    tools = [worker.as_tool(f"ask_{n}", "asks") for n, worker in enumerate(workers)]
    guard = BudgetGuard(Budget("$1.00"))
    await run_in_time(lab, agent_named("Boss", lab.responses("gpt-5"), tools=tools), guard)
    assert len(lab.calls) == 12
    agree(lab.provider, guard)


async def test_ten_tools_that_call_models(lab: Lab) -> None:
    asks = Reply(tool_calls=[ToolCall(f"ask_{n}", {}) for n in TEN], output_tokens=500)
    workers = [agent_named(f"Worker{n}", lab.responses("gpt-5")) for n in TEN]
    lab.script(by_role({"Boss": [asks, *[ANSWER] * 10], **{worker.name: ANSWER for worker in workers}}))

    def tool_of(number: int) -> Any:
        async def ask() -> str:
            result = await Runner.run(workers[number], "go", run_config=RunConfig(tracing_disabled=True))
            return str(result.final_output)

        return function_tool(ask, name_override=f"ask_{number}")

    guard = BudgetGuard(Budget("$1.00"))
    await run_in_time(lab, agent_named("Boss", lab.responses("gpt-5"), tools=[tool_of(n) for n in TEN]), guard)
    assert len(lab.calls) == 12
    agree(lab.provider, guard)
