"""A handler of ours runs inline, but where LangChain would then leave the handlers of others out."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langchain_core")

from budget_guard import Budget
from budget_guard.integrations.langchain import BudgetCallbackHandler

OURS = BudgetCallbackHandler(Budget("$1.00"))


class Other:
    """A handler of somebody else's."""

    def __init__(self, run_inline: bool) -> None:
        self.run_inline = run_inline


class Manager:
    """As LangChain's managers ask."""

    def __init__(self, is_async: bool, *others: Any) -> None:
        self.is_async = is_async
        self.handlers = [OURS, *others]

    def on_llm_start(self) -> list[bool]:
        return [handler.run_inline for handler in self.handlers if handler is OURS]

    def on_chat_model_start(self) -> list[bool]:
        return [handler.run_inline for handler in self.handlers if handler is OURS]


@pytest.mark.parametrize(
    ("manager", "inline"),
    [
        (Manager(True), False),
        (Manager(True, OURS, Other(False)), False),
        (Manager(True, Other(False), Other(True)), True),
        (Manager(False), True),
        (Manager(False, Other(False)), True),
    ],
    ids=["alone", "beside others", "beside one that is inline", "not async", "not async beside others"],
)
def test_it_runs_inline_at_the_start_of_a_text_model_where_others_do_or_nothing_is_async(
    manager: Manager, inline: bool
) -> None:
    assert set(manager.on_llm_start()) == {inline}
    assert set(manager.on_chat_model_start()) == {True}


def test_whoever_else_asks_is_told_that_it_runs_inline() -> None:
    def on_llm_start() -> Any:
        return OURS.run_inline, BudgetCallbackHandler.run_inline

    assert on_llm_start() == (True, True)
    assert OURS.run_inline is True
