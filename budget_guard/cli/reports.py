"""``budget-guard report`` and ``advise``: what runs spent, and what cap to give them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from budget_guard.cli.answer import WRONG_USE, Answer, Failure
from budget_guard.cli.ledgers import opened
from budget_guard.ledger.flow import drive
from budget_guard.reporting.advice import advise
from budget_guard.reporting.posting import Posting
from budget_guard.reporting.records import RunLog
from budget_guard.reporting.report import BudgetReport
from budget_guard.reporting.spend import RunSpend, TaskSpend, as_plain
from budget_guard.reporting.totals import Totals
from budget_guard.session.run_report import report_of
from budget_guard.units.amounts import Amounts
from budget_guard.units.money import cost_nano, to_usd
from budget_guard.units.usage import Usage

_FORMS = "a report (model_dump_json()), the file of a JsonlSink, or a ledger's URL with --run"


def add_to(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands."""
    report = command("report", _report, "what was spent, by model, agent, tool and task")
    report.add_argument("source", metavar="FILE_OR_URL", help=_FORMS)
    report.add_argument("--run", metavar="ID", help="one run alone; needed for a ledger's URL")
    report.add_argument("--html", metavar="OUT", type=Path, help="write a page that loads nothing")
    report.add_argument("--csv", metavar="OUT", type=Path, help="write comma-separated values")
    report.add_argument("--markdown", action="store_true", help="print Markdown")
    advice = command("advise", _advise, "what cap to give a kind of work, from the records of its runs")
    advice.add_argument("log", metavar="RUNLOG", help="the file of a RunLog, such as runs.db or runs.jsonl")
    advice.add_argument("--task", help="the kind of work alone; else each one in turn")


def _report(given: argparse.Namespace) -> Answer:
    report = _of_ledger(given) if "://" in given.source else _of_file(given.source, given.run)
    written: list[str] = []
    for write, path in ((report.to_html, given.html), (report.to_csv, given.csv)):
        if path is not None:
            write(path)
            written.append(f"written: {path}")
    data = json.loads(report.model_dump_json())
    if given.markdown:
        return Answer(data, report.to_markdown().rstrip(), notes=tuple(written))
    return Answer(data, str(report.table()), notes=tuple(written))


def _of_ledger(given: argparse.Namespace) -> BudgetReport:
    """What a ledger knows of a run: how much it took, and by its usage history what for."""
    if not given.run:
        raise Failure("a ledger has many runs: name one with --run ID", WRONG_USE)
    with opened(given.source) as ledger:
        try:
            return drive(report_of(given.run), ledger)
        except KeyError:
            raise Failure(f"no run {given.run!r} is known there: sessions have it as session.id") from None


def _of_file(path: str, run: str | None) -> BudgetReport:
    text = sys.stdin.read() if path == "-" else _read(path)
    try:
        first: Any = json.loads(text.lstrip().partition("\n")[0] or "null")
    except ValueError:
        first = None
    if isinstance(first, dict) and "decision_id" in first:
        return _of_usage(_lines(text, path), run)
    try:
        report = BudgetReport.model_validate_json(text)
    except ValidationError:
        raise Failure(f"{path} is nothing that a report can be made of: give {_FORMS}") from None
    if run is not None and report.session_id != run:
        raise Failure(f"{path} is the report of {report.session_id!r}, not of {run!r}")
    return report


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Failure(f"{path} is no text: give {_FORMS}") from None
    except OSError as error:
        raise Failure(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from None


def _lines(text: str, path: str) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield cast("Mapping[str, Any]", json.loads(line))
            except ValueError:
                raise Failure(f"{path}, line {number} is no JSON: it may have been cut off; take it out") from None


def _of_usage(lines: Iterator[Mapping[str, Any]], run: str | None) -> BudgetReport:
    """The report of the calls that a sink has written down: all of them, whatever their number."""
    latest: dict[str, Mapping[str, Any]] = {}
    for line in lines:
        if "decision_id" in line and (run is None or line.get("run_id") == run):
            latest[str(line["decision_id"])] = line  # a correction replaces the estimate
    if not latest:
        raise Failure("there is no call in it" + ("" if run is None else f" of the run {run!r}"))
    ordered = sorted(latest.values(), key=lambda line: str(line.get("at", "")))
    totals, events = Totals(), list[dict[str, Any]]()
    tasks, runs = _Sums(), _Sums()
    try:
        start = datetime.fromisoformat(str(ordered[0]["at"]))
        end_s = 0.0
        for line in ordered:
            at_s = (datetime.fromisoformat(str(line["at"])) - start).total_seconds()
            end_s = max(end_s, at_s)
            posting = _posting(line, at_s)
            totals.add(posting, posting.agent)
            events.append(_event(line, posting))
            run_id, task = str(line.get("run_id")), line.get("task")
            runs.add(run_id, posting, run_id)
            if task:
                tasks.add(str(task), posting, run_id)
    except (KeyError, TypeError, ValueError, InvalidOperation) as error:
        raise Failure(f"a line of it is not that of a JsonlSink: {type(error).__name__}: {error}") from None
    whole = totals.total()
    return BudgetReport(
        session_id=next(iter(runs.spends)) if len(runs.spends) == 1 else f"{len(runs.spends):,} runs",
        budget={},
        tags={},
        total_spent=to_usd(whole.cost),
        reserved=Decimal(0),
        remaining=None,
        breakdown=totals.breakdown(),
        by_agent=totals.by_agent(),
        duration_seconds=end_s,
        terminated_by=None,
        unpriced_calls=totals.unpriced_calls,
        uncertain=to_usd(totals.uncertain),
        from_provider=to_usd(totals.from_provider),
        overrun=Decimal(0),
        bound_violations=0,
        events=events,
        by_task=tasks.spends,
        runs=[]
        if len(runs.spends) == 1
        else [RunSpend(session_id=name, total_spent=spend.total) for name, spend in runs.spends.items()],
        started_at=start,
        over_time=totals.over_time(),
    )


def _posting(line: Mapping[str, Any], at_s: float) -> Posting:
    tokens: Mapping[str, int] = line["tokens"]
    read, written = int(tokens["input_tokens"]), int(tokens["output_tokens"])
    cached, reasoning = int(tokens.get("cached_tokens", 0)), int(tokens.get("reasoning_tokens", 0))
    is_model = line["kind"] == "model"
    amounts = Amounts(
        cost_nano(Decimal(line["cost_usd"])), read, written, read + written, int(is_model), int(not is_model)
    )
    usage = Usage(cache_read=cached, cache_write_5m=int(tokens.get("cache_written_tokens", 0)), reasoning=reasoning)
    flags = (bool(line.get("uncertain")), bool(line.get("unpriced")), False)
    agent = line.get("agent")
    return Posting(
        *(at_s, str(line["decision_id"]), str(line["name"]), amounts, 0, *flags),
        source=line.get("source", "price"),
        agent=None if agent is None else str(agent),
        usage=usage,
    )


def _event(line: Mapping[str, Any], posting: Posting) -> dict[str, Any]:
    amounts, usage = posting.amounts, posting.usage or Usage()
    return {
        "event": "CallCommitted",
        "at_s": posting.at_s,
        "decision_id": posting.id,
        "kind": line["kind"],
        "name": posting.name,
        "cost_usd": str(line["cost_usd"]),
        "uncertain": posting.uncertain,
        "source": posting.source,
        "agent": posting.agent,
        "input_tokens": amounts.input_tokens,
        "cached_tokens": usage.cached,
        "output_tokens": amounts.output_tokens,
        "reasoning_tokens": usage.reasoning,
        "unpriced": posting.unpriced,
    }


class _Sums:
    """Sums by a name, and of how many runs each is."""

    def __init__(self) -> None:
        self.spends: dict[str, TaskSpend] = {}
        self._runs: dict[str, set[str]] = {}

    def add(self, name: str, posting: Posting, run_id: str) -> None:
        """Add *posting* to the sum of *name*."""
        known, amounts = self.spends.get(name, TaskSpend()), posting.amounts
        runs = self._runs.setdefault(name, set())
        runs.add(run_id)
        self.spends[name] = TaskSpend(
            total=known.total + to_usd(amounts.cost),
            calls=known.calls + amounts.requests,
            tool_calls=known.tool_calls + amounts.tool_calls,
            runs=len(runs),
        )


def _advise(given: argparse.Namespace) -> Answer:
    if not Path(given.log).exists():
        raise Failure(f"{given.log} is not there: sessions write one with run_log=RunLog({given.log!r})")
    log = RunLog(given.log)
    records = list(log.records())
    tasks = [given.task] if given.task else sorted({record.task for record in records}, key=lambda task: task or "")
    if not records or (given.task and all(record.task != given.task for record in records)):
        raise Failure("there is no record of a run in it" + (f" of the task {given.task!r}" if given.task else ""))
    data: list[dict[str, Any]] = []
    blocks: list[str] = []
    for task in tasks:
        advice = advise([record for record in records if record.task == task])
        data.append({"task": task, **as_plain(asdict(advice)), "suggested_cap_usd": _text(advice.suggested_cap_usd)})
        blocks.append(f"{task or '(no task)'}\n{advice}")
    notes = (f"{log.skipped:,} records were left out: they cannot be read",) if log.skipped else ()
    return Answer(data, "\n\n".join(blocks), notes=notes)


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:f}"
