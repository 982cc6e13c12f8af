"""The handler alone costs little to import: what takes long comes with the first call, stop or scope that needs it."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

pytest.importorskip("langgraph")

LATER = ["langchain", "langgraph", "langsmith", "langchain_core.messages", "langchain_core.language_models", "openai"]


def printed(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_handler_brings_in_no_graphs_no_messages_and_no_tracing() -> None:
    program = (
        "import sys; from budget_guard import Budget\n"
        "from budget_guard.integrations.langchain import BudgetCallbackHandler, budget_scope\n"
        "BudgetCallbackHandler(Budget('$1.00'))\n"
        f"print([name for name in {LATER!r} if name in sys.modules])"
    )
    assert printed(program) == "[]"


def test_a_stop_is_the_graphs_whether_it_is_named_or_raised_first() -> None:
    for first in ("raised", "named"):
        program = (
            "import uuid, budget_guard\n"
            "from budget_guard import Budget\n"
            "from budget_guard.integrations import langchain as adapter\n"
            "handler = adapter.BudgetCallbackHandler(Budget('$0.000001'))\n"
            f"if {first!r} == 'named': adapter.BudgetExceeded\n"
            "try: handler.on_llm_start({}, ['hi'], run_id=uuid.uuid4(), invocation_params={'model': 'gpt-4o'})\n"
            "except budget_guard.BudgetExceeded as stop:\n"
            "    from langgraph.errors import GraphBubbleUp\n"
            "    print(isinstance(stop, GraphBubbleUp), type(stop) is adapter.BudgetExceeded)"
        )
        assert printed(program) == "True True"


def test_the_middleware_without_langchain_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain.agents.middleware", None)
    monkeypatch.delitem(sys.modules, "budget_guard_langchain.middleware", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'langchain>=1\.4'"):
        importlib.import_module("budget_guard_langchain.middleware")


def test_what_is_not_there_is_not_found() -> None:
    from budget_guard.integrations import langchain as adapter

    with pytest.raises(AttributeError, match="no attribute 'BudgetGuard'"):
        adapter.BudgetGuard  # noqa: B018
