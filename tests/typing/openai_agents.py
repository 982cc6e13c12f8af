"""What type checkers make of the OpenAI Agents SDK adapter. Checked, never run."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from agents import Agent, AgentsException, RunConfig, RunHooks, Runner, RunResult, TResponseInputItem
from typing_extensions import assert_type

from budget_guard import Budget, BudgetError, BudgetReport, DowngradePolicy, Session
from budget_guard import BudgetExceeded as CoreBudgetExceeded
from budget_guard.integrations.openai_agents import BudgetExceeded, BudgetGuard, CompositeRunHooks


def tool_cost(result: Any) -> str:
    return "0.01"


async def run(agent: Agent[None], other: RunHooks[Any], ladder: Mapping[str, str]) -> None:
    guard = BudgetGuard(
        Budget(max_cost_usd=1.50, max_requests=50, downgrade=DowngradePolicy(to="gpt-4o-mini", at=0.8)),
        pricing={"gpt-4o": (2.5e-6, 10e-6)},
        tool_costs={"serp_api": "0.01", "paid": Decimal("0.02"), "by_result": tool_cost},
        on_exceeded="finalize",
        on_cut_off="keep",
        user="u1",
    )
    BudgetGuard(Budget("$5.00"), downgrade_to=ladder, downgrade_at=0.5)
    hooks: RunHooks[Any] = guard
    both = CompositeRunHooks(guard, other, hooks)

    result = await Runner.run(agent, "go", hooks=guard)
    assert_type(result, RunResult)
    Runner.run_sync(agent, "go", hooks=both, run_config=guard.run_config())
    Runner.run_streamed(agent, "go", run_config=guard.run_config(RunConfig()))

    assert_type(guard.spent_usd, Decimal)
    assert_type(guard.reserved_usd, Decimal)
    assert_type(guard.remaining_usd, Decimal | None)
    assert_type(guard.report(), BudgetReport)
    assert_type(guard.session, Session)
    assert_type(guard.fork(), BudgetGuard)
    assert_type(guard.run_config(), RunConfig)
    guard.raise_limits(max_cost_usd=3, max_requests=None)
    guard.revoke("reason")
    with guard as entered:
        assert_type(entered, BudgetGuard)
    async with guard as entered:
        assert_type(entered, BudgetGuard)


def stopped(stop: BudgetExceeded) -> None:
    as_core: CoreBudgetExceeded = stop
    as_sdk: AgentsException = stop
    as_root: BudgetError = as_core
    assert_type(stop.resume_input(), list[TResponseInputItem])
    assert_type(stop.last_agent, Agent[Any])
    assert_type(stop.dimension, str)
    assert_type(stop.report, BudgetReport | None)
    print(as_sdk, as_root)


def wrong(guard: BudgetGuard) -> None:
    # Were the guard of type Any, these lines would be right, and the ignored error missing.
    BudgetGuard(Budget("$1.00"), on_exceeded="stop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    guard.spent()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
