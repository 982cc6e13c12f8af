"""Reports: what a run spent, as values for people; records of runs, and what they advise."""

from typing import TYPE_CHECKING

from budget_guard.reporting.course import SpentAt
from budget_guard.reporting.report import BudgetReport
from budget_guard.reporting.spend import (
    AgentSpend,
    Breakdown,
    LimitUse,
    LlmSpend,
    ModelSpend,
    Outcome,
    RunSpend,
    TaskSpend,
    ToolSpend,
    ToolsSpend,
)

if TYPE_CHECKING:
    from budget_guard.reporting.advice import Advice, Forecast, advise, forecast
    from budget_guard.reporting.records import RunLog, RunRecord, RunStore

__all__ = [
    "Advice",
    "AgentSpend",
    "Breakdown",
    "BudgetReport",
    "Forecast",
    "LimitUse",
    "LlmSpend",
    "ModelSpend",
    "Outcome",
    "RunLog",
    "RunRecord",
    "RunSpend",
    "RunStore",
    "SpentAt",
    "TaskSpend",
    "ToolSpend",
    "ToolsSpend",
    "advise",
    "forecast",
]

_OF_RECORDS = {"RunLog", "RunRecord", "RunStore"}


def __getattr__(name: str) -> object:
    # loaded when they are first asked for: few programs keep records, and SQLite takes its time to load
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from budget_guard.reporting import advice, records

    return getattr(records if name in _OF_RECORDS else advice, name)
