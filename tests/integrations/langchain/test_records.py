"""A handler keeps a record of each run, the middleware of each call of its agent; callbacks break nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain_core.runnables import RunnableLambda
from langgraph.errors import GraphInterrupt, ParentCommand
from langgraph.types import Command

from budget_guard import Budget, BudgetAuthority, BudgetReport
from budget_guard.integrations.langchain import BudgetCallbackHandler, BudgetExceeded, BudgetMiddleware
from budget_guard.reporting import RunLog, RunRecord
from budget_guard.testing import ProviderRequest, Reply, ToolCall
from budget_guard_langchain.runs import is_pause
from tests.integrations.langchain.agents import Lab, caller_of, configured, lookup

GO: Any = {"messages": [("user", "go")]}
ways = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


class Broken:
    """A log on a disk that is full."""

    def add(self, record: RunRecord) -> None:
        raise OSError("no space left on device")


@pytest.fixture
def log(tmp_path: Path) -> RunLog:
    return RunLog(tmp_path / "runs.jsonl")


def invoke(runnable: Any, given: Any, config: Any = None, *, asynchronous: bool) -> Any:
    return asyncio.run(runnable.ainvoke(given, config)) if asynchronous else runnable.invoke(given, config)


def two_calls(lab: Lab) -> Any:
    """An agent that looks something up, and answers."""
    lab.script(_once)
    return create_agent(lab.chat(), [lookup])


def _once(request: ProviderRequest) -> Reply:
    looked = any(each.get("role") == "tool" for each in request.messages)
    return Reply(text="done") if looked else Reply(tool_calls=[ToolCall("lookup", {"key": "a"})])


@ways
def test_each_run_at_the_top_leaves_a_record_with_all_below_it(lab: Lab, log: RunLog, asynchronous: bool) -> None:
    agent = two_calls(lab)
    handler = BudgetCallbackHandler(Budget("$1", task="look"), run_log=log, run_id="h")
    for _ in range(2):
        invoke(agent, GO, configured(handler), asynchronous=asynchronous)
    invoke(lab.chat(), "go", configured(handler), asynchronous=asynchronous)
    records = list(log)
    assert [(each.id, each.task, each.outcome, each.calls, each.tool_calls) for each in records] == [
        ("h", "look", "ok", 2, 1),
        ("h#2", "look", "ok", 2, 1),
        ("h#3", "look", "ok", 1, 0),
    ]
    assert sum(each.cost for each in records) == handler.spent_usd * 10**9 == lab.provider.bill_usd * 10**9


def test_runs_at_once_are_told_apart(lab: Lab, log: RunLog) -> None:
    agent = two_calls(lab)
    handler = BudgetCallbackHandler(Budget("$1"), run_log=log)
    agent.batch([GO] * 6, configured(handler))
    assert [(each.calls, each.outcome) for each in log] == [(2, "ok")] * 6
    assert sum(each.cost for each in log) == handler.spent_usd * 10**9


@ways
def test_a_record_says_how_the_run_ended(lab: Lab, log: RunLog, asynchronous: bool) -> None:
    lab.script(caller_of("lookup", key="a"))
    agent = create_agent(lab.chat(), [lookup])
    handler = BudgetCallbackHandler(Budget(max_requests=2), run_log=log)
    with pytest.raises(BudgetExceeded):
        invoke(agent, GO, configured(handler), asynchronous=asynchronous)
    with pytest.raises(BudgetExceeded):
        invoke(lab.chat(), "go", configured(handler), asynchronous=asynchronous)

    def fail(_: object) -> None:
        raise ArithmeticError("no")

    handler.raise_limits(max_requests=9)
    with pytest.raises(ArithmeticError):
        invoke(lab.chat() | RunnableLambda(fail), "go", configured(handler), asynchronous=asynchronous)
    assert [(each.outcome, each.terminated_by, each.calls) for each in log] == [
        ("stopped", "max_requests", 2),
        ("stopped", "max_requests", 0),
        ("failed", None, 1),
    ]


@ways
def test_a_run_that_is_under_way_when_its_handler_is_closed_is_recorded_then(log: RunLog, asynchronous: bool) -> None:
    handler = BudgetCallbackHandler(Budget("$1"), run_log=log)
    child = handler.child(Budget("$0.50"))
    handler.on_chain_start({}, {}, run_id=uuid4())
    for each, recorded in ((child, 0), (handler, 1)):
        if asynchronous:
            asyncio.run(each.aclose())
        else:
            each.close()
        assert len(list(log)) == recorded


def test_a_log_that_fails_breaks_no_run_and_hides_no_stop(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    handler = BudgetCallbackHandler(Budget(max_requests=1), run_log=Broken())
    lab.chat().invoke("go", configured(handler))
    with pytest.raises(BudgetExceeded):
        lab.chat().invoke("go", configured(handler))
    assert "no space left on device" in caplog.text


def test_callbacks_are_called_once_a_threshold_and_break_no_run(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str | None] = []

    def soft(report: BudgetReport) -> None:
        heard.append("soft")
        raise ValueError("no mail today")

    handler = BudgetCallbackHandler(
        Budget(max_requests=2), on_soft_limit=soft, on_hard_limit=lambda report: heard.append(report.terminated_by)
    )
    for _ in range(2):
        lab.chat().invoke("go", configured(handler))
    for _ in range(2):
        with pytest.raises(BudgetExceeded):
            lab.chat().invoke("go", configured(handler))
    assert heard == ["soft", "max_requests"]
    assert "no mail today" in caplog.text


def test_each_thread_of_a_handler_is_recorded_and_called_back_for(lab: Lab, log: RunLog) -> None:
    heard: list[BudgetReport] = []
    handler = BudgetCallbackHandler(Budget(max_requests=1), scope="thread", run_log=log, on_hard_limit=heard.append)
    for thread in ("a", "b"):
        config: Any = {**configured(handler), "metadata": {"thread_id": thread}}
        lab.chat().invoke("go", config)
        with pytest.raises(BudgetExceeded):
            lab.chat().invoke("go", config)
    assert [(each.calls, each.outcome) for each in log] == [(1, "ok"), (0, "stopped")] * 2
    assert len(heard) == 2


@ways
@pytest.mark.parametrize("also_in_callbacks", [False, True])
def test_the_middleware_keeps_a_record_of_each_call_of_its_agent(
    lab: Lab, log: RunLog, asynchronous: bool, also_in_callbacks: bool
) -> None:
    lab.script(_once)
    middleware = BudgetMiddleware(Budget("$1", task="look"), run_log=log)
    agent = create_agent(lab.chat(), [lookup], middleware=[middleware])
    config = configured(middleware.handler) if also_in_callbacks else None
    for _ in range(2):
        invoke(agent, GO, config, asynchronous=asynchronous)
    assert [(each.task, each.outcome, each.calls) for each in log] == [("look", "ok", 2)] * 2
    assert sum(each.cost for each in log) == lab.provider.bill_usd * 10**9
    middleware.handler.close()
    assert len(list(log)) == 2


@ways
@pytest.mark.parametrize("exit_behavior", ["end", "error"])
def test_the_middleware_records_a_stop(lab: Lab, log: RunLog, asynchronous: bool, exit_behavior: Any) -> None:
    lab.script(caller_of("lookup", key="a"))
    heard: list[BudgetReport] = []
    middleware = BudgetMiddleware(
        Budget(max_requests=2), exit_behavior=exit_behavior, run_log=log, on_hard_limit=heard.append
    )
    agent = create_agent(lab.chat(), [lookup], middleware=[middleware])
    if exit_behavior == "error":
        with pytest.raises(BudgetExceeded):
            invoke(agent, GO, asynchronous=asynchronous)
    else:
        invoke(agent, GO, asynchronous=asynchronous)
    assert [(each.outcome, each.terminated_by, each.calls) for each in log] == [("stopped", "max_requests", 2)]
    assert len(heard) == 1


def test_a_failure_below_the_middleware_is_recorded_once_nothing_more_is_heard(lab: Lab, log: RunLog) -> None:
    lab.script(lambda request: Reply(status=400))
    middleware = BudgetMiddleware(Budget("$1"), run_log=log)
    agent = create_agent(lab.chat(), [lookup], middleware=[middleware])
    with pytest.raises(Exception, match="400"):
        agent.invoke(GO)
    assert list(log) == []
    middleware.handler.close()
    assert [(each.outcome, each.calls) for each in log] == [("failed", 0)]


def test_what_is_the_handlers_is_not_the_middlewares(log: RunLog) -> None:
    with pytest.raises(ValueError, match=r"run_log= is set, and a handler is given too"):
        BudgetMiddleware(BudgetCallbackHandler(Budget("$1")), run_log=log)


def test_a_handler_takes_principals_of_the_kinds_that_its_authority_has(lab: Lab) -> None:
    authority = BudgetAuthority(ceilings={"org": Budget(max_requests=1, window="day")})
    handler = BudgetCallbackHandler(Budget("$1"), authority=authority, org="acme")
    lab.chat().invoke("go", configured(handler))
    with pytest.raises(BudgetExceeded, match="org:acme"):
        lab.chat().invoke("go", configured(handler.fork()))
    lab.chat().invoke("go", configured(handler.fork(org="other")))
    wrong: dict[str, Any] = {"orgs": "acme"}
    with pytest.raises(TypeError, match=r"BudgetCallbackHandler\(\) takes no orgs=: did you mean org\?"):
        BudgetCallbackHandler(Budget("$1"), authority=authority, **wrong)


# Estimates


@ways
@pytest.mark.parametrize("kind", ["chat", "responses", "claude"])
def test_a_handler_says_what_a_call_would_hold_before_it_is_sent(
    lab: Lab, log: RunLog, asynchronous: bool, kind: str
) -> None:
    handler = BudgetCallbackHandler(Budget("$1", task="look"), run_log=log)
    for bound in (getattr(lab, kind)(), getattr(lab, kind)().bind_tools([lookup])):
        handler = handler.fork()
        for messages in ("go", [("system", "Be brief."), ("user", "go")]):
            seen = (
                asyncio.run(handler.aestimate(bound, messages)) if asynchronous else handler.estimate(bound, messages)
            )
            before = len(lab.calls), len(handler.session.decisions())
            invoke(bound, messages, configured(handler), asynchronous=asynchronous)
            assert (len(lab.calls), len(handler.session.decisions())) == (before[0] + 1, before[1] + 1)
            decision = handler.session.decisions()[-1]
            assert (seen.name, seen.action) == (decision.name, "allow")
            if messages == "go":  # later calls are bounded by what the first one was billed for
                assert seen.held == decision.held
    assert handler.estimate(lab.chat(), "go").past is not None


def test_a_handler_says_what_would_refuse_a_call(lab: Lab) -> None:
    seen = BudgetCallbackHandler(Budget("$0.000001")).estimate(lab.chat(), "go")
    assert (seen.action, seen.requested) == ("block", "gpt-4o") and "max_cost_usd" in str(seen)
    with pytest.raises(TypeError, match="is no chat model"):
        BudgetCallbackHandler(Budget("$1")).estimate("gpt-4o", "go")


def test_a_pause_and_a_word_to_the_parent_are_no_failures_and_a_stop_is() -> None:
    assert is_pause(GraphInterrupt()) and is_pause(ParentCommand(Command()))
    handler = BudgetCallbackHandler(Budget(max_requests=1))
    with pytest.raises(BudgetExceeded) as stop:
        handler.child(Budget(max_requests=2))
    assert not is_pause(stop.value) and not is_pause(ValueError())
