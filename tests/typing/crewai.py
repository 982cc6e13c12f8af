"""What type checkers make of the CrewAI adapter. Checked, never run."""

from __future__ import annotations

from crewai import Crew
from crewai.hooks.dispatch import HookAborted
from crewai.llms.base_llm import BaseLLM
from typing_extensions import assert_type

from budget_guard import Budget, Session
from budget_guard import BudgetExceeded as CoreBudgetExceeded
from budget_guard.integrations.crewai import BudgetExceeded, guard_crew, guard_llm, session_of


def run(crew: Crew, llm: BaseLLM, session: Session) -> None:
    assert_type(guard_crew(crew, session), Crew)
    assert_type(guard_llm(llm, Budget("$1.00")), BaseLLM)
    assert_type(session_of(crew), Session)
    try:
        crew.kickoff()
    except BudgetExceeded as stop:
        core: CoreBudgetExceeded = stop
        own: HookAborted = stop
        assert_type(stop.partial_output, str | None)
        del core, own


def wrong(crew: Crew) -> None:
    guard_crew(crew, "5.00")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    guard_crew("crew", Budget("$1.00"))  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
