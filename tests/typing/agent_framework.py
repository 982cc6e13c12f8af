"""What type checkers make of the Agent Framework adapter. Checked, never run."""

from __future__ import annotations

from decimal import Decimal

from agent_framework import ChatMiddleware, FunctionMiddleware, MiddlewareFailure
from typing_extensions import assert_type

from budget_guard import Budget, BudgetReport, Session
from budget_guard import BudgetExceeded as CoreBudgetExceeded
from budget_guard.integrations.agent_framework import BudgetExceeded, BudgetMiddleware, BudgetToolMiddleware


def run(session: Session) -> None:
    budget = BudgetMiddleware(Budget("$1.00"), agent="Poet")
    as_middleware: ChatMiddleware = BudgetMiddleware(session)
    tools: FunctionMiddleware = BudgetToolMiddleware(session)
    assert_type(budget.session, Session)
    assert_type(budget.spent_usd, Decimal)
    assert_type(budget.report(), BudgetReport)
    try:
        raise NotImplementedError
    except BudgetExceeded as stop:
        core: CoreBudgetExceeded = stop
        own: MiddlewareFailure = stop
        assert_type(stop.partial_output, str | None)
        del core, own
    del as_middleware, tools


def wrong() -> None:
    BudgetMiddleware("5.00")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    BudgetMiddleware()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
