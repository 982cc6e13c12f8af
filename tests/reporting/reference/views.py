"""Every view of made-up reports, and every answer of the command to them, line by line.

Run ``python -m tests.reporting.reference.make`` to write them down in `views.txt.gz`.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextvars import Context
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from budget_guard import Budget, BudgetAuthority, BudgetReport, MemoryLedger, Usage
from budget_guard.cli.main import main
from budget_guard.ledger.sqlite import SqliteLedger
from budget_guard.reporting import RunLog, RunRecord, advise, forecast, text
from budget_guard.testing import FakeClock
from tests.builders import PRICES, call, session
from tests.reference_text import without_ids
from tests.reporting.reference.values import VALUES
from tests.reporting.runs import EVIL, run, stopped
from tests.session.reference.accounts import Account

_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?|\d\d:\d\d:\d\d")
_START = datetime(2026, 11, 1, tzinfo=timezone.utc)


def _of_account(number: int) -> BudgetReport:
    def told() -> BudgetReport:
        account = Account(number)
        list(account.steps())
        return account.session.report()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Context().run(told)  # inside of no hold of others


def _many_limits() -> BudgetReport:
    budget = Budget("$5", max_total_tokens=90_000, max_requests=30, max_tool_calls=9, max_duration_s=500, task="write")
    return run(25, budget, run_id="limits", tags={"user": "u1"}).report()


def _overrun() -> BudgetReport:
    opened = session(Budget("$0.01"), run_id="over", clock=FakeClock())
    opened.authorize(call("large", cap=90)).require().commit(Usage(input=90_000, output=2_000))
    opened.authorize(call("unheard-of", cap=90))
    return opened.report()


def _over(seconds: float) -> BudgetReport:
    """A run that takes so long."""
    clock = FakeClock()
    opened = session(Budget("$1", task="write"), run_id="long", clock=clock)
    for number in range(6):
        opened.authorize(call("large", cap=90)).require().commit(Usage(input=900, output=80 * number))
        clock.advance(seconds / 6)
    return opened.report()


def _of_little() -> BudgetReport:
    """A report whose events tell no more than they must, as those of an older version may."""
    report = run(5, run_id="r1").report()
    kept = ("event", "at_s", "decision_id", "name", "cost_usd")
    events = [{name: event[name] for name in kept if name in event} for event in report.events]
    return report.model_copy(update={"events": tuple(events)})


def _family(*, closed: bool = True) -> BudgetReport:
    """A run with two child sessions, whose agents start others, and whose calls end in many ways."""
    clock = FakeClock()
    opened = session(Budget("$5", unpriced="allow"), run_id="family", clock=clock, tags={"user": "`u1`"})
    for number in range(3):
        child = opened.child(Budget("$1", unpriced="allow"), f"child {number % 2} of {number}")
        for agent, started_by in (("`inner`", ("outer",)), ("outer", ()), (None, ())):
            asked = call("large", cap=90, agent=agent, started_by=started_by)
            usage = Usage(input=500, cache_read=200, cache_write_5m=70, output=80, reasoning=number)
            child.authorize(asked).require().commit(usage if agent else None)
            clock.advance(1)
        child.authorize(call("large", cap=9, agent="outer")).require().commit(Usage(input=9_000, output=900))
        child.authorize(call("unheard-of", cap=9)).require().commit(Usage(input=9, output=9))
        child.charge("search", "0.01", agent="outer")
        if closed or number < 2:
            child.close()
    opened.authorize(call("small", cap=90)).require()
    opened.charge("search", "0.02")
    return opened.report()


def _gone_on_with(which: int = 1) -> BudgetReport:
    """A run that is gone on with, as the process tells of it that has begun it, or the other one."""
    clock = FakeClock()
    authority = BudgetAuthority(MemoryLedger(clock=clock), {"user": Budget("$5")}, pricing=PRICES, clock=clock)
    reports: list[BudgetReport] = []
    for number in range(2):
        opened = authority.session(Budget("$1"), user="u1", run_id="r1")
        asked = call("large", cap=90, agent="writer")
        opened.authorize(asked).require().commit(Usage(input=500, cache_read=70, output=40 + number, reasoning=9))
        opened.authorize(asked).require().commit(None)
        opened.charge("search", "0.01", agent="writer")
        reports.append(opened.report())
        clock.advance(60)
    return reports[which]


DURATIONS = (0.4, 3, 45, 70, 600, 3_500, 3_700, 20_000, 80_000, 170_000, 400_000, 4_000_000)
REPORTS: Mapping[str, Callable[[], BudgetReport]] = {
    "no call": lambda: run(0, run_id="r1").report(),
    "one call": lambda: run(1, run_id="r1").report(),
    "60 calls": lambda: run(60, run_id="r1").report(),
    "tokens alone": lambda: run(40, Budget(max_total_tokens=4_000_000), run_id="r1").report(),
    "no limit": lambda: run(40, Budget.metered(), run_id="r1").report(),
    "stopped": lambda: stopped().report(),
    "evil names": lambda: run(9, Budget("$5", task=EVIL), agent=EVIL, tags={"user": EVIL}, run_id="r1").report(),
    "a sum": lambda: run(8, run_id="a").report() + run(40, run_id="b").report(),
    "many limits": _many_limits,
    "an overrun": _overrun,
    "of little": _of_little,
    "a family": _family,
    "a family that is open": partial(_family, closed=False),
    "gone on with": _gone_on_with,
    "a sum of one run": lambda: _gone_on_with(0) + _gone_on_with(1),
    "a sum of others": lambda: _family() + _overrun() + run(5, agent="writer", run_id="b").report(),
    **{f"over {seconds} s": partial(_over, seconds) for seconds in DURATIONS},
    **{f"account {number}": partial(_of_account, number) for number in range(4_000, 4_012)},
}
COMMANDS = "commands"
NAMES = (*REPORTS, "advice", COMMANDS, *VALUES)


def lines_of(name: str) -> Iterator[str]:
    """Every line of the views called *name*."""
    if name in VALUES:
        yield from (f"{name}: {line}" for line in VALUES[name]())
        return
    made = _of_commands() if name == COMMANDS else _of_advice() if name == "advice" else _of_report(REPORTS[name]())
    for line in made:
        yield f"{name}: {_MOMENT.sub('MOMENT', without_ids(line))}"


def _of_report(report: BudgetReport) -> Iterator[str]:
    yield str(report)
    yield repr(report)
    for columns in ("40", "80", "140"):
        with mock.patch.dict(os.environ, {"COLUMNS": columns}):
            yield from str(report.table()).split("\n")
    for line in text.lines(report, 80):
        yield " ".join(f"{part.style}:{part.text.strip()}" for part in line)
    yield from report.to_markdown().split("\n")
    yield report.model_dump_json(exclude={"budget", "events"})
    with tempfile.TemporaryDirectory() as folder:
        report.to_csv(Path(folder) / "report.csv")
        yield from (Path(folder) / "report.csv").read_text().split("\n")
        report.to_html(Path(folder) / "report.html")
        page = (Path(folder) / "report.html").read_text()
    yield from re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL).replace("><", ">\n<").split("\n")


def _records(number: int, task: str | None) -> list[RunRecord]:
    chance = random.Random(number)
    return [
        RunRecord(
            id=f"r{i}",
            task=task,
            started_at=_START + timedelta(hours=i * chance.choice([1, 5])),
            seconds=chance.choice([0, 3, 90]),
            outcome=chance.choice(["ok", "ok", "ok", "stopped", "failed", "abandoned"]),
            cost=chance.choice([0, 10_000_000, 20_000_000, 25_000_000, 300_000_000]),
            calls=chance.randint(0, 9),
            input_tokens=chance.choice([0, 900]),
            output_tokens=chance.choice([0, 80]),
            limit=chance.choice([None, 20_000_000, 500_000_000]),
            terminated_by=chance.choice([None, "max_cost_usd"]),
        )
        for i in range(chance.choice([0, 1, 3, 5, 8, 20, 40]))
    ]


def _of_advice() -> Iterator[str]:
    for number in range(60):
        records = _records(number, "write")
        told = advise(records), forecast(records, until=_START + timedelta(days=9), days=number + 1)
        yield from (f"{each} {each!r}" for each in told)


def _commands(folder: Path, url: str) -> Iterator[tuple[Any, ...]]:
    log = folder / "runs.jsonl"
    for kind in ("user", "team", "run", "feature"):
        yield "top", url, kind
        yield "list", url, kind
    yield "top", url, "user", "-n", "1"
    yield "list", url, "user", "--prefix", "a"
    for id in ("alice", "bob", "nobody"):
        yield "show", url, "user", id
    yield "show", url, "run", "r1"
    yield "set-ceiling", url, "user", "bob", "--usd", "$7", "--requests", "50", "--tokens", "900", "--window", "none"
    yield "set-ceiling", url, "team", "t1", "--none"
    yield "show", url, "user", "bob"
    yield "revoke", url, "user", "bob", "--reason", "leaked"
    yield "revoke", url, "user", "bob", "--reason", "again"
    yield "show", url, "user", "bob"
    yield "restore", url, "user", "bob"
    yield "restore", url, "user", "bob"
    yield "audit", url
    yield "reconcile", url, "--dry-run"
    yield "reconcile", url
    yield "reconcile", url
    yield "report", url
    yield "report", folder / "report.json"
    yield "advise", log
    yield "advise", log, "--task", "write"
    yield "advise", log, "--task", "unknown"
    yield "watch", url, "user:alice"


def _of_commands() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as name, mock.patch.dict(os.environ, {"COLUMNS": "90"}):
        folder = Path(name)
        clock = FakeClock(_START)
        ledger = SqliteLedger(folder / "budget.db", clock=clock)
        authority = BudgetAuthority(
            ledger, {"user": Budget("$5.00", max_requests=40), "team": Budget("$1")}, pricing=PRICES, clock=clock
        )
        for number, (user, model) in enumerate([("alice", "large"), ("bob", "small"), ("alice", "dime")] * 3):
            budget = Budget("$1.00", task="write")
            opened = authority.session(budget, user=user, team="t1", feature="search", run_id=f"r{number}")
            opened.authorize(call(model, cap=90)).require().commit(Usage(input=500, output=9 * number))
            opened.charge("serp", "0.01")
            if number == 4:  # its process dies
                opened.authorize(call("large", cap=90)).require().forward()
            else:
                opened.close()
            clock.advance(3_600)
        (folder / "report.json").write_text(run(12, run_id="r1").report().model_dump_json())
        log = RunLog(folder / "runs.jsonl")
        for record in (*_records(11, "write"), *_records(12, None)):
            log.add(record)
        ledger.close()
        for arguments in _commands(folder, f"sqlite:///{folder}/budget.db"):
            for more in ((), ("--json",)):
                out, err = io.StringIO(), io.StringIO()
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                    try:
                        status: Any = main([str(each) for each in (*arguments, *more)])
                    except SystemExit as ended:
                        status = ended.code
                shown = " ".join(str(each) for each in (*arguments, *more)).replace(str(folder), "")
                yield f"$ {shown}: {status}"
                yield from (out.getvalue() + err.getvalue()).replace(str(folder), "").split("\n")
