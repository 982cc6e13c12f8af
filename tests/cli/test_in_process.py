"""What other tests start in processes of their own, here: the demo, the board of `watch`, the end of a family."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from budget_guard.cli import demo, main, watch
from budget_guard.cli.run import child, descendants
from budget_guard.clock import SystemClock
from budget_guard.ledger.sqlite import SqliteLedger


def test_the_demo_stops_one_run_of_two(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("uvicorn")
    agents = pytest.importorskip("agents")
    shared = pytest.importorskip("agents.models._openai_shared")
    monkeypatch.setattr(shared, "_default_openai_client", None)
    monkeypatch.setattr(shared, "_use_responses_by_default", shared._use_responses_by_default)
    monkeypatch.setattr(demo, "MAX_TURNS", 6)
    monkeypatch.setattr(demo, "LIMIT", "$0.028")
    given: list[mock.Mock] = []
    for name in ("set_default_openai_client", "set_tracing_disabled"):
        given.append(mock.Mock(side_effect=getattr(agents, name)))
        monkeypatch.setattr(agents, name, given[-1])

    assert main.main(["demo"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.split("\n") if line]
    assert lines[:3] == [
        "A stuck agent, without a guard ...",
        "... and with hooks=BudgetGuard(Budget('$0.028'), downgrade_to='gpt-4o-mini')",
        "Unguarded Guarded, $0.028",
    ]
    client, tracing = given
    assert client.call_args.kwargs == {"use_for_tracing": False} and tracing.call_args.args == (True,)
    # a call pays for all the pages before it: 2,000 tokens of output at $10, a page at $2.50 a million
    (bill, *_), calls, large, small, ended = (re.findall(r"\$?[\d.]+|\w+$", line) for line in lines[3:8])
    assert (large, calls[0], ended) == (["4", "6", "1"], "6", ["BudgetExceeded"])
    assert int(small[-1]) > 1
    assert bill > "$0.12"
    assert lines[10:12] == ["They agree to the nano-dollar.", "The bill is within $0.028."]


@pytest.mark.parametrize(("terminal", "colors"), [(True, {"\x1b[31m", "\x1b[32m", "\x1b[0m"}), (False, set())])
def test_the_demos_table_is_in_colours_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, colors: set[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", mock.Mock(isatty=lambda: terminal))
    outcome = demo.Outcome(Decimal("0.1"), Counter({"gpt-4o": 2}), "an error")
    table = "\n".join(demo._table(outcome, outcome))
    assert set(re.findall(r"\x1b\[\d+m", table)) == colors


def test_a_board_is_drawn_until_it_is_interrupted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    SqliteLedger(tmp_path / "budget.db").close()
    told: list[object] = []

    @contextmanager
    def shown(board: watch.Board, *, leave: bool) -> Iterator[None]:
        board.changed = lambda: told.append(f"changed {board.text()!r}")
        told.append(f"shown, {leave=}")
        yield
        told.append("never")

    def wait(_: object, nobody: Any, ready: Any, every: float) -> None:
        told.append((every, ready()))
        if len(told) > 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(watch, "shown", shown)
    monkeypatch.setattr(SystemClock, "wait", wait)
    monkeypatch.setattr("sys.stdout", mock.Mock(isatty=lambda: True, encoding="utf-8"))
    url = f"sqlite:///{tmp_path}/budget.db"
    assert main.main(["watch", url, "user:alice", "--every", "7"]) == 0
    board = "changed 'user:alice"
    drawn = [str(each)[: len(board)] for each in told]
    assert drawn == ["shown, leave=True", "(7.0, False)", board, "(7.0, False)", board, "(7.0, False)"]


@pytest.mark.parametrize("has_proc", [True, False])
def test_a_family_is_stopped_before_any_of_it_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, has_proc: bool
) -> None:
    parents = {1: 0, 10: 1, 11: 10, 12: 11, 20: 1, 21: 20}
    (tmp_path / "self").mkdir()
    if has_proc:
        (tmp_path / "self" / "stat").touch()
        (tmp_path / "13").mkdir()  # it has just ended
    sent: list[tuple[int, int]] = []

    def tell() -> str:
        for each, parent in parents.items():
            (tmp_path / str(each)).mkdir(exist_ok=True)
            (tmp_path / str(each) / "stat").write_text(f"{each} (a ) (name) S {parent} 7 7 0")
        return "".join(f"  {each} {parent}\n" for each, parent in parents.items())

    def kill(pid: int, number: int) -> None:
        sent.append((pid, number))
        if pid == 12 and number == signal.SIGSTOP:
            parents[14] = 12  # it was started just before
            tell()
        if pid == 11:
            raise PermissionError("another user's")

    def run(command: list[str], **how: Any) -> Any:
        assert command == ["ps", "-A", "-o", "pid=,ppid="]
        assert how == {"capture_output": True, "text": True, "check": True}
        return subprocess.CompletedProcess(command, 0, tell(), "")

    tell()
    monkeypatch.setattr(descendants, "_PROC", tmp_path)
    monkeypatch.setattr("os.kill", kill)
    monkeypatch.setattr("subprocess.run", run)
    assert descendants.descendants(20) == {20, 21} and descendants.descendants(99) == {99}
    descendants.kill_all(10)
    stopped = [pid for pid, number in sent if number == signal.SIGSTOP]
    assert sorted(stopped) == [10, 11, 12, 14]
    assert sorted(sent[4:]) == [(pid, signal.SIGKILL) for pid in (10, 11, 12, 14)]

    monkeypatch.setattr(descendants, "_PROC", tmp_path / "none")
    for error in (FileNotFoundError("ps"), subprocess.CalledProcessError(1, "ps")):
        monkeypatch.setattr("subprocess.run", mock.Mock(side_effect=error))
        assert descendants.descendants(10) == {10}


def test_a_program_is_in_the_foreground_where_its_terminal_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[int] = []
    monkeypatch.setattr("os.open", lambda path, how: 7 if path == "/dev/tty" else -1)
    monkeypatch.setattr("os.close", closed.append)
    monkeypatch.setattr("os.getpgrp", lambda: 5)
    monkeypatch.setattr("os.tcgetpgrp", lambda terminal: 5 if terminal == 7 else 0)
    assert child._is_in_foreground() is True
    monkeypatch.setattr("os.tcgetpgrp", lambda terminal: 6)
    assert child._is_in_foreground() is False
    monkeypatch.setattr("os.tcgetpgrp", mock.Mock(side_effect=OSError))
    assert child._is_in_foreground() is False
    assert closed == [7, 7, 7]
    monkeypatch.setattr("os.open", mock.Mock(side_effect=OSError))
    assert child._is_in_foreground() is False


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a signal does not say who sent it")
def test_a_signal_says_who_sent_it(monkeypatch: pytest.MonkeyPatch) -> None:
    signals = child.KeptSignals.__new__(child.KeptSignals)
    signals._before = {signal.SIGINT}  # type: ignore[assignment]
    for code, by_a_key in ((128, True), (1, True), (0, False), (-6, False)):
        found = mock.Mock(si_signo=signal.SIGINT, si_code=code)
        monkeypatch.setattr("signal.sigwaitinfo", mock.Mock(return_value=found))
        assert signals.next() == (signal.SIGINT, by_a_key)


def test_a_terminal_that_knows_ascii_alone_is_told_what_it_can_show() -> None:
    out = io.BytesIO()
    stream = io.TextIOWrapper(out, "ascii")
    main._print("a bar: ██ 50%", stream)
    assert out.getvalue() == b"a bar: ?? 50%\n"


def test_the_console_script_ends_with_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "main", lambda: 3)
    with pytest.raises(SystemExit) as ended:
        main.entry()
    assert ended.value.code == 3
