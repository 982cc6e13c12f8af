"""What type checkers make of the LangChain adapter. Checked, never run."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from langchain.agents import create_agent  # pyright: ignore[reportUnknownVariableType]  # its checkpointer's is not known
from langchain.agents.middleware import AgentMiddleware
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from typing_extensions import assert_type

from budget_guard import Budget, BudgetError, BudgetReport, DowngradePolicy, Session
from budget_guard import BudgetExceeded as CoreBudgetExceeded
from budget_guard.integrations.langchain import (
    BudgetCallbackHandler,
    BudgetDowngrade,
    BudgetExceeded,
    BudgetMiddleware,
    BudgetStop,
    budget_scope,
    budgeted_model,
)


def tool_cost(result: Any) -> str:
    return "0.01"


def handle(ladder: Mapping[str, str], model: BaseChatModel) -> None:
    handler = BudgetCallbackHandler(
        Budget(max_cost_usd=1.50, max_requests=50, downgrade=DowngradePolicy(to="gpt-4o-mini", at=0.8)),
        scope="thread",
        on_exceeded="interrupt",
        pricing={"gpt-4o": (2.5e-6, 10e-6)},
        tool_costs={"serp_api": "0.01", "paid": Decimal("0.02"), "by_result": tool_cost},
        user="u1",
    )
    BudgetCallbackHandler(Budget("$5.00"), downgrade_to=ladder, downgrade_at=0.5)
    as_handler: BaseCallbackHandler = handler
    config: RunnableConfig = {"callbacks": [as_handler, handler]}
    assert_type(model.invoke("go", config), AIMessage)

    assert_type(handler.spent_usd, Decimal)
    assert_type(handler.reserved_usd, Decimal)
    assert_type(handler.remaining_usd, Decimal | None)
    assert_type(handler.report(), BudgetReport)
    assert_type(handler.session, Session)
    assert_type(handler.fork(), BudgetCallbackHandler)
    assert_type(handler.for_thread("t1").spent_usd, Decimal)
    handler.raise_limits(max_cost_usd=3, max_requests=None)
    handler.revoke("reason")


def steer(model: BaseChatModel, cheap: BaseChatModel, tools: list[BaseTool], handler: BudgetCallbackHandler) -> None:
    middleware = BudgetMiddleware(
        Budget("$1.00"),
        downgrade_to=cheap,
        downgrade_at=0.5,
        exit_behavior="interrupt",
        wrap_up_at=0.9,
        guard_tools=True,
        thread_limit="$2.00",
        run_limit=Budget(max_requests=20),
    )
    as_middleware: AgentMiddleware[Any, Any, Any] = middleware
    create_agent(model, tools, middleware=[BudgetMiddleware(handler, downgrade_to="openai:gpt-4o-mini")])
    create_agent(model, tools, middleware=[middleware])
    create_agent(model, tools, middleware=[as_middleware])
    assert_type(middleware.handler, BudgetCallbackHandler)
    assert_type(middleware.spent_usd, Decimal)
    assert_type(middleware.report(), BudgetReport)

    picked = budgeted_model(model, cheap, downgrade_at=0.5, handler=handler)
    as_model: BaseChatModel = picked
    assert_type(picked.invoke("go"), AIMessage)
    assert_type(picked.bind_tools(tools).invoke("go"), AIMessage)
    create_agent(as_model, tools)


async def scope(handler: BudgetCallbackHandler, model: BaseChatModel) -> None:
    with budget_scope(handler) as entered:
        assert_type(entered, BudgetCallbackHandler)
        model.invoke("go")
    async with budget_scope(handler) as entered:
        assert_type(entered, BudgetCallbackHandler)
        await model.ainvoke("go")


def stopped(stop: BudgetExceeded, signal: BudgetDowngrade) -> None:
    as_core: CoreBudgetExceeded = stop
    as_stop: BudgetStop = stop
    as_root: BudgetError = as_core
    as_signal: RuntimeError = signal
    assert_type(stop.dimension, str)
    assert_type(stop.report, BudgetReport | None)
    assert_type(signal.target, str)
    print(as_stop, as_root, as_signal)


def wrong(handler: BudgetCallbackHandler) -> None:
    # Were these of type Any, the lines would be right, and the ignored errors missing.
    BudgetCallbackHandler(Budget("$1.00"), on_exceeded="stop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    BudgetMiddleware(handler, exit_behavior="stop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    handler.spent()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
