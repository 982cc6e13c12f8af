"""The parts of `budget-guard run` one by one: the row in the terminal, what is passed on to a program, what is said."""

from __future__ import annotations

import argparse
import io
import os
import re
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

pytest.importorskip("aiohttp")

from budget_guard import Budget
from budget_guard.cli.answer import Failure
from budget_guard.cli.run import child, command, status_row
from budget_guard.cli.run.child import CannotStart, Child, check_command
from budget_guard.live import Piece
from budget_guard_gateway.program import Coverage
from tests.reporting.runs import run as a_run

# --- the row


class Line:
    """A line of spend that says what a test wants."""

    def __init__(self) -> None:
        self.pieces = [Piece("$0.10", "ok"), Piece(" of $1", "plain"), Piece(" !", "stop")]
        self.changed: Callable[[], None] = lambda: None
        self.asked: list[int] = []
        self.is_over = False

    def lines(self, columns: int) -> list[list[Piece]]:
        self.asked.append(columns)
        return [self.pieces]

    def unsubscribe(self) -> None:
        self.is_over = True


class Screen:
    """A terminal, as those see it who write to standard error, and what is read of it on its other side."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import pty

        self._other, self._file = pty.openpty()
        self.stderr = open(self._file, "w", encoding="utf-8", closefd=False)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setattr(os, "tcgetpgrp", lambda _: os.getpgrp())
        self.resize(24)

    def resize(self, rows: int, columns: int = 80) -> None:
        import fcntl
        import struct
        import termios

        fcntl.ioctl(self._file, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def draws_itself(self) -> None:
        """Set it to the mode of programs that draw a screen."""
        import tty

        tty.setraw(self._file)

    def shown(self) -> str:
        """What was written since it was looked at last, without waiting for more."""
        os.write(self._file, b"|")
        found = b""
        while not found.endswith(b"|"):
            found += os.read(self._other, 4_096)
        return found[:-1].decode()

    def close(self) -> None:
        self.stderr.close()
        os.close(self._file)
        os.close(self._other)


has_terminals = pytest.mark.skipif(status_row.termios is None, reason="this system has no such terminals")


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    screen = Screen(monkeypatch)
    yield screen
    screen.close()


TEXT = "\x1b[32m$0.10\x1b[0m of $1\x1b[1;31m !\x1b[0m"


def made(rows: int) -> str:
    """The last of so many rows is taken."""
    return f"\x1bD\x1b7\x1b[1;{rows - 1}r\x1b8\x1b[1A"


def drawn(rows: int, text: str = TEXT) -> str:
    return f"\x1b7\x1b[{rows};1H\x1b[2K{text}\x1b8"


def cleared(rows: int) -> str:
    return f"\x1b7\x1b[r\x1b[{rows};1H\x1b[2K\x1b8"


def row_of(line: Line, stderr: Any, *, shown: bool = True) -> Any:
    with mock.patch.object(sys, "stderr", stderr):
        row: Any = status_row.StatusRow(line, shown=shown)  # type: ignore[arg-type]  # one that a test makes
    return row


@has_terminals
def test_the_row_is_made_once_drawn_again_and_taken_away(screen: Screen) -> None:
    line = Line()
    row = row_of(line, screen.stderr)
    row.draw()
    assert screen.shown() == ""  # no model was called
    row._note()
    row.draw()
    assert screen.shown() == made(24) + drawn(24) and line.asked == [79]
    row.draw()
    assert screen.shown() == drawn(24)
    screen.resize(30, 50)
    row.draw()
    assert screen.shown() == cleared(24) + made(30) + drawn(30) and line.asked[-1] == 49
    row.clear()
    assert screen.shown() == cleared(30)
    row.clear()
    assert screen.shown() == ""
    row.draw()
    assert screen.shown() == made(30) + drawn(30)


@has_terminals
def test_the_row_gives_way_where_there_is_no_room_or_the_terminal_is_another_programs(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = row_of(Line(), screen.stderr)
    row._note()
    screen.resize(5)
    row.draw()
    assert screen.shown() == made(5) + drawn(5)
    screen.resize(4)
    for expected in (cleared(5), ""):
        row.draw()
        assert screen.shown() == expected
    screen.resize(24)
    row.draw()
    assert screen.shown() == made(24) + drawn(24)
    with monkeypatch.context() as patch:
        patch.setattr(os, "tcgetpgrp", lambda _: os.getpgrp() + 1)
        row.draw()
        assert screen.shown() == cleared(24)
    row.draw()
    assert screen.shown() == made(24) + drawn(24)
    screen.draws_itself()
    row.draw()
    assert screen.shown() == cleared(24)


@has_terminals
def test_the_row_is_drawn_when_something_is_new_and_gone_at_the_end(screen: Screen) -> None:
    line = Line()
    with row_of(line, screen.stderr) as row:
        row._note()
        found = b""
        while b"$0.10" not in found:
            found += os.read(screen._other, 4_096)
        assert found.decode().startswith(made(24))
        assert line.changed == row._note
    assert line.is_over and not row._thread.is_alive() and row._thread.daemon
    assert screen.shown().endswith(cleared(24))


@has_terminals
@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("TERM", "unknown"), ("TERM", ""), ("TERM", None)])
def test_no_row_is_drawn_where_it_cannot_be(
    screen: Screen, monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    for row in (row_of(Line(), screen.stderr), row_of(Line(), screen.stderr, shown=False)):
        with row:
            row._note()
            row.draw()
            row.clear()
    assert screen.shown() == ""


@has_terminals
def test_no_row_is_drawn_where_nobody_sees_it(screen: Screen) -> None:
    with open(os.devnull, "w") as nothing:
        for stderr in (nothing, None):
            row = row_of(Line(), stderr)
            row._note()
            row.draw()
            assert row._file is None
    assert screen.shown() == ""


@has_terminals
def test_the_row_has_no_colours_where_none_are_wanted(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "")
    row = row_of(Line(), screen.stderr)
    row._note()
    row.draw()
    assert screen.shown() == made(24) + drawn(24, "$0.10 of $1 !")


@has_terminals
@pytest.mark.parametrize(("encoding", "shown"), [("utf-8", "━━ $0.10"), ("ascii", "?? $0.10")])
def test_the_row_is_written_as_the_terminal_reads_it(
    screen: Screen, monkeypatch: pytest.MonkeyPatch, encoding: str, shown: str
) -> None:
    line = Line()
    line.pieces = [Piece("━━ $0.10", "plain")]
    row = row_of(line, screen.stderr)
    row._note()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding))
    row.draw()
    assert screen.shown() == made(24) + drawn(24, shown)


# --- the program

SIGNALS = pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="this system keeps no signals")


class Told:
    """A program, and signals that come in turn: what it is told of them."""

    pid = 77

    def __init__(self, *signals: tuple[int, bool], code: int = 0) -> None:
        self.signals = list(signals)
        self._code = code
        self.heard: list[object] = []

    def poll(self) -> int | None:
        return None if self.signals else self._code

    def next(self) -> tuple[int, bool]:
        return self.signals.pop(0)

    def send_signal(self, number: int) -> None:
        self.heard.append(signal.Signals(number).name)
        if number == signal.SIGHUP:
            raise ProcessLookupError  # it has just ended

    def __getattr__(self, name: str) -> Callable[[], None]:
        return lambda: self.heard.append(name)


def program(told: Any) -> Child:
    made = Child.__new__(Child)
    made._process = made._signals = told
    made._interrupts = 0
    return made


@SIGNALS
@pytest.mark.parametrize(
    ("signals", "heard"),
    [
        ([(signal.SIGTERM, False)], ["SIGTERM"]),
        ([(signal.SIGTERM, False)] * 2, ["SIGTERM"] * 2),
        ([(signal.SIGHUP, False)], ["SIGHUP"]),
        ([(signal.SIGQUIT, True)], []),  # the terminal has told it too
        ([(signal.SIGINT, False)], ["SIGINT"]),
        ([(signal.SIGINT, False)] * 2, ["SIGINT"]),  # it has ended by then: its number may be another one's
        ([(signal.SIGINT, False)] * 3, ["SIGINT", "all of 77"]),
        ([(signal.SIGINT, True)] * 3, ["all of 77"]),
        ([(signal.SIGTSTP, False)], ["SIGTSTP", "clear", "stop_as_asked", "redraw"]),
        ([(signal.SIGTSTP, True)], ["clear", "stop_as_asked", "redraw"]),
        ([(signal.SIGWINCH, True)], ["redraw"]),
        ([(signal.SIGCHLD, True)], []),
    ],
)
def test_what_is_sent_is_passed_on_once_and_a_second_interrupt_kills(
    monkeypatch: pytest.MonkeyPatch, signals: list[tuple[int, bool]], heard: list[str]
) -> None:
    told = Told(*signals)
    monkeypatch.setattr(child, "kill_all", lambda pid: told.heard.append(f"all of {pid}"))
    assert program(told).wait(told.redraw, told.clear) == 0
    assert told.heard == heard


@pytest.mark.parametrize(("code", "exit_code"), [(0, 0), (3, 3), (-9, 137), (-15, 143)])
def test_the_exit_code_is_the_programs_own_or_tells_the_signal(code: int, exit_code: int) -> None:
    told = Told(code=code)
    assert program(told).wait(told.redraw, told.clear) == exit_code
    program(told).end()
    assert told.heard == ["terminate"]


def test_without_signals_two_interrupts_kill_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "_HAS_SIGNALS", False)
    told = Told()
    interrupts = [KeyboardInterrupt(), KeyboardInterrupt()]

    def wait() -> int:
        if interrupts:
            raise interrupts.pop()
        return 7

    vars(told)["wait"] = wait
    assert program(told).wait(told.redraw, told.clear) == 7
    assert told.heard == ["kill"]
    with child.KeptSignals() as kept, kept.let_through():
        kept.check()


def test_a_command_that_cannot_be_started_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, odd = tmp_path / "plain", tmp_path / "odd"
    plain.write_text("x")
    odd.write_text("neither a script nor a program")
    odd.chmod(0o755)
    here = {"PATH": os.defpath}
    for name, status, words in (
        (str(plain), 126, "cannot be executed: make it so with chmod +x"),
        (str(tmp_path), 126, "is a folder"),
        (str(tmp_path / "none"), 127, "there is no such command"),
        ("no-such-command", 127, "no-such-command: there is no such command"),
    ):
        with pytest.raises(CannotStart, match=re.escape(words)) as stop:
            check_command([name], here)
        assert stop.value.status == status
    check_command([str(odd)], here)
    check_command(["sh"], here)
    kept: Any = types.SimpleNamespace(let_through=nullcontext)
    for command_line, status, words in (
        ([str(odd)], 126, "its first line does not say by what"),
        ([str(tmp_path / "none")], 127, "No such file"),
        ([str(tmp_path)], 126, "Permission denied"),
    ):
        with pytest.raises(CannotStart, match=re.escape(words)) as stop:
            Child(command_line, here, kept)
        assert stop.value.status == status
    asked: list[Any] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kwargs: asked.append((args, kwargs)))
    Child(("sh", "-c", "true"), here, kept)
    assert asked == [((["sh", "-c", "true"],), {"env": here})]


# --- what is said


class Proxy:
    """A proxy under which calls are still under way when its program has ended, so many times over."""

    def __init__(self, *joined: bool | BaseException) -> None:
        self._joined = list(joined)
        self.heard: list[object] = []

    def join(self, patience: float | None = None) -> bool:
        self.heard.append(("join", patience))
        found = self._joined.pop(0) if self._joined else True
        if isinstance(found, BaseException):
            raise found
        return found

    def __getattr__(self, name: str) -> Callable[[], None]:
        return lambda: self.heard.append(name)


def ran(
    coverage: Coverage, *, proxy: Proxy | None = None, report: Any = None, quiet: bool = False, html: str | None = None
) -> Any:
    made: Any = command._Run.__new__(command._Run)
    made._given = argparse.Namespace(quiet=quiet, html=html, grace=10.0)
    settings = types.SimpleNamespace(run_budget=Budget("$1.00"))
    made._gateway = types.SimpleNamespace(coverage=coverage, report=report, settings=settings)
    made._proxy = proxy or Proxy()
    return made


STOP = "budget-guard: stopped by the budget: no more than that"
REFUSAL = "budget-guard: refused: it cannot be held"
KEYS = "budget-guard: it has a key that is not the dummy. What it sends with that to a provider itself is not seen"
NOTHING = (
    "budget-guard: it called no provider through here. What it sends elsewhere has a dummy for a key, and gets a 401"
)


def coverage(*, covered: int = 0, stopped: bool = False, refused: bool = False, own_keys: bool = False) -> Coverage:
    made = Coverage()
    made.covered["openai"] = covered
    made.covered += type(made.covered)()  # without those that are nothing
    if stopped:
        made.note_stop("no more than that", for_good=True)
    if refused:
        made.refuse("POST /x", "not_metered", "it cannot be held")
    if own_keys:
        made.own_keys["openai"] += 1
    return made


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    return lambda: [line for line in capsys.readouterr().err.splitlines() if line]


@pytest.mark.parametrize(
    ("given", "words", "code"),
    [
        ({"covered": 2}, [], 7),
        ({}, [NOTHING], 7),
        ({"stopped": True}, [STOP], 3),
        ({"covered": 1, "stopped": True, "refused": True}, [STOP, REFUSAL], 3),
        ({"refused": True}, [REFUSAL], 4),
        ({"covered": 1, "refused": True}, [REFUSAL], 4),
        ({"own_keys": True}, [KEYS], 4),
        ({"covered": 1, "own_keys": True}, [KEYS], 4),
    ],
)
def test_the_end_says_what_was_seen_and_the_exit_code_too(
    said: Callable[[], list[str]], given: dict[str, Any], words: list[str], code: int
) -> None:
    of = coverage(**given)
    assert ran(of).conclude(7) == code
    assert said() == [*words, "budget-guard: the report is not there, as the ledger cannot be reached", str(of)]


@pytest.mark.parametrize(
    ("typed", "words"),
    [(["python", "agent.py"], []), (["python", "--key=real-key-1"], ["a key is on its command line"])],
)
def test_the_beginning_says_what_is_held_and_what_is_not(
    said: Callable[[], list[str]], typed: list[str], words: list[str]
) -> None:
    made = ran(coverage(), proxy=types.SimpleNamespace(url="http://here"))  # type: ignore[arg-type]
    made._given.ledger, made._run_id, made._command = "memory://", "run-1", typed
    made._plan = types.SimpleNamespace(
        targets=[types.SimpleNamespace(name="openai")], taken_out=(), in_files={}, carries_key=lambda at: "real" in at
    )
    made._announce()
    first, *more = said()
    assert first == "budget-guard: $1.00 for this run: calls to openai go through http://here"
    assert [words in line for line, words in zip(more, words, strict=True)] == [True] * len(words)


def test_the_report_is_shown_above_one_line_unless_it_is_quiet(said: Callable[[], list[str]], tmp_path: Path) -> None:
    report, of = a_run(4, run_id="r1").report(), coverage(covered=3)
    last = f"{of}; spent ${report.total_spent.quantize(Decimal('0.0001'))} of $1.00"
    page = tmp_path / "report.html"
    ran(of, report=report, html=str(page))._report()
    shown = said()
    assert shown[0] == "Run r1, write" and shown[-1] == last
    assert page.read_text("utf-8").startswith("<!doctype html>")
    ran(of, report=report, quiet=True)._report()
    assert said() == [last]
    ran(of, report=report, quiet=True, html=str(tmp_path))._report()
    assert said() == [f"budget-guard: --html {tmp_path}: Is a directory", last]


def test_the_proxy_ends_with_a_program_that_cannot_be_started() -> None:
    proxy, made = Proxy(), ran(coverage(), quiet=True)
    made._proxy, made._command = proxy, ("not-there",)
    made._plan = types.SimpleNamespace(environment=lambda url, token: {})
    made._token = "t"
    with child.KeptSignals() as kept, pytest.raises(CannotStart):
        made.perform(kept)
    assert proxy.heard[0] == "start" and proxy.heard[-2:] == ["stop", ("join", None)]


def test_nobody_who_reads_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    command._say("x")
    with open(os.devnull, "w") as closed:
        monkeypatch.setattr(sys, "stderr", closed)
    command._say("x")


@pytest.mark.parametrize(
    ("joined", "heard", "waits"),
    [
        ([True], [("join", 0.5)], False),
        ([False, True], [("join", 0.5), ("join", None)], True),
        ([KeyboardInterrupt(), True], [("join", 0.5), "cancel", ("join", None)], False),
        ([False, KeyboardInterrupt(), True], [("join", 0.5), ("join", None), "cancel", ("join", None)], True),
    ],
)
def test_calls_under_way_are_waited_for_until_somebody_loses_patience(
    said: Callable[[], list[str]], joined: list[Any], heard: list[Any], waits: bool
) -> None:
    proxy = Proxy(*joined)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        ran(coverage(), proxy=proxy)._settle()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN  # what is ignored stays so
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert proxy.heard == ["stop", *heard]
    waiting = "budget-guard: calls under way have 10 s to end; an interrupt books them as they are held"
    assert said() == ([waiting] if waits else [])


def test_only_a_missing_budget_is_answered_with_what_shells_do() -> None:
    parser = command._parser()
    for arguments, hints in ((["--budget"], True), (["--grace"], False), (["--budgets", "1"], False)):
        with pytest.raises(Failure) as wrong:
            parser.parse_args(arguments)
        assert ("in double quotes a shell takes $1" in str(wrong.value)) == hints
        assert str(wrong.value).endswith("see budget-guard run --help")
