"""The live line of spend: seen on a terminal, silent elsewhere, never in the way."""

from __future__ import annotations

import io
import subprocess
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from budget_guard import (
    Budget,
    DowngradePolicy,
    LedgerUnavailable,
    MemoryLedger,
    ModelCall,
    Session,
    ToolCall,
    Usage,
    live,
    weigh,
)
from budget_guard.adapter.handle import SessionHandle
from budget_guard.events import Event
from budget_guard.live import Standing, spend_board, spend_line
from budget_guard.testing import FakeClock
from budget_guard.units.amounts import Amounts, Limits
from tests import live_lines
from tests.reference_text import kept

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
    line = live.SpendLine(session)
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

    assert " | calls 1" in live.SpendLine(session).draw().plain


def test_a_budget_without_a_dollar_limit_has_no_bar() -> None:
    session = Budget(max_requests=5).session()
    line = live.SpendLine(session)
    call(session)

    assert line.draw().plain == "$0.0125 | held $0.00 | calls 1 of 5 | gpt-4o"


def test_it_draws_on_a_terminal(terminal: Terminal) -> None:
    with spend_line(Budget("$0.10").session()):
        assert "$0.00 of $0.10" in terminal.getvalue()


def test_a_handle_is_shown_as_its_session_is(terminal: Terminal) -> None:
    handle = SessionHandle()
    handle.session = Budget("$0.10").session()
    call(handle.session)
    with spend_line(handle, leave=True):
        pass
    assert "$0.0125 of $0.10" in terminal.getvalue()


def test_it_is_silent_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    session = Budget("$0.10").session()

    with spend_line(session):
        call(session)

    assert capsys.readouterr() == ("", "")


def test_it_lets_go_of_the_session_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Event] = []
    monkeypatch.setattr(live.SpendLine, "_note", lambda self, event: heard.append(event))
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


# --- what a line says


def standing(**fields: Any) -> Standing:
    given = {"committed": Amounts(25_000_000), "reserved": Amounts(), "limits": Limits(100_000_000), **fields}
    return Standing(**given)


def line(at: Standing, width: int | None = None) -> str:
    return "".join(piece.text for piece in live.fitted(lambda bar: live.parts_of(at, bar), width))


def test_lines_and_boards_are_on_screens_of_any_width_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a difference is meant: ``python -m tests.live_lines``."""
    monkeypatch.setattr(live, "_takes_unicode", lambda: True)
    assert list(live_lines.lines()) == kept(live_lines.FILE)


def test_a_terminal_without_unicode_is_shown_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_takes_unicode", lambda: False)
    assert "".join(live_lines.lines()).isascii()
    shown = line(standing(soft_limit=0.75, downgrade_at=0.5, asked="large", model="small"))
    assert shown.startswith("$0.0250 of $0.10 ######------:-----:----- 25%") and shown.endswith(" | large -> small")


def test_the_bar_has_marks_at_the_soft_limit_and_at_the_switch() -> None:
    shown = line(standing(soft_limit=0.75, downgrade_at=0.5))

    assert shown.startswith("$0.0250 of $0.10 ━━━━━━──────┆─────┆───── 25%")
    pieces = live.parts_of(standing(soft_limit=0.75, downgrade_at=0.5), 24)[1].pieces
    assert [piece.style for piece in pieces if piece.text in "┆:"] == ["switch", "warn"]


def test_the_colour_of_the_bar_says_how_near_the_limit_is() -> None:
    styles = [
        standing(committed=Amounts(cost), soft_limit=0.9, stop=stop).style
        for cost, stop in ((10**7, ""), (9 * 10**7, ""), (10**8, ""), (10**7, "max_requests"))
    ]
    assert styles == ["ok", "warn", "stop", "stop"]


def test_the_rate_and_the_time_to_the_limit_are_told_once_they_are_known() -> None:
    assert "/min" not in line(standing()) and " left" not in line(standing())
    shown = line(standing(per_minute=15_000_000))
    assert " | $0.0150/min | 5 min left" in shown
    assert "40 h left" in line(standing(limits=Limits(36_025_000_000), per_minute=15_000_000))


def test_tokens_are_told_where_they_are_limited() -> None:
    limits = Limits(100_000_000, None, 9_000, 200_000)
    shown = line(standing(committed=Amounts(25_000_000, 1_200, 800, 2_000, 1), limits=limits))
    assert " | tokens 2,000 of 200k | output 800 of 9,000" in shown


@pytest.mark.parametrize(
    ("limit", "shown"),
    [
        *((9_999, "9,999"), (10_000, "10k"), (12_345, "12.3k"), (999_900, "1,000k"), (1_234_567, "1,235k")),
        *((9_999_999, "10,000k"), (10_000_000, "10M"), (123_456_789_012, "123G")),
    ],
)
def test_many_tokens_are_told_in_few_digits(limit: int, shown: str) -> None:
    assert line(standing(limits=Limits(100_000_000, None, None, limit))).endswith(f" tokens 0 of {shown}")


def test_a_budget_of_tokens_has_a_bar_of_tokens() -> None:
    at = standing(committed=Amounts(25_000_000, 1_200, 800, 2_000, 1), limits=Limits(None, None, None, 8_000))
    assert line(at).startswith("2,000 of 8,000 tokens ") and " 25% | held 0 | calls 0 | $0.0250" in line(at)


def test_the_switch_and_the_stop_are_shown() -> None:
    shown = line(standing(asked="gpt-4o", model="gpt-4o-mini", stop="max_cost_usd"))
    assert " | stopped: max_cost_usd | " in shown
    assert shown.endswith(" gpt-4o-mini") and " | gpt-4o " in shown


def full() -> Standing:
    """One of which there is much to say."""
    limits = Limits(10**8, None, None, 10**6, 50)
    return standing(asked="gpt-4o", model="gpt-4o-mini", per_minute=15_000_000, limits=limits)


@pytest.mark.parametrize("width", range(1, 140, 7))
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    at = standing(
        asked="gpt-4o", model="gpt-4o-mini", per_minute=15_000_000, limits=Limits(10**8, None, None, 10**6, 50)
    )
    assert len(line(at, width)) <= width


def test_a_narrow_terminal_leaves_out_the_least_first() -> None:
    at = standing(
        asked="gpt-4o", model="gpt-4o-mini", per_minute=15_000_000, limits=Limits(10**8, None, None, 10**6, 50)
    )
    words = ["held", "/min", "tokens", " left", "gpt-4o-mini", "calls", "%", "$0.0250 of $0.10"]

    def narrowest(word: str) -> int:
        return next(width for width in range(17, 200) if all(word in line(at, w) for w in range(width, 200)))

    widths = [narrowest(word) for word in words]
    assert widths == sorted(widths, reverse=True)


def test_a_stop_goes_away_with_the_next_call() -> None:
    session = Budget(max_requests=1).session()
    shown = live.SpendLine(session)
    call(session)
    session.authorize(ModelCall("gpt-4o", weigh(messages="hello"), max_output_tokens=1_000))
    assert "stopped: max_requests" in shown.draw().plain
    session.authorize(ToolCall("search")).require().commit_cost("0.01")
    assert " | stopped: max_requests | held $0.00 | calls 1 of 1 | gpt-4o" in shown.draw().plain
    session.raise_limits(max_requests=2)
    call(session)
    assert "stopped" not in shown.draw().plain


def test_a_session_that_switches_says_from_what_to_what() -> None:
    session = Budget("$0.10", downgrade=DowngradePolicy(to="gpt-4o-mini", at=0.1)).session()
    shown = live.SpendLine(session)
    call(session)
    assert shown.draw().plain.endswith("| gpt-4o")
    call(session)
    assert shown.draw().plain.endswith(" gpt-4o-mini") and " gpt-4o " in shown.draw().plain


def test_the_rate_is_that_of_the_last_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    monkeypatch.setattr(live, "SYSTEM_CLOCK", clock)
    session = Budget("$1.00").session()
    shown = live.SpendLine(session)
    call(session)
    assert shown.standing().per_minute is None
    clock.advance(30)
    assert shown.standing().per_minute == 25_000_000
    clock.advance(30)
    call(session)
    assert shown.standing().per_minute == 25_000_000
    clock.advance(59)
    assert shown.standing().per_minute == 12_500_000
    clock.advance(60)
    assert shown.standing().per_minute == 0


def test_a_ledger_that_cannot_be_reached_leaves_the_line_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Budget("$0.10").session()
    shown = live.SpendLine(session)
    call(session)
    before = shown.draw().plain

    def broken(*_: object) -> None:
        raise LedgerUnavailable(detail="it is gone")

    monkeypatch.setattr(session.ledger, "balances", broken)
    assert shown.draw().plain == before


# --- a board


def test_a_board_has_a_line_for_each_guard_and_their_sum() -> None:
    one, two = Budget("$0.10").session(user="alice", run_id="r1"), Budget("$5.00").session(run_id="r2")
    board = live._SpendBoard([("alice r1", live.SpendLine(one)), ("r2", live.SpendLine(two))])
    call(one)
    call(two)

    first, second, whole = ["".join(piece.text for piece in line) for line in board.lines(100)]

    assert first.startswith("alice r1  $0.0125 of $0.10 ") and second.startswith("r2        $0.0125 of $5.00 ")
    assert whole == "all       $0.0250 | held $0.00 | calls 2"


def test_many_guards_are_cut_to_a_screen_and_all_count() -> None:
    named = [(f"run {number}", standing()) for number in range(200)]
    lines = ["".join(piece.text for piece in line) for line in live.board_lines(named, 60)]

    assert len(lines) == 32 and lines[-2] == "and 170 more"
    assert lines[-1].split("  ")[-1].startswith("$5.00")
    assert max(map(len, lines)) <= 60


def test_a_board_asks_each_ledger_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = MemoryLedger()
    sessions = [Budget("$1.00").session(ledger=ledger) for _ in range(5)]
    board = live._SpendBoard([(str(n), live.SpendLine(session)) for n, session in enumerate(sessions)])
    asked: list[int] = []
    balances = MemoryLedger.balances

    def counted(self: MemoryLedger, scopes: Any) -> Any:
        asked.append(len(scopes))
        return balances(self, scopes)

    monkeypatch.setattr(MemoryLedger, "balances", counted)
    board.lines(80)
    assert asked == [5]


def test_a_board_is_drawn_and_lets_go_of_its_sessions(terminal: Terminal) -> None:
    session = Budget("$0.10").session(user="alice", run_id="r1")
    with spend_board([session], leave=True):
        call(session)
    assert "alice r1" in terminal.getvalue()
    with spend_board({"mine": session}):
        assert "mine" in terminal.getvalue()
    call(session)
    assert not session._run.recorder.timeline.is_watched


# --- where it is shown


def test_a_line_that_is_left_stands_as_it_was_at_the_end(terminal: Terminal) -> None:
    session = Budget("$0.10").session()
    with spend_line(session, leave=True):
        call(session)
    assert "$0.0125 of $0.10" in terminal.getvalue()


def without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setattr(live, "_hinted", False)


def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr(live, "sys", SimpleNamespace(stdout=terminal, stderr=terminal))
    monkeypatch.setattr(live, "_console", live._console.__wrapped__)
    return terminal


def test_without_rich_there_is_a_plain_line_and_one_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    without_rich(monkeypatch)
    terminal = plain_terminal(monkeypatch)
    clock = FakeClock()
    monkeypatch.setattr(live, "SYSTEM_CLOCK", clock)
    session = Budget("$0.10").session()
    for _ in range(2):
        with spend_line(session):
            clock.advance(1)
            call(session)

    written = terminal.getvalue()
    assert written.count("budget-guard-py[live]") == 1
    assert "\r$0.0125 of $0.10" in written and "\x1b" not in written
    assert written.endswith("\r") and written.rsplit("\r", 2)[1].isspace()  # cleared


def test_without_rich_a_line_can_be_left(monkeypatch: pytest.MonkeyPatch) -> None:
    without_rich(monkeypatch)
    terminal = plain_terminal(monkeypatch)
    session = Budget("$0.10").session()
    with spend_line(session, leave=True):
        call(session)
    last = terminal.getvalue().rsplit("\r", 1)[1]
    assert last.startswith("$0.0125 of $0.10") and last.endswith("\n")


class Notebook:
    """The part of a notebook's kernel that a line needs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[str] = []
        monkeypatch.setattr("builtins.get_ipython", lambda: SimpleNamespace(kernel=self), raising=False)
        module = ModuleType("IPython.display")
        module.display = self.display  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
        monkeypatch.setitem(sys.modules, "IPython.display", module)

    def display(self, picture: Any, *, display_id: bool) -> Notebook:
        assert display_id
        self.update(picture)
        return self

    def update(self, picture: Any) -> None:
        self.shown.append(picture._repr_html_())


def test_a_notebook_shows_the_line_below_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook, clock = Notebook(monkeypatch), FakeClock()
    monkeypatch.setattr(live, "SYSTEM_CLOCK", clock)
    session = Budget("$0.10").session()
    with spend_line(session, leave=True):
        for _ in range(3):
            call(session)  # drawn once in a while, not for each call
        clock.advance(1)
        call(session)
    before = len(notebook.shown)
    call(session)

    assert "$0.00 of $0.10" in notebook.shown[0] and "$0.05 of $0.10" in notebook.shown[-1]
    assert len(notebook.shown) == before < 6


def test_a_line_in_a_notebook_is_cleared_if_it_is_not_to_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook(monkeypatch)
    with spend_line(Budget("$0.10").session()):
        pass
    assert notebook.shown[-1] == ""


def test_names_are_text_in_a_notebook() -> None:
    pieces = [live.Piece("<script>alert(1)</script>", "warn")]
    assert "<script>" not in live.as_html([pieces]) and "&lt;script&gt;" in live.as_html([pieces])


def test_a_notebook_that_fails_does_not_disturb_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook, clock = Notebook(monkeypatch), FakeClock()
    monkeypatch.setattr(live, "SYSTEM_CLOCK", clock)
    session = Budget("$0.10").session()
    with spend_line(session):
        monkeypatch.setattr(notebook, "update", None)
        clock.advance(1)
        call(session)
    assert session.spent_usd


def test_a_thread_that_finds_another_one_drawing_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    class Taken:
        def acquire(self, blocking: bool = True) -> bool:
            asked.append(blocking)
            return False

    class Screen(live._Redrawn):
        drawn = 0
        breaks = False

        def draw(self) -> None:
            self.drawn += 1
            if self.breaks:
                raise OSError("the terminal is gone")

    clock = FakeClock()
    monkeypatch.setattr(live, "SYSTEM_CLOCK", clock)
    session = Budget("$0.10").session()
    screen: Any = Screen(live.SpendLine(session))
    call(session)
    assert screen.drawn == 0  # it was drawn just now
    clock.advance(1)
    lock, screen._lock = screen._lock, Taken()
    call(session)
    assert screen.drawn == 0 and asked and not any(asked)
    screen._lock = lock
    for breaks in (False, True):
        screen.breaks, before = breaks, screen.drawn
        clock.advance(1)
        call(session)
        assert screen.drawn == before + 1 and not lock.locked()
