"""The live line of spend: seen on a terminal, silent elsewhere, never in the way."""

from __future__ import annotations

import io
import subprocess
import sys
from types import SimpleNamespace

import pytest

from budget_guard import Budget, ModelCall, Session, Usage, live, weigh
from budget_guard.events import Event
from budget_guard.live import spend_line

pytest.importorskip("rich")
from rich.console import Console


def call(session: Session, *, settle: bool = True) -> None:
    decision = session.authorize(ModelCall("gpt-4o", weigh(messages="hello"), max_output_tokens=1_000))
    if settle:
        decision.require().commit(Usage(input=1_000, output=1_000))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 120 columns in the place of standard output and error, for the line alone."""
    terminal = Terminal()
    monkeypatch.setattr(live, "sys", SimpleNamespace(stdout=terminal, stderr=terminal))
    console = Console(file=terminal, width=120, legacy_windows=False, _environ={"TERM": "xterm-256color"})
    monkeypatch.setattr(live, "_console", lambda: console)
    return terminal


def test_the_line_says_what_is_spent_held_and_called() -> None:
    session = Budget("$0.10", max_requests=5).session()
    line = live._SpendLine(session)
    call(session)
    call(session)
    call(session, settle=False)

    plain = line.draw().plain

    assert plain.startswith("$0.0250 of $0.10 ")
    assert " 25% | held $0.01" in plain
    assert plain.endswith(" | calls 2 of 5 | gpt-4o")


def test_calls_made_before_the_line_count_too() -> None:
    session = Budget("$0.10").session()
    call(session)

    assert " | calls 1" in live._SpendLine(session).draw().plain


def test_a_budget_without_a_dollar_limit_has_no_bar() -> None:
    session = Budget(max_requests=5).session()
    line = live._SpendLine(session)
    call(session)

    assert line.draw().plain == "$0.0125 | held $0.00 | calls 1 of 5 | gpt-4o"


def test_it_draws_on_a_terminal(terminal: Terminal) -> None:
    with spend_line(Budget("$0.10").session()):
        assert "$0.00 of $0.10" in terminal.getvalue()


def test_it_is_silent_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    session = Budget("$0.10").session()

    with spend_line(session):
        call(session)

    assert capsys.readouterr() == ("", "")


def test_it_lets_go_of_the_session_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Event] = []
    monkeypatch.setattr(live._SpendLine, "_note", lambda self, event: heard.append(event))
    session = Budget("$0.10").session()
    with spend_line(session):
        call(session)
    before = len(heard)

    call(session)

    assert len(heard) == before > 0


def test_an_error_of_the_run_passes_through(terminal: Terminal) -> None:
    with pytest.raises(KeyError), spend_line(Budget("$0.10").session()):
        raise KeyError


def test_a_terminal_that_fails_does_not_disturb_the_run(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError("the terminal is gone")

    session = Budget("$0.10").session()
    monkeypatch.setattr("rich.live.Live.start", broken)
    with spend_line(session):
        call(session)
    monkeypatch.undo()
    monkeypatch.setattr("rich.live.Live.stop", broken)
    with spend_line(session):
        call(session)

    assert session.spent_usd


def test_it_does_without_rich(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    session = Budget("$0.10").session()

    with spend_line(session):
        call(session)

    assert session.spent_usd


def test_nothing_is_imported_for_those_who_do_not_use_it() -> None:
    code = "import sys, budget_guard; assert 'rich' not in sys.modules and 'budget_guard.live' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
