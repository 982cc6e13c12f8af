"""What type checkers make of the adapter of LiteLLM. Checked, never run."""

from __future__ import annotations

from decimal import Decimal

from litellm.router import Router  # pyright: ignore[reportMissingTypeStubs]
from openai import OpenAIError
from typing_extensions import assert_type

from budget_guard import Budget, BudgetReport, Session
from budget_guard import BudgetExceeded as CoreBudgetExceeded
from budget_guard.integrations.litellm import BudgetExceeded, BudgetGuard, proxy_guard


def calls(session: Session) -> None:
    guard = BudgetGuard(Budget("$1.00"), agent="Poet", models={"azure/prod": "gpt-4o"})
    BudgetGuard(session)
    try:
        guard.completion(model="gpt-4o", messages=[], num_retries=2, fallbacks=["gpt-4o-mini"])
    except BudgetExceeded as stop:
        core: CoreBudgetExceeded = stop
        own: OpenAIError = stop
        del core, own
    assert_type(guard.router(model_list=[]), Router)
    assert_type(guard.session, Session)
    assert_type(guard.spent_usd, Decimal)
    assert_type(guard.report(), BudgetReport)
    guard.raise_limits(max_cost_usd="2.00")
    del proxy_guard.settings


def wrong() -> None:
    BudgetGuard("5.00")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    BudgetGuard()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
