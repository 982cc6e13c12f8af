"""Reports: what a run spent, as values for people."""

from budget_guard.reporting.report import (
    AgentSpend,
    Breakdown,
    BudgetReport,
    LlmSpend,
    ModelSpend,
    ToolSpend,
    ToolsSpend,
)

__all__ = ["AgentSpend", "Breakdown", "BudgetReport", "LlmSpend", "ModelSpend", "ToolSpend", "ToolsSpend"]
