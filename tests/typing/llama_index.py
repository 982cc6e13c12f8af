"""What type checkers make of the LlamaIndex adapter. Checked, never run."""

from __future__ import annotations

from llama_index.core.llms import LLM, MockLLM
from typing_extensions import assert_type

from budget_guard import Budget, Session
from budget_guard import BudgetExceeded as CoreBudgetExceeded
from budget_guard.integrations.llama_index import BudgetExceeded, guard_llm, session_of


def run(llm: MockLLM, session: Session) -> None:
    assert_type(guard_llm(llm, session, agent="Poet"), MockLLM)
    guarded: LLM = guard_llm(llm, Budget("$1.00"))
    assert_type(session_of(guarded), Session)
    try:
        guarded.complete("go")
    except BudgetExceeded as stop:
        core: CoreBudgetExceeded = stop
        assert_type(stop.partial_output, str | None)
        del core


def wrong(llm: MockLLM) -> None:
    guard_llm(llm, "5.00")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    guard_llm("gpt-4o", Budget("$1.00"))  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
