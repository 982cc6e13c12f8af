"""Every setting of a handler or middleware is kept, reaches its forks, and is checked under its own name."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("langchain")

from budget_guard import Budget, BudgetAuthority
from budget_guard.integrations.langchain import BudgetCallbackHandler, BudgetExceeded, BudgetMiddleware
from tests.adapter.test_handle import EVERY, Log

OWN: dict[str, Any] = {
    "downgrade_to": "gpt-4o-mini",
    "downgrade_at": 0.5,
    "scope": "thread",
    "on_exceeded": "interrupt",
    "tool_costs": {"search": "0.01"},
    "on_cut_off": "keep",
}
BUDGET = Budget("$1.00")


def test_every_setting_is_kept_and_a_fork_has_them_all() -> None:
    given = {**EVERY, "authority": BudgetAuthority(kinds=("org",)), "org": "o1", "run_log": Log()}
    handler = BudgetCallbackHandler(BUDGET, **given, **OWN, run_id="r1")
    for each in (handler, handler.fork(), handler.fork(run_id="r2")):
        assert each._settings.arguments() == {**given, "ledger": None}
        assert each._own_settings == OWN
        assert each._asks_human and not each._stops_cut and each.runs is not None
        assert each.session_of("t1") is each.session_of("t1") is not each.session_of("t2") is not each.session
        assert each.session_of(None) is each.session
        assert each.budget.downgrade is not None and each.budget.downgrade.at == 0.5
        assert each._tools.call("search", None) == handler._tools.call("search", None)
        assert each._initial_budget is BUDGET
    assert str(handler.session.scope) == "run:r1"
    plain = BudgetCallbackHandler(BUDGET)
    assert not plain._asks_human and plain._stops_cut and plain.runs is None
    assert plain.session_of("t1") is plain.session
    with pytest.raises(ValueError, match="thread_id='t1' has no budget of its own: use scope=\"thread\""):
        plain.for_thread("t1")


def test_a_child_of_a_handler_has_no_threads_and_its_fork_is_another_child() -> None:
    handler = BudgetCallbackHandler(BUDGET, scope="thread", run_log=Log())
    child = handler.child(Budget("$0.20"), "part")
    other = child.fork(budget=Budget("$0.30"))
    again = child.fork()
    assert [str(each.budget.max_cost_usd) for each in (child, other, again)] == ["0.20", "0.30", "0.20"]
    assert {each._parent for each in (child, other, again)} == {handler}
    assert child.session_of("t1") is child.session and str(child.session.scope) == "run:part"
    assert handler.reserved_usd == sum(each.budget.max_cost_usd or 0 for each in (child, other, again))
    grown = child.fork(user="u2")
    assert grown._parent is None and grown._settings.user == "u2"
    for each in (child, other, again):
        each.close()
    assert handler.reserved_usd == 0


async def test_a_child_that_does_not_fit_is_refused_in_the_terms_of_langchain() -> None:
    handler = BudgetCallbackHandler(BUDGET)
    with pytest.raises(BudgetExceeded):
        handler.child(Budget("$2.00"))
    with pytest.raises(BudgetExceeded):
        await handler.achild(Budget("$2.00"))
    assert handler.reserved_usd == 0


def test_what_a_middleware_is_told_of_goes_to_the_handler_that_it_makes() -> None:
    told: dict[str, Any] = {name: EVERY[name] for name in EVERY if name.startswith("on_") and name != "on_cancel"}
    told["run_log"] = Log()
    middleware = BudgetMiddleware(BUDGET, **told)
    assert {name: getattr(middleware.handler._settings, name) for name in told} == told
    handler = BudgetCallbackHandler(BUDGET)
    assert BudgetMiddleware(handler).handler is handler
    for name, value in told.items():
        with pytest.raises(ValueError, match=rf"{name}= is set, and a handler is given too"):
            BudgetMiddleware(handler, **{name: value})


async def test_what_is_no_budget_is_told_by_the_name_of_what_was_called() -> None:
    handler, wrong = BudgetCallbackHandler(BUDGET), "$0.20"
    makes = (
        ("BudgetCallbackHandler", BudgetCallbackHandler),
        ("BudgetCallbackHandler", handler.fork),
        ("handler.child", handler.child),
        ("BudgetMiddleware", BudgetMiddleware),
    )
    for owner, make in makes:
        with pytest.raises(TypeError, match=rf"write {owner}\(Budget"):
            make(budget=wrong)  # type: ignore[arg-type]  # on purpose
    for owner, amake in (("handler.child", handler.achild), ("BudgetCallbackHandler", BudgetCallbackHandler.open)):
        with pytest.raises(TypeError, match=rf"write {owner}\(Budget"):
            await amake(wrong)  # type: ignore[arg-type]  # on purpose
    assert handler.reserved_usd == 0
