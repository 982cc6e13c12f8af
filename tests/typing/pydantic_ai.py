"""What type checkers make of the pydantic-ai adapter. Checked, never run."""

from __future__ import annotations

from decimal import Decimal

from pydantic_ai import Agent
from pydantic_ai.exceptions import UsageLimitExceeded
from pydantic_ai.models import Model
from typing_extensions import assert_type

from budget_guard import Budget, BudgetReport, Session
from budget_guard import BudgetExceeded as CoreBudgetExceeded
from budget_guard.integrations.pydantic_ai import BudgetExceeded, BudgetModel


async def run(model: Model, session: Session) -> None:
    guarded = BudgetModel("openai:gpt-4o", Budget("$1.00"), agent="Poet")
    BudgetModel(model, session)
    as_model: Model = guarded
    agent = Agent(as_model)
    try:
        assert_type((await agent.run("go")).output, str)
    except BudgetExceeded as stop:
        core: CoreBudgetExceeded = stop
        own: UsageLimitExceeded = stop
        assert_type(stop.partial_output, str | None)
        del core, own
    assert_type(guarded.session, Session)
    assert_type(guarded.spent_usd, Decimal)
    assert_type(guarded.report(), BudgetReport)
    guarded.raise_limits(max_cost_usd="2.00")


def wrong(model: Model) -> None:
    BudgetModel(model, "5.00")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    BudgetModel(model)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
