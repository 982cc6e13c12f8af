"""The cheaper model takes the place of the dear one, and is sent only what it understands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("agents")

from agents import Agent, ModelSettings
from openai.types.shared import Reasoning

from budget_guard import Budget, DowngradePolicy
from budget_guard.integrations.openai_agents import (
    BudgetExceeded,
    BudgetGuard,
    CompositeRunHooks,
)
from budget_guard.testing import Reply, ServedCall
from tests.integrations.openai_agents.support import (
    BIG,
    SMALL,
    DelegatingModel,
    Lab,
    agent_named,
    agree,
    by_role,
    caller_of,
    lookup,
)

modes = pytest.mark.parametrize("mode", ["run", "run_streamed"])
ENDPOINTS: list[Callable[[Lab, str], Any]] = [lambda lab, name: lab.responses(name), lambda lab, name: lab.chat(name)]
endpoints = pytest.mark.parametrize("model_of", ENDPOINTS, ids=["responses", "chat"])

THINKING = by_role(
    {"Worker": [Reply(tool_calls=caller_of("lookup").tool_calls, reasoning_tokens=50), Reply(text="done")]}
)
SOON = 0.000_001


def soon(to: Any, budget: Any = "$1.00", **options: Any) -> BudgetGuard:
    """A guard that switches after the first call."""
    return BudgetGuard(Budget(budget, downgrade=DowngradePolicy(to=to, at=SOON), **options))


def worker(model: Any, **settings: Any) -> Agent[Any]:
    return agent_named("Worker", model, tools=[lookup], model_settings=ModelSettings(**{"max_tokens": 300, **settings}))


def item_types(call: ServedCall) -> list[str]:
    return [item.get("type", item.get("role")) for item in call.messages]


@modes
@endpoints
async def test_the_cheaper_model_is_called_once_the_threshold_is_passed_and_both_are_priced(
    lab: Lab, mode: str, model_of: Callable[[Lab, str], Any]
) -> None:
    lab.script(by_role({"Worker": [caller_of("lookup")] * 3 + [Reply(text="done")]}))
    guard = soon(SMALL)
    model = model_of(lab, BIG)
    result = await lab.run(mode, worker(model), hooks=guard)
    assert result.final_output == "done"
    assert [call.model for call in lab.calls] == [BIG, SMALL, SMALL, SMALL]
    assert model.model == BIG
    agree(lab.provider, guard)
    decided = [decision.action for decision in guard.session.decisions() if decision.requested == BIG]
    assert decided == ["allow", "downgrade", "downgrade", "downgrade"]


@modes
@pytest.mark.parametrize("use_responses", [True, False])
async def test_settings_that_came_with_the_dear_model_are_not_sent_to_the_cheap_one(
    lab: Lab, mode: str, use_responses: bool
) -> None:
    lab.script(THINKING)
    guard = soon(SMALL)
    agent: Agent[Any] = Agent(name="Worker", instructions="I am Worker.", model="gpt-5", tools=[lookup])
    agent.model_settings = agent.model_settings.resolve(
        ModelSettings(max_tokens=300, reasoning=Reasoning(effort="low"), verbosity="low")
    )
    await lab.run(mode, agent, hooks=guard, run_config=lab.config(use_responses=use_responses))
    dear, cheap = lab.calls
    assert (dear.model, dear.reasoning_effort, dear.verbosity) == ("gpt-5", "low", "low")
    assert (cheap.model, cheap.reasoning_effort, cheap.verbosity) == (SMALL, None, None)
    agree(lab.provider, guard)


@modes
async def test_settings_of_the_users_own_stay_for_a_target_that_understands_them(lab: Lab, mode: str) -> None:
    lab.script(THINKING)
    guard = soon("gpt-5-mini")
    agent = worker(lab.responses("gpt-5"), reasoning=Reasoning(effort="high"), verbosity="low")
    await lab.run(mode, agent, hooks=guard)
    cheap = lab.calls[1]
    assert (cheap.model, cheap.reasoning_effort, cheap.verbosity) == ("gpt-5-mini", "high", "low")
    agree(lab.provider, guard)


@modes
async def test_a_target_that_reasons_is_not_sent_a_temperature(lab: Lab, mode: str) -> None:
    lab.script(THINKING)
    guard = soon("gpt-5-mini")
    await lab.run(mode, worker(lab.chat(BIG), temperature=0.2, top_p=0.5), hooks=guard)
    dear, cheap = lab.calls
    assert (dear.temperature, cheap.temperature) == (0.2, None)
    assert "top_p" not in cheap.body
    agree(lab.provider, guard)


@modes
async def test_a_target_that_reasons_is_sent_its_cap_under_the_name_it_takes_on_chat(lab: Lab, mode: str) -> None:
    lab.script(THINKING)
    guard = soon("gpt-5-mini")
    await lab.run(mode, worker(lab.chat(BIG), max_tokens=300), hooks=guard)
    dear, cheap = lab.calls
    assert dear.body["max_tokens"] == 300
    assert "max_tokens" not in cheap.body
    assert cheap.body["max_completion_tokens"] == 300
    agree(lab.provider, guard)


@modes
async def test_reasoning_and_the_ids_after_it_are_not_sent_to_another_model(lab: Lab, mode: str) -> None:
    lab.script(THINKING)
    guard = soon(SMALL)
    await lab.run(mode, worker(lab.responses("gpt-5")), hooks=guard)
    cheap = lab.calls[1]
    assert item_types(cheap) == ["user", "function_call", "function_call_output"]
    assert all("id" not in item for item in cheap.messages)
    agree(lab.provider, guard)


async def test_reasoning_is_kept_for_the_model_that_it_is_from(lab: Lab) -> None:
    lab.script(THINKING)
    guard = BudgetGuard(Budget("$1.00"))
    result = await lab.run("run", worker(lab.responses("gpt-5")), hooks=guard)
    assert item_types(lab.calls[1]) == ["user", "reasoning", "function_call", "function_call_output"]
    assert any(item.get("type") == "reasoning" for item in result.to_input_list())
    agree(lab.provider, guard)


async def test_the_history_of_the_run_keeps_its_reasoning_after_a_downgrade(lab: Lab) -> None:
    lab.script(THINKING)
    result = await lab.run("run", worker(lab.responses("gpt-5")), hooks=soon(SMALL))
    assert any(item.get("type") == "reasoning" for item in result.to_input_list())


@modes
async def test_a_ladder_goes_further_down_where_the_first_rung_does_not_fit(lab: Lab, mode: str) -> None:
    ladder = {"gpt-5": "gpt-5-mini", "gpt-5-mini": "gpt-5-nano"}
    lab.script({"gpt-5": caller_of("lookup"), "*": Reply(text="done")})
    guard = soon(ladder)
    await lab.run(mode, worker(lab.responses("gpt-5")), hooks=guard)
    assert [call.model for call in lab.calls] == ["gpt-5", "gpt-5-mini"]

    dear = Reply(tool_calls=caller_of("lookup").tool_calls, output_tokens=1_000)
    lab.script({"gpt-5": dear, "*": Reply(text="done")})
    guard = soon(ladder, "$0.0123")  # $0.0102 is spent then, and the rest does not pay for gpt-5-mini
    await lab.run(mode, worker(lab.responses("gpt-5"), max_tokens=1_000), hooks=guard)
    assert [call.model for call in lab.calls] == ["gpt-5", "gpt-5-nano"]
    agree(lab.provider, guard)


@modes
async def test_a_model_that_the_mapping_does_not_name_is_not_replaced(lab: Lab, mode: str) -> None:
    lab.script(by_role({"Worker": [caller_of("lookup"), Reply(text="done")]}))
    guard = soon({"gpt-5": "gpt-5-mini"})
    await lab.run(mode, worker(lab.responses(BIG)), hooks=guard)
    assert [call.model for call in lab.calls] == [BIG, BIG]
    agree(lab.provider, guard)


@modes
async def test_a_run_that_downgrades_still_stops_at_its_limit(lab: Lab, mode: str) -> None:
    lab.script(Reply(tool_calls=caller_of("lookup").tool_calls, output_tokens=300))
    guard = BudgetGuard(Budget("$0.012"), downgrade_to=SMALL, downgrade_at=0.5)
    with pytest.raises(BudgetExceeded):
        await lab.run(mode, worker(lab.responses()), hooks=guard, max_turns=500)
    models = [call.model for call in lab.calls]
    assert models == sorted(models)  # BIG, then SMALL
    assert set(models) == {BIG, SMALL}
    agree(lab.provider, guard)
    assert guard.spent_usd <= guard.budget.max_cost_usd  # type: ignore[operator]  # it is set


@modes
async def test_a_custom_model_is_downgraded_by_its_name(lab: Lab, mode: str) -> None:
    class Own(DelegatingModel):
        async def get_response(self, *args: Any, **kwargs: Any) -> Any:
            return await lab.responses(self.model).get_response(*args, **kwargs)

        def stream_response(self, *args: Any, **kwargs: Any) -> Any:
            return lab.responses(self.model).stream_response(*args, **kwargs)

    lab.script(THINKING)
    model = Own(lab.responses())
    guard = soon(SMALL)
    await lab.run(mode, worker(model), hooks=guard)
    assert [call.model for call in lab.calls] == [BIG, SMALL]
    assert model.model == BIG
    agree(lab.provider, guard)


@modes
@pytest.mark.parametrize("first", [True, False])
async def test_where_one_of_two_guards_downgrades_both_book_the_cheap_model(lab: Lab, first: bool, mode: str) -> None:
    lab.script(THINKING)
    guards = [soon(SMALL), BudgetGuard(Budget("$1.00"))]
    hooks = CompositeRunHooks(*(guards if first else reversed(guards)))
    await lab.run(mode, worker(lab.responses("gpt-5")), hooks=hooks)
    assert [call.model for call in lab.calls] == ["gpt-5", SMALL]
    for guard in guards:
        agree(lab.provider, guard)
        assert set(guard.report().breakdown.llm.by_model) == {"gpt-5", SMALL}
