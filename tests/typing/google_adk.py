"""What type checkers make of the Google ADK adapter. Checked, never run."""

from __future__ import annotations

from google.adk.agents import LlmAgent
from google.adk.models.base_llm import BaseLlm
from google.adk.plugins.base_plugin import BasePlugin
from typing_extensions import assert_type

from budget_guard import Budget, Session
from budget_guard import BudgetExceeded as CoreBudgetExceeded
from budget_guard.integrations.google_adk import BudgetExceeded, BudgetLlm, BudgetPlugin


def run(model: BaseLlm, session: Session) -> None:
    guarded = BudgetLlm(model, session, agent="Poet")
    as_model: BaseLlm = BudgetLlm("gemini-2.5-flash", Budget("$1.00"))
    LlmAgent(name="helper", model=as_model)
    plugin: BasePlugin = BudgetPlugin(session, message="That is all.")
    assert_type(guarded.session, Session)
    try:
        raise NotImplementedError
    except BudgetExceeded as stop:
        core: CoreBudgetExceeded = stop
        assert_type(stop.partial_output, str | None)
        del core
    del plugin


def wrong(model: BaseLlm) -> None:
    BudgetLlm(model, "5.00")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    BudgetLlm(model)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
