"""What the command answers to many command lines, right and wrong ones, and what its parts make of many values.

Run ``python -m tests.cli.reference.make`` to write them down in `answers.txt.gz`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from budget_guard import Budget, BudgetAuthority, BudgetRevoked, PriceTable, UnknownPriceError, Usage
from budget_guard.cli import demo, doctor, main, prices, watch
from budget_guard.cli.answer import Answer, Failure, columns
from budget_guard.cli.run.dotenv import Setting, settings_in, settings_near
from budget_guard.cli.run.environment import Plan
from budget_guard.clock import SystemClock
from budget_guard.events.sinks import JsonlSink
from budget_guard.ledger.sqlite import SqliteLedger
from budget_guard.reporting import BudgetReport, RunLog, RunRecord
from budget_guard.testing import FakeClock
from tests.builders import PRICES, call, session
from tests.reference_text import lines_under, without_ids
from tests.reporting.runs import EVIL, run

_START = datetime(2026, 11, 1, tzinfo=timezone.utc)
_TABLE = Path(__file__).parents[2] / "pricing" / "reference" / "table.json"


def _run(*arguments: object, columns: int = 90, given: str = "") -> Iterator[str]:
    """What a command line says, as text and as JSON."""
    for more in ((), ("--json",)):
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, {"COLUMNS": str(columns)}),
            mock.patch("sys.stdin", io.StringIO(given)),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                status: Any = main.main([str(each) for each in (*arguments, *more)])
            except SystemExit as ended:
                status = ended.code
        yield f"$ {' '.join(str(each)[:60] for each in (*arguments, *more))}: {status}"
        yield from (out.getvalue() + err.getvalue()).split("\n")


# What models cost


def _prices() -> Iterator[str]:
    table = PriceTable.load(_TABLE)
    day = datetime.combine(table.as_of, datetime.min.time(), timezone.utc)
    names = (
        "gpt-4o",
        "o3",
        "gemini-2.5-pro",
        "claude-sonnet-4-5",
        "sonar-pro",
        "deepseek-chat",
        "nobody",
        "gpt-4o-minni",
    )
    lines: list[tuple[object, ...]] = [("prices",), ("prices", *names[:6]), ("prices", "--provider", "azure", "gpt-4o")]
    lines += [("prices", name) for name in names]
    lines += [("prices", "--tier", tier, name) for tier in ("flex", "batch", "odd") for name in names[:3]]
    for name in names[:2]:
        for read, written, *more in _COUNTS:
            lines.append(("estimate", name, "--input", read, "--output", written, *more))
    with mock.patch.object(PriceTable, "bundled", return_value=table):
        for days in (0, 90, 91):
            clock = FakeClock(day + timedelta(days=days))
            with mock.patch.object(prices, "SYSTEM_CLOCK", clock):
                for line in lines if days == 0 else lines[3:8]:
                    yield from _run(*line, columns=(60, 120)[len(line) % 2])


_COUNTS: tuple[tuple[object, ...], ...] = (
    (0, 0),
    ("1,000", "1_000"),
    (300_000, 20, "--cached", 300_000),
    (300_000, 20, "--cached", 300_001),
    (10, 10, "--calls", 0),
    (10, 10, "--calls", 1),
    (10, 10, "--calls", 2, "--tier", "flex"),
    (10, 1_000_000, "--provider", "openai"),
    (10**12, 1),
    (10**12 + 1, 1),
    ("-1", 1),
    ("x", 1),
    ("²", 1),
)


# What was spent


def _reports() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for line in _of_reports(folder):
            yield without_ids(line).replace(name, "")


def _of_reports(folder: Path) -> Iterator[str]:
    sink, one = folder / "usage.jsonl", folder / "one.jsonl"
    for number, task in enumerate(("write", "read", None)):
        clock = FakeClock(_START + timedelta(days=number))
        opened = session(Budget("$5", task=task, unpriced="allow"), run_id=f"r{number}", clock=clock)
        opened.subscribe(JsonlSink(sink))
        if number == 0:
            opened.subscribe(JsonlSink(one))
        for at in range(4):
            clock.advance(7)
            asked = call("unheard-of" if at == 3 else "large", cap=90, agent=("writer", None)[at % 2])
            usage = Usage(input=500, cache_read=30, cache_write_5m=4 if at == 2 else 0, output=9 * at, reasoning=at)
            opened.authorize(asked).require().commit(None if at == 1 else usage)
        opened.charge("search", "0.01", agent="writer")
        opened.close()
    lines = sink.read_text().splitlines()
    (folder / "report.json").write_text(run(12, run_id="r1").report().model_dump_json())
    (folder / "bytes").write_bytes(b"\xff\xfe\x00")
    for name, said in _odd_files(lines).items():
        (folder / name).write_text(said)
    for source in (
        sink,
        one,
        "report.json",
        "bytes",
        "missing",
        "",
        "memory://",
        "x://y",
        "sqlite:///missing.db",
        *_ODD,
    ):
        path = folder / source if isinstance(source, str) and source and "://" not in source else source
        yield from _run("report", path)
        yield from _run("report", path, "--run", "r1")
    for more in (("--run", "r2"), ("--run", "nobody"), ("--markdown",), ("--html", folder / "r.html"), ("--run", "")):
        yield from _run("report", sink, *more, columns=70)
    yield from _run("report", sink, "--csv", folder / "r.csv", "--html", folder / "r.html", "--markdown")
    yield from (folder / "r.csv").read_text().split("\n")
    for given in ("", "\n", sink.read_text(), (folder / "report.json").read_text(), "{", "null"):
        yield from _run("report", "-", given=given)
    yield from _of_logs(folder)


_ODD = ("empty", "text", "a list", "cut off", "no tokens", "no time", "odd cost", "shuffled", "twice", "blank lines")


def _odd_files(lines: Sequence[str]) -> dict[str, str]:
    plain = json.loads(lines[0])

    def without(name: str) -> str:
        return json.dumps({key: value for key, value in plain.items() if key != name})

    return {
        "empty": "",
        "text": "no report\n",
        "a list": "[1]\n",
        "cut off": "\n".join(lines)[:-20],
        "no tokens": f"{lines[1]}\n{without('tokens')}\n",
        "no time": f"{lines[1]}\n{without('at')}\n",
        "odd cost": json.dumps(plain | {"cost_usd": "much"}),
        "shuffled": "\n".join(reversed(lines)),
        "twice": "\n".join([*lines, json.dumps(plain | {"cost_usd": "2.5", "run_id": 5, "agent": 7, "task": ""})]),
        "blank lines": "\n\n".join(lines) + "\n\n{}\n",
    }


def _of_logs(folder: Path) -> Iterator[str]:
    for ending in ("jsonl", "db"):
        path = folder / f"runs.{ending}"
        yield from _run("advise", path)
        log = RunLog(path)
        yield from _run("advise", path)
        for at in range(9):
            log.add(
                RunRecord(id=f"r{at}", task=("b", "a", None)[at % 3], started_at=_START, outcome="ok", cost=at * 10**7)
            )
        for more in ((), ("--task", "a"), ("--task", "none"), ("--task", "")):
            yield from _run("advise", path, *more)
    with (folder / "runs.jsonl").open("a") as file:
        file.write('{"version": 1, "id": "x"}\n')
    yield from _run("advise", folder / "runs.jsonl", "--task", "a")


# Ledgers


def _ledger() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for line in _on_a_ledger(folder):
            yield without_ids(line).replace(name, "")


def _on_a_ledger(folder: Path) -> Iterator[str]:
    path = folder / "a budget.db"
    url = f"sqlite:///{str(path).replace(' ', '%20')}"
    clock = FakeClock(_START)
    ledger = SqliteLedger(path, clock=clock)
    yield from _run("top", url, "user")
    ceilings = {"user": Budget("$5.00", max_requests=40, window="day"), "team": Budget("$1", mode="advisory_estimate")}
    authority = BudgetAuthority(ledger, ceilings, pricing=PRICES, clock=clock)
    users = ("alice", "bob", EVIL, "carol")
    for number in range(8):
        opened = authority.session(Budget("$1"), user=users[number % 4], team="t1", run_id=f"r{number}")
        opened.authorize(call("large", cap=90)).require().commit(None if number == 3 else Usage(input=500, output=90))
        opened.charge("serp", "0.01")
        if number in (4, 6):
            opened.authorize(call("large", cap=90 * number)).require().forward()
        else:
            opened.close()
        clock.advance(20_000)
    ledger.close()
    with mock.patch.object(SystemClock, "now", lambda _: clock.now()), _now_ms(clock):
        for line in _LEDGER_LINES:
            yield from _run(*[url if each == "URL" else each for each in line], columns=(64, 100)[len(line) % 2])


def _now_ms(clock: FakeClock) -> Any:
    return mock.patch.object(SystemClock, "now_ms", lambda _: clock.now_ms())


_LEDGER_LINES: tuple[tuple[object, ...], ...] = (
    ("top", "URL", "user", "--since", "2026-11-01", "--until", "2026-11-02"),
    ("top", "URL", "user", "--since", "2026-11-02"),
    ("top", "URL", "user", "--since", "yesterday"),
    ("top", "URL", "user", "-n", "2"),
    ("top", "URL", "user", "-n", "0"),
    ("top", "URL", "customer"),
    ("top", "URL", "key"),
    ("top", "URL", "run", "--until", "2026-11-03"),
    ("list", "URL", "user", "--prefix", "car"),
    ("list", "URL", "customer"),
    ("show", "URL", "run", "r3"),
    ("show", "URL", "run", "r4"),
    ("show", "URL", "team", "t1"),
    ("show", "URL", "user", EVIL),
    ("show", "URL", "user", "nobody"),
    ("show", "URL", "customer", "c"),
    ("set-ceiling", "URL", "user", "bob"),
    ("set-ceiling", "URL", "user", "bob", "--none", "--usd", "3"),
    ("set-ceiling", "URL", "run", "r1", "--usd", "3"),
    ("set-ceiling", "URL", "user", "bob", "--usd", "much"),
    ("set-ceiling", "URL", "user", "bob", "--usd", "3", "--window", "week", "--advisory"),
    ("set-ceiling", "URL", "user", "bob", "--tokens", "900", "--tool-calls", "7", "--max-runs", "4", "--window", "day"),
    ("set-ceiling", "URL", "customer", "c", "--requests", "5"),
    ("set-ceiling", "URL", "user", "bob", "--none"),
    ("revoke", "URL", "user", "carol"),
    ("revoke", "URL", "user", "carol", "--reason", "leaked \x1b[31m"),
    ("show", "URL", "user", "carol"),
    ("restore", "URL", "user", "carol"),
    ("restore", "URL", "user", "carol"),
    ("revoke", "URL", "customer", "c", "--reason", "left"),
    ("audit", "URL"),
    ("reconcile", "URL", "--most", "0"),
    ("reconcile", "URL", "--dry-run", "--most", "1"),
    ("report", "URL"),
    ("report", "URL", "--run", "r1"),
    ("report", "URL", "--run", "nobody"),
    ("watch", "URL", "user:alice", "team:t1", "--once"),
    ("watch", "URL", "user:alice", "user:nobody"),
    ("watch", "URL", "alice"),
    ("watch", "URL", ":alice"),
    ("watch", "URL", "user:"),
    ("watch", "URL", "user:a", "--every", "0.09"),
    ("watch", "URL", "user:a", "--every", "3601"),
    ("watch", "URL", "user:a", "--every", "3600", "--once"),
    ("watch", "URL", "user:a", "--every", "0.1", "--once"),
    ("audit", "memory://"),
    ("audit", "budget.db"),
)


def _boards() -> Iterator[str]:
    """A board that looks again and again, and whose ledger says something else each time."""
    clock = FakeClock(_START)
    authority = BudgetAuthority(None, {"user": Budget("$5")}, pricing=PRICES, clock=clock)
    opened = authority.session(Budget("$1"), user="u1", run_id="r1")
    with mock.patch.object(watch, "SYSTEM_CLOCK", clock), mock.patch.dict(os.environ, {"COLUMNS": "80"}):
        for words in (("user:u1",), ("user:u1", "run:r1"), ("user:u1", "user:nobody")):
            board = watch.Board(authority.ledger, [watch._scope(each) for each in words])
            for step in (0, 1, 3.9, 0.1, 30, 25, 10, 61, 200):
                clock.advance(step)
                opened.charge("search", "0.01")
                yield f"{words} {step}: {board.look()}"
                yield from board.text().split("\n")
                yield from (f"{[tuple(piece) for piece in line]}" for line in board.lines(40))
        opened.revoke("enough")
        board.look()
        yield board.text()


# How it fails

_ERRORS: tuple[BaseException, ...] = (
    *(
        Failure("no way"),
        Failure("no way", 2),
        KeyboardInterrupt(),
        ValueError("odd"),
        TypeError("odd"),
        OSError("away"),
    ),
    *(
        ImportError("no module"),
        KeyError("nobody"),
        KeyError(),
        RuntimeError("bug"),
        RuntimeError(),
        OSError(),
        ImportError(),
    ),
    UnknownPriceError(model="m"),
    BudgetRevoked(scope="user:u1", reason="leaked", at=_START),
    ValueError("sqlite://user:secret@host/x and redis://:secret@h:1/0?a=b\n\nhttp:/bad \x1b[31m"),
)


def _failures() -> Iterator[str]:
    for error in _ERRORS:
        with mock.patch.object(main, "_perform", side_effect=error):
            for line in _run("audit", "x"):
                yield f"{type(error).__name__}: {line}"
    answer = Answer({"a": Decimal("1.5")}, "", 1, ("one\nnote", "sqlite://u:secret@h/x"))
    for each in (answer, answer._replace(text="text", status=0), Answer(None)):
        for as_json in (True, False):
            perform = Namespace(perform=lambda given, each=each: each, json=as_json)
            parser = mock.Mock(parse_args=mock.Mock(return_value=perform))
            with mock.patch.object(main, "parser", return_value=parser):
                yield from _run("audit")


def _columns() -> Iterator[str]:
    chance = random.Random(1)
    words = ("", "a", "a name", "a name that is long", "日本語", "x" * 40, "1,234", "\x1b[31m")
    for _ in range(160):
        width, names = chance.choice([1, 12, 20, 24, 30, 40, 200]), chance.choice([1, 2])
        heads = [chance.choice(["Name", "Dollars", "A"]) for _ in range(3)]
        rows = [[chance.choice(words) for _ in range(3)] for _ in range(chance.choice([0, 1, 2, 4]))]
        yield f"{width} {names} {heads} {rows}: {columns(heads, rows, width, names=names)!r}"


# Programs on a budget

_VARIABLES = (
    *("OPENAI_API_KEY", "OPENAI_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"),
    *(
        "GEMINI_API_KEY",
        "GROQ_API_KEY",
        "GROQ_API_BASE",
        "AZURE_OPENAI_API_KEY",
        "AZURE_OPENAI_ENDPOINT",
        "MINE_API_KEY",
    ),
    *("AWS_BEARER_TOKEN_BEDROCK", "AWS_REGION", "AWS_DEFAULT_REGION", "GOOGLE_VERTEX_BASE_URL", "MINE_BASE_URL"),
    *("HF_TOKEN", "HEADERS", "OTHER", "EMPTY", "NO_PROXY", "no_proxy", "PATH"),
)
_VALUES = (
    *(
        "sk-a-key-of-ours",
        "sk-another-key",
        "short",
        " sk-a-key-of-ours ",
        "",
        "x-api-key: sk-a-key-of-ours",
        "eu-west-1",
    ),
    *(
        "sk-proj-abcdefghijklmnopqrst",
        "gsk_abcdefghijklmnopqrstuvwx",
        "https://api.openai.com/v1",
        "http://localhost:8000",
    ),
    *("https://me.openai.azure.com/", "https://llm.example/openai/v1beta2/", "plain"),
)
_UPSTREAMS = (
    *(
        "openai",
        "gemini",
        "azure=https://me.openai.azure.com",
        "mine=http://localhost:9",
        "mine=https://mine.example/v1",
    ),
    *("openai=http://localhost:8000/v1", "bedrock", "odd", "=x", "openai="),
)


def _plans() -> Iterator[str]:
    chance = random.Random(2)
    for number in range(500):
        environ = {name: chance.choice(_VALUES) for name in _VARIABLES if chance.random() < 0.25}
        settings = {
            name: Setting(
                chance.choice([each for each in _VALUES if each]).strip(), Path(f"/{chance.choice('ab')}/.env")
            )
            for name in _VARIABLES
            if chance.random() < 0.08
        }
        upstreams = chance.sample(_UPSTREAMS, chance.choice([0, 0, 1, 2]))
        kept = chance.sample(_VARIABLES, chance.choice([0, 0, 2]))
        shown = f"{number} {environ} { {name: value.value for name, value in settings.items()} } {upstreams} {kept}"
        try:
            plan = Plan(environ, settings, upstreams, kept)
        except Failure as failure:
            yield f"{shown}: {failure.status} {failure}"
            continue
        made = plan.environment("http://127.0.0.1:1", "TOKEN")
        changed = {name: value for name, value in sorted(made.items()) if environ.get(name) != value}
        told = (plan.targets, plan.kept, plan.taken_out, sorted(plan.in_files), sorted(plan.absent), len(plan.absent))
        gone, carries = sorted(environ.keys() - made.keys()), plan.carries_key("a sk-a-key-of-ours")
        yield f"{shown}: {told} {changed} {gone} {carries}"
    yield f"{Plan({'OPENAI_API_KEY': 'k'}, {}).absent}"


_TEXTS = (
    "A=1\nB = two words # not this\nexport C='it''s'\nD=\"a \\\"b\\\"\"\n# E=5\nF=\nG = ''\n H=8\r\nA=2\n1X=3\nI=a#b\n",
    "",
    "no settings",
    "A='1\nB=2",
    'A="',
    "\tA\t=\t1\t\n",
)


def _dotenv() -> Iterator[str]:
    for at, said in enumerate(_TEXTS):
        yield f"{at}: {list(settings_in(said))}"
    with tempfile.TemporaryDirectory() as name:
        above, here, script = Path(name), Path(name) / "here", Path(name) / "there" / "in"
        for folder in (here, script):
            folder.mkdir(parents=True)
        for folder in (above, here, script.parent):
            (folder / ".env").write_text(f"FROM={folder.name[:5]}\nA_{folder.name[:4]}=x\n".replace(name, ""))
        (above / ".env.local").write_text("LOCAL=1\n")
        (script / "a.py").write_text("")
        (script / "b.py").write_text("")
        for command in (
            (),
            ("python", "../there/in/a.py"),
            ("python", "-m", "x"),
            ("../there/in/a.py", "../there/in/b.py"),
        ):
            for folder in (above, here, script):
                found = settings_near(command, folder)
                shown = {key: (value.value, str(value.file.relative_to(name))) for key, value in found.items()}
                yield f"{command} {folder.name[:5]}: {shown}".replace(above.name[:5], "above").replace(
                    above.name[:4], "abov"
                )


# Adapters that are looked at

_SEEN: Mapping[str, Sequence[Any]] = {
    "spent_usd": ["0", "0.04", "0.05", "0.050000001"],
    "bill_usd": ["0", "0.04", "0.05", "0.050000001"],
    "stopped_by": ["max_cost_usd", "max_requests", None],
    "calls": [0, 3],
    "error": [None, "", "ValueError: odd"],
}


def _doctor() -> Iterator[str]:
    chance = random.Random(3)
    for adapter in doctor.ADAPTERS:
        yield f"{adapter} {adapter.remedy}"
        for _ in range(20):
            seen = {name: chance.choice(values) for name, values in _SEEN.items()}
            if chance.random() < 0.1:
                seen["crashed"] = "exit code 1"
            if chance.random() < 0.1:
                seen["missing"] = "openai"
            yield f"{adapter.name} {list(seen.values())}: {doctor.judged(adapter, seen)}"
        for installed in (None, "0.0.1", "999"):
            for can_try in (True, False):
                for driven in ({"crashed": "odd"}, subprocess.TimeoutExpired("x", 1)):
                    with (
                        mock.patch.object(doctor, "version", **_either(installed)),
                        mock.patch.object(doctor, "require", side_effect=ImportError if installed == "0.0.1" else None),
                        mock.patch.object(doctor, "_driven", side_effect=[driven]),
                    ):
                        yield f"{adapter.name} {installed} {can_try}: {doctor.look_at(adapter, can_try=can_try)}"
    for code, out, err in (
        (0, 'x\n{"a": 1}\n', ""),
        (0, "x", "odd\nlast\n"),
        (1, "{}", ""),
        (3, "", " "),
        (0, "", "y" * 400),
    ):
        done = subprocess.CompletedProcess([], code, out, err)
        given = {
            "OPENAI_API_KEY": "k",
            "http_proxy": "p",
            "X_BASE_URL": "u",
            "BUDGET_GUARD_PRICES": "b",
            "PATH": "/bin",
        }
        with (
            mock.patch("subprocess.run", return_value=done) as started,
            mock.patch.dict(os.environ, given, clear=True),
        ):
            yield f"{code} {out!r} {err[:20]!r}: {doctor._driven('openai')}"
            how = started.call_args.kwargs
            yield f"{started.call_args.args[0][1:]} {sorted(how)} {how['env']} {how['capture_output']} {how['stdin']}"
    found = [["openai", "1.2", "holds", "stopped at $0.05"], ["x" * 30, "", "not installed", "pip install " + "y" * 40]]
    for width in (60, 61, 80, 99, 100, 101, 200):
        yield f"{width}: {[doctor._line(row, found, width) for row in found]}"
    for tops, files in (
        ("budget_guard\n", ()),
        (None, ("budget_guard/x.py",)),
        ("other", ("budget_guardian/x.py",)),
        (None, None),
    ):
        for name in ("budget-guard-py", "Budget.Guard_py", "budgetguard", None):
            other = mock.Mock(metadata={"Name": name}, version="1", files=files, read_text=mock.Mock(return_value=tops))
            with mock.patch.object(doctor, "distributions", return_value=[other]):
                yield f"{tops!r} {files} {name}: {doctor._others()}"


def _either(installed: str | None) -> dict[str, Any]:
    return {"side_effect": PackageNotFoundError} if installed is None else {"return_value": installed}


def _bills() -> Iterator[str]:
    """The table of the demo, by what its provider's ledger says."""
    outcomes = [
        demo.Outcome(Decimal("1.23456"), Counter({"gpt-4o": 40}), "MaxTurnsExceeded"),
        demo.Outcome(Decimal("0.5"), Counter({"gpt-4o": 9, "gpt-4o-mini": 3}), "BudgetExceeded"),
        demo.Outcome(Decimal("0.500000001"), Counter(), "a final answer"),
    ]
    report = run(3, run_id="r1").report()
    there = dict.fromkeys(("agents", "starlette", "uvicorn"), ModuleType("there"))
    with mock.patch.dict(sys.modules, dict.fromkeys(there)):
        yield from _run("demo")
    with mock.patch.dict(sys.modules, there):
        yield from _of_demos(outcomes, report)


def _of_demos(outcomes: Sequence[demo.Outcome], report: BudgetReport) -> Iterator[str]:
    for first in outcomes:
        for second in outcomes:
            yield f"{demo._table(first, second)} {demo._plain(first)}"
            for total in (second.bill, second.bill + 1):
                told = report.model_copy(update={"total_spent": total})
                both = mock.AsyncMock(return_value=(first, second, told))
                with mock.patch.object(demo, "_both", both):
                    yield from _run("demo")
                    yield f"quiet {[each.kwargs for each in both.mock_calls]}"


TABLES: Mapping[str, Callable[[], Iterator[str]]] = {
    "prices": _prices,
    "reports": _reports,
    "a ledger": _ledger,
    "boards": _boards,
    "failures": _failures,
    "columns": _columns,
    "plans": _plans,
    "settings in files": _dotenv,
    "adapters": _doctor,
    "bills": _bills,
}
NAMES: Sequence[str] = tuple(TABLES)


def lines_of(name: str) -> Iterator[str]:
    """The lines of that table."""
    yield from lines_under(name, TABLES[name]())
