"""LangChain's line about an error in a callback is left out for stops that are meant, and for nothing else."""

from __future__ import annotations

import logging
from typing import Any

import pytest

pytest.importorskip("langchain_core")

from langchain_core.language_models.fake_chat_models import FakeListChatModel

from budget_guard import Budget
from budget_guard.integrations.langchain import BudgetCallbackHandler, BudgetExceeded
from budget_guard_langchain.quiet import _meant

LINE = "Error in %s.%s callback: %s"


@pytest.mark.parametrize(
    ("line", "arguments", "shown"),
    [
        (LINE, ("Handler", "on_llm_start", "BudgetExceeded('max_cost_usd ...')"), False),
        (LINE, ("Handler", "on_llm_start", "BudgetDowngrade('gpt-4o ...')"), False),
        (LINE, ("Handler", "on_llm_start", "GraphInterrupt(())"), False),
        (LINE, ("Handler", "on_llm_start", "ValueError('BudgetExceeded(')"), True),
        ("Error in a callback", (), True),
        ("Failed: %s", ("BudgetExceeded('max_cost_usd ...')",), True),
        ("Error in %(where)s", ({"where": "BudgetExceeded('x')"},), True),
        (ValueError("BudgetExceeded("), ("BudgetExceeded('x')",), True),
    ],
)
def test_the_line_is_left_out_for_our_stops_alone(line: Any, arguments: Any, shown: bool) -> None:
    record = logging.LogRecord("langchain_core", logging.WARNING, __file__, 1, line, arguments, None)
    assert _meant.filter(record) is shown


def test_whoever_makes_a_handler_has_it_left_out_once() -> None:
    manager = logging.getLogger("langchain_core.callbacks.manager")
    manager.removeFilter(_meant)  # of the handlers that other tests have made
    for _ in range(3):
        BudgetCallbackHandler(Budget("$1.00"))
    assert manager.filters.count(_meant) == 1


def test_a_call_that_is_refused_leaves_no_line(caplog: pytest.LogCaptureFixture) -> None:
    handler = BudgetCallbackHandler(Budget("$0.000001"))
    with pytest.raises(BudgetExceeded):
        FakeListChatModel(responses=["ok"]).invoke(
            "hi", {"callbacks": [handler], "metadata": {"ls_model_name": "gpt-4o"}}
        )
    assert "Error in" not in caplog.text
