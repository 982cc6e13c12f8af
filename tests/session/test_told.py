"""Callbacks are called once a threshold with the report, and the record of a run is kept when its session is closed."""

from __future__ import annotations

import asyncio
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from budget_guard import Budget, BudgetAuthority, BudgetReport, DowngradePolicy, LoopPolicy, Session, ToolCall, Usage
from budget_guard.reporting import RunLog, RunRecord, advise
from budget_guard.session.told import Told
from tests.builders import PRICES, Way, call, session


def told(**callbacks: Any) -> Told:
    return Told(**callbacks)


def test_a_callback_is_called_once_for_each_threshold_with_the_report(way: Way) -> None:
    heard: dict[str, list[BudgetReport]] = {"soft": [], "hard": [], "downgrade": []}
    run = session(
        Budget("$0.40", max_requests=5, soft_limit=0.5, downgrade=DowngradePolicy(to={"dime": "penny"}, at=0.5)),
        told=told(
            on_soft_limit=heard["soft"].append,
            on_hard_limit=heard["hard"].append,
            on_downgrade=heard["downgrade"].append,
        ),
    )
    for _ in range(9):
        decision = way.authorize(run, call())
        if decision.reservation is not None:
            way.commit(decision.reservation, Usage(input=1))

    assert [len(reports) for reports in heard.values()] == [2, 1, 1], "dollars and requests, requests, one model"
    assert heard["hard"][0].terminated_by == "max_requests"
    assert heard["soft"][0].total_spent <= heard["hard"][0].total_spent == run.report().total_spent


def test_a_limit_that_was_raised_may_be_told_of_again(way: Way) -> None:
    reports: list[BudgetReport] = []
    run = session("$0.10", told=told(on_hard_limit=reports.append))
    way.pay(run, call())
    way.authorize(run, call())
    way.authorize(run, call())
    run.raise_limits(max_cost_usd="0.20")
    way.pay(run, call())
    way.authorize(run, call())
    assert len(reports) == 2


def test_a_loop_is_told_of_when_it_is_noticed_and_when_it_is_stopped() -> None:
    reports: list[BudgetReport] = []
    run = session(Budget("$1", loop=LoopPolicy(max_repeats=2)), told=told(on_loop_detected=reports.append))

    @run.track_tool(cost=0)
    def look(where: str) -> str:
        return "nothing"

    with run, pytest.raises(Exception, match="look"):
        for _ in range(9):
            look("here")
    assert len(reports) == 2


async def test_an_async_callback_is_awaited() -> None:
    done = asyncio.Event()

    async def warn(report: BudgetReport) -> None:
        done.set()

    run = session("$0.10", told=told(on_soft_limit=warn))
    (await run.aauthorize(call())).require().commit(Usage(input=1))
    await asyncio.wait_for(done.wait(), 10)


def test_a_callback_that_fails_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def fail(report: BudgetReport) -> None:
        raise ValueError("no mail today")

    run = session("$0.10", told=told(on_soft_limit=fail))
    run.authorize(call()).require().commit(Usage(input=1))
    assert run.spent_usd == Decimal("0.10") and "no mail today" in caplog.text


@pytest.mark.parametrize("name", ["run_log", "on_soft_limit", "on_hard_limit", "on_loop_detected", "on_downgrade"])
@pytest.mark.parametrize("wrong", ["runs.db", 5, RunLog])
def test_what_cannot_be_told_is_refused(name: str, wrong: Any) -> None:
    needed = "RunLog(" if name == "run_log" else "a function of the report"
    with pytest.raises(TypeError, match=rf"{name}=.*cannot be told anything: give .*{re.escape(needed)}"):
        Budget("$1").session(**{name: wrong})


# --- the record of a run


def work(run: Session) -> None:
    run.authorize(call("large", tokens=100)).require().commit(Usage(input=60, cache_read=40, output=20))
    run.authorize(ToolCall("search", 10_000_000)).require().commit_cost("0.01")


@pytest.mark.parametrize("awaited", [False, True])
def test_a_session_that_is_closed_leaves_one_record(tmp_path: Path, awaited: bool) -> None:
    log = RunLog(tmp_path / "runs.db")
    run = session(Budget("$1", task="summarise"), run_id="r1", told=told(run_log=log))

    async def in_a_block() -> None:
        async with run:
            work(run)

    if awaited:
        asyncio.run(in_a_block())
    else:
        with run:
            work(run)
    run.close()

    (record,) = log
    assert record == RunRecord(
        id="r1",
        task="summarise",
        started_at=record.started_at,
        seconds=record.seconds,
        outcome="ok",
        cost=10_300_000,
        input_tokens=100,
        output_tokens=20,
        calls=1,
        tool_calls=1,
        limit=1_000_000_000,
        by_model={"large": 300_000},
        by_tool={"search": 10_000_000},
        price_version=record.price_version,
    )
    assert record.price_version


def test_a_record_says_how_the_run_ended(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    with session("$0.10", told=told(run_log=log)) as run:
        run.authorize(call()).require().commit(Usage(input=1))
        run.authorize(call())
    with pytest.raises(ArithmeticError), session(told=told(run_log=log)):
        raise ArithmeticError
    with session(told=told(run_log=log)) as run:
        run.outcome = "abandoned"

    assert [(each.outcome, each.terminated_by) for each in log] == [
        ("stopped", "max_cost_usd"),
        ("failed", None),
        ("abandoned", None),
    ]
    assert advise(log).stopped == 1


def test_a_record_that_cannot_be_kept_breaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Full:
        def add(self, record: RunRecord) -> None:
            raise OSError("no space left")

    with session(told=told(run_log=Full())):
        pass
    assert "no space left" in caplog.text


def test_budgets_and_authorities_take_them_all(tmp_path: Path) -> None:
    log, reports = RunLog(tmp_path / "runs.db"), list[BudgetReport]()
    authority = BudgetAuthority(ceilings={"user": Budget("$9")}, pricing=PRICES)
    callbacks: dict[str, Any] = {"run_log": log, "on_soft_limit": reports.append}

    async def opened() -> Session:
        return await authority.asession(Budget("$0.10"), user="u1", **callbacks)

    for run in (
        Budget("$0.10").session(pricing=PRICES, **callbacks),
        authority.session(Budget("$0.10"), user="u1", **callbacks),
        asyncio.run(opened()),
    ):
        with run:
            run.authorize(call()).require().commit(Usage(input=1))
    assert len(reports) == len(list(log)) == 3
