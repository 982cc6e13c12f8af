"""One handler is one budget, or one for each thread; what it is given is checked."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("langgraph")
pytest.importorskip("langchain")

from langchain.agents import create_agent
from langgraph.checkpoint.memory import InMemorySaver

from budget_guard import Budget, DowngradePolicy, InvalidDowngradeError, ModelCall, Usage
from budget_guard.estimate.prompt import weigh
from budget_guard.integrations.langchain import BudgetCallbackHandler, BudgetExceeded
from tests.builders import ZERO, note_holds
from tests.integrations.langchain.agents import BIG, DIME, SMALL, SURFACES, Lab, agree, caller_of, configured, lookup

ASK: dict[str, Any] = {"messages": [("user", "go")]}


# What it is given


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"budget": "$5.00"}, TypeError, "is not a Budget: write BudgetCallbackHandler"),
        ({"scope": "user"}, ValueError, "scope='user' is not known: use 'run' or 'thread'"),
        ({"on_exceeded": "finalize"}, ValueError, "on_exceeded='finalize' is not known: use 'raise' or 'interrupt'"),
        ({"on_cancel": "never"}, ValueError, "on_cancel='never' is not known"),
        ({"on_cut_off": "never"}, ValueError, "on_cut_off='never' is not known: use 'raise' or 'keep'"),
        ({"downgrade_to": "no-such-model"}, InvalidDowngradeError, "no-such-model"),
        ({"downgrade_to": {"gpt-4o-mini": "gpt-4o"}}, InvalidDowngradeError, "dearer"),
        ({"downgrade_to": SMALL, "downgrade_at": 2}, ValueError, "downgrade.at=2"),
        ({"downgrade_to": SMALL, "budget": Budget("$1", downgrade=SMALL)}, ValueError, "set one of them"),
        ({"tool_costs": {"search": "free"}}, ValueError, "tool_costs\\['search'\\]='free'"),
        ({"tool_costs": {"search": -1}}, ValueError, "tool_costs\\['search'\\]=-1"),
        ({"pricing": {"m": {"input": -1, "output": 0}}}, ValueError, "-1"),
    ],
)
def test_a_senseless_argument_is_refused_with_its_name(options: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        BudgetCallbackHandler(**{"budget": Budget("$1.00"), **options})


def test_downgrade_to_is_short_for_the_budgets_own_policy() -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"), downgrade_to=SMALL, downgrade_at=0.5)
    assert handler.budget.downgrade == DowngradePolicy(to=SMALL, at=0.5)


def test_a_fork_has_the_same_settings_and_a_fresh_budget(lab: Lab) -> None:
    handler = BudgetCallbackHandler(
        Budget("$0.20", downgrade=SMALL), pricing=DIME, tool_costs={"lookup": "0.01"}, user="u1", scope="thread"
    )
    handler.raise_limits(max_cost_usd="$1.00")
    lab.chat("dime").with_fallbacks([lab.chat(SMALL)]).invoke("hi", configured(handler))
    fork = handler.fork()
    assert (fork.spent_usd, fork.budget.max_cost_usd) == (ZERO, Decimal("0.20"))
    assert fork.budget.downgrade == handler.budget.downgrade
    lookup.invoke({"key": "a"}, configured(fork))
    assert fork.spent_usd == Decimal("0.01")
    assert fork.report().tags == {"user": "u1"}
    assert fork.for_thread("t").spent_usd == 0


def test_a_fork_of_a_child_is_a_child_also_by_another_budget_and_name() -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    child = handler.child(Budget("$0.20"))
    part = child.fork(budget=Budget("$0.30"), run_id="part")
    assert (handler.reserved_usd, part.budget.max_cost_usd) == (Decimal("0.50"), Decimal("0.30"))
    assert part.report().session_id == "part"


def test_the_report_says_whose_run_it_was_and_what_it_spent(lab: Lab) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"), user="u1", key="k1", run_id="r1")
    lab.chat().invoke("hi", configured(handler))
    report = handler.report()
    assert (report.session_id, report.tags) == ("r1", {"user": "u1", "key": "k1"})
    assert report.breakdown.llm.by_model[BIG].calls == 1
    assert handler.remaining_usd == 1 - handler.spent_usd


@pytest.mark.parametrize("surface", ["invoke", "stream", "ainvoke", "astream"])
def test_a_handler_that_is_listed_twice_is_told_of_everything_twice_and_counts_once(lab: Lab, surface: str) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    SURFACES[surface](lab.chat(), "hi", configured(handler, handler))
    agree(lab, handler)
    SURFACES[surface](lookup, {"key": "a"}, configured(handler, handler))
    assert handler.report().breakdown.tools.calls == 1


def test_a_call_is_held_as_one_that_is_sent(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    held = note_holds(monkeypatch, lambda: len(lab.calls))
    handler = BudgetCallbackHandler(Budget("$1.00"))
    for _ in range(2):
        lab.chat().invoke("hi", configured(handler))
    assert held == [(0, True, True), (1, True, True)]


# One for each thread


def test_each_thread_has_the_whole_budget_and_others_share_the_handlers_own(lab: Lab) -> None:
    lab.script(caller_of("lookup"))
    handler = BudgetCallbackHandler(Budget("$0.30"), scope="thread", pricing=DIME)
    agent: Any = create_agent(lab.chat("dime"), [lookup], checkpointer=InMemorySaver())
    for thread in ("a", "b"):
        with pytest.raises(BudgetExceeded) as stop:
            agent.invoke(ASK, configured(handler, thread_id=thread))
        assert stop.value.scope == f"run:{thread}"
        assert handler.for_thread(thread).spent_usd == Decimal("0.30")
    assert len(lab.calls) == 6
    assert handler.spent_usd == 0
    lab.chat("dime").invoke("hi", configured(handler))
    assert handler.spent_usd == Decimal("0.10")
    handle = handler.for_thread("a")
    handle.raise_limits(max_cost_usd="$0.50")
    with pytest.raises(BudgetExceeded):
        agent.invoke(None, configured(handler, thread_id="a"))
    assert handle.spent_usd == Decimal("0.50")
    assert handle.report().breakdown.llm.calls == 5
    assert handler.for_thread("b").spent_usd == Decimal("0.30")


def test_without_that_scope_threads_share_one_budget(lab: Lab) -> None:
    handler = BudgetCallbackHandler(Budget("$0.30"), pricing=DIME)
    agent: Any = create_agent(lab.chat("dime"), [], checkpointer=InMemorySaver())
    for thread in "abc":
        agent.invoke(ASK, configured(handler, thread_id=thread))
    with pytest.raises(BudgetExceeded):
        agent.invoke(ASK, configured(handler, thread_id="d"))
    assert len(lab.calls) == 3
    with pytest.raises(ValueError, match='use scope="thread"'):
        handler.for_thread("a")


def test_of_very_many_threads_the_latest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("budget_guard_langchain.ceilings._KEPT", 3)
    handler = BudgetCallbackHandler(Budget("$1.00"), scope="thread")
    for thread in "abcade":
        handler.for_thread(thread).charge("search", "0.10")
    spent = {thread: handler.for_thread(thread).spent_usd for thread in "eda"}
    assert spent == {"e": Decimal("0.10"), "d": Decimal("0.10"), "a": Decimal("0.20")}
    assert handler.for_thread("b").spent_usd == 0


def test_a_handler_takes_prices_per_million() -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"), per_million={"my-model": (2.5, 10)})
    call = ModelCall("my-model", weigh(messages=["x" * 5_000]), max_output_tokens=200)
    handler.session.authorize(call).require().commit(Usage(input=1_000, output=100))

    assert handler.spent_usd == Decimal("0.0035")
