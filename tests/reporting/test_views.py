"""A report as a table, Markdown, CSV, and in a few words: all of it, in any width, and no name does harm."""

from __future__ import annotations

import csv
import io
import pickle
import re
import subprocess
import sys
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from budget_guard import Budget, BudgetAuthority, BudgetReport, MemoryLedger, ToolCall, Usage
from budget_guard.reporting import LimitUse, text, view
from budget_guard.reporting.files import CSV_COLUMNS
from budget_guard.testing import FakeClock
from tests.builders import PRICES, Way, call, session
from tests.reporting.runs import EVIL, FORMULA, run, stopped


def rows(report: BudgetReport, path: Path) -> list[dict[str, Any]]:
    report.to_csv(path)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- in a few words


def test_the_printed_line_tells_tokens_where_the_budget_limits_them() -> None:
    opened = session(Budget("$5", max_total_tokens=200_000, max_output_tokens=9_000))
    opened.authorize(call("large", tokens=2_000, cap=900)).require().commit(Usage(input=1_500, output=800))

    assert " | Calls: 1 | Output tokens: 800 of 9,000 | Tokens: 2,300 of 200,000" in str(opened.report())


def test_a_report_shows_itself_in_few_words() -> None:
    opened = session("$5.00", run_id="r1")
    opened.authorize(call("dime")).require().commit(Usage())

    assert repr(opened.report()) == "<BudgetReport r1: $0.10 of $5.00, 1 model call>"
    assert repr(session(Budget(max_requests=2), run_id="r2").report()) == "<BudgetReport r2: $0.00, 0 model calls>"
    assert "\x1b" not in repr(session(run_id=EVIL).report())


def test_a_stopped_run_says_so_in_few_words() -> None:
    assert repr(stopped().report()).endswith(", stopped by max_cost_usd>")


# --- what it tells


def test_tokens_are_told_by_kind_for_each_model_and_agent() -> None:
    report = run(3).report()
    small, large = report.breakdown.llm.by_model["small"], report.breakdown.llm.by_model["large"]

    assert (small.calls, large.calls) == (1, 2)
    assert (large.input_tokens, large.cached_tokens, large.cache_written_tokens) == (200, 80, 0)
    assert (large.output_tokens, large.reasoning_tokens) == (140, 40)
    assert report.by_agent["writer"].by_model == report.breakdown.llm.by_model


def test_an_estimate_that_is_replaced_leaves_the_tokens_of_the_actual_usage() -> None:
    opened = session()
    reservation = opened.authorize(call("large", cap=90)).require()
    reservation.commit(None)
    assert opened.report().breakdown.llm.by_model["large"].cached_tokens == 0
    reservation.commit(Usage(input=50, cache_read=20, output=30, reasoning=10))

    spend = opened.report().breakdown.llm.by_model["large"]
    assert (spend.calls, spend.input_tokens, spend.cached_tokens) == (1, 70, 20)
    assert (spend.output_tokens, spend.reasoning_tokens) == (40, 10)


def test_every_limit_is_there_with_what_is_spent_and_held_of_it() -> None:
    clock = FakeClock()
    authority = BudgetAuthority(ceilings={"user": Budget("$20", window="day")}, pricing=PRICES, clock=clock)
    opened = authority.session(Budget("$5.00", max_requests=10, max_duration_s=60), user="u1", run_id="r1")
    opened.authorize(call("dime")).require().commit(Usage())
    opened.authorize(call("penny")).require()
    clock.advance(6)

    limits = {(each.scope, each.name): each for each in opened.report().limits}

    assert list(limits) == [
        *[("run:r1", "max_cost_usd"), ("run:r1", "max_requests"), ("run:r1", "max_duration_s")],
        ("user:u1", "max_cost_usd"),
    ]
    dollars = limits["run:r1", "max_cost_usd"]
    assert (dollars.limit, dollars.spent, dollars.held) == (Decimal(5), Decimal("0.10"), Decimal("0.01"))
    assert (dollars.left, dollars.fraction, dollars.resets_at) == (Decimal("4.89"), 0.02, None)
    assert limits["run:r1", "max_requests"].spent == 1
    assert limits["run:r1", "max_duration_s"].spent == 6
    assert limits["user:u1", "max_cost_usd"].resets_at is not None


def test_the_cap_of_an_agent_is_a_limit_too() -> None:
    opened = session(Budget("$5.00", agents={"writer": Budget("$0.20")}))
    opened.authorize(call("dime", agent="writer")).require().commit(Usage())

    (cap,) = [each for each in opened.report().limits if not each.scope.startswith("run:")]
    assert (cap.limit, cap.spent) == (Decimal("0.20"), Decimal("0.10"))


def test_a_scope_that_is_not_opened_yet_is_left_out(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = session(Budget("$5.00", agents={"writer": Budget("$0.20")}), run_id="r1")
    way.pay(opened, call("dime", agent="writer"))
    balances = MemoryLedger.balances

    def forgets(ledger: MemoryLedger, scopes: Any) -> Any:
        if len(scopes) > 1:
            raise KeyError(scopes[1])
        return balances(ledger, scopes)

    monkeypatch.setattr(MemoryLedger, "balances", forgets)
    assert [each.scope for each in opened.report().limits] == ["run:r1"]


def test_a_budget_of_nothing_is_used_up() -> None:
    limit = LimitUse(scope="run:r1", name="max_tool_calls", limit=Decimal(0), spent=Decimal(0))
    assert (limit.fraction, limit.left) == (1.0, Decimal(0))


def test_of_a_ceiling_that_two_reports_have_the_later_state_is_told() -> None:
    def told(limit: str, spent: str) -> BudgetReport:
        state = LimitUse(scope="user:u1", name="max_cost_usd", limit=Decimal(limit), spent=Decimal(spent))
        return session("$5").report().model_copy(update={"limits": [state]})

    for one, other, later in (
        (("5", "2"), ("9", "2"), "9"),
        (("5", "2"), ("9", "3"), "9"),
        (("5", "3"), ("9", "2"), "5"),
    ):
        (limit,) = (told(*one) + told(*other)).limits
        assert limit.limit == Decimal(later)


def test_what_other_sessions_of_the_run_have_spent_is_told() -> None:
    ledger = MemoryLedger()
    first = session("$5", ledger=ledger, run_id="r1")
    first.charge("search", "0.10")
    second = session("$5", ledger=ledger, run_id="r1")
    second.charge("search", "0.01")

    report = second.report()
    assert (report.total_spent, report.spent_elsewhere) == (Decimal("0.11"), Decimal("0.10"))
    assert "Spent by other sessions of the run: $0.10" in report.table()


def test_what_is_marked_stays_when_the_events_of_a_long_run_are_gone() -> None:
    opened = session(Budget("$1000", max_tool_calls=3_000))
    for _ in range(3_000):
        opened.authorize(ToolCall("free")).require().commit_cost(0)
    for _ in range(3):
        opened.authorize(ToolCall("free"))

    marks = [(event["event"], event.get("limit") or event.get("dimension")) for event in opened.report().marks]
    assert marks == [("SoftLimitReached", "max_tool_calls"), ("CallBlocked", "max_tool_calls")]


def test_a_stop_after_the_limit_was_raised_is_marked_again() -> None:
    opened = session(Budget(max_requests=1))
    opened.authorize(call())
    opened.authorize(call())
    opened.raise_limits(max_requests=2)
    opened.authorize(call())
    opened.authorize(call())

    assert [event["event"] for event in opened.report().marks] == ["CallBlocked", "LimitsRaised", "CallBlocked"]
    assert opened.report().marks[1]["before"] == ["1"]


def test_the_report_of_an_error_is_short_and_tells_the_course_of_the_run() -> None:
    opened = run(300, Budget("$2.00", max_tool_calls=75))
    error = opened.authorize(ToolCall("search")).error

    report = error.report  # type: ignore[union-attr]
    assert len(report.over_time) <= 20 and len(report.events) <= 20
    assert report.over_time[-1].cost == opened.report().over_time[-1].cost


# --- tables


def test_the_table_tells_models_agents_tools_tasks_limits_and_what_is_uncertain() -> None:
    shown = text.plain(run(40).report(), 110)

    for words in ("By model", "By agent", "By tool", "By task", "Limits", "! Uncertain", "All models"):
        assert words in shown
    (large,) = [line.split() for line in shown.splitlines() if line.startswith("  large")]
    # 19 calls of 100 and 70 tokens, and one whose usage never came
    assert large == [*("large", "20", "2,100", "760", "1,420", "380"), "$0.0163", "$0.0008"]


def test_the_table_names_overrun_and_unpriced_calls() -> None:
    opened = session(Budget("$5", unpriced="allow"))
    opened.authorize(call("nobody-knows-it", cap=10)).require().commit(Usage(input=10, output=10))
    opened.authorize(call("large", tokens=10, cap=10)).require().commit(Usage(input=2_000, output=10))
    shown = text.plain(opened.report(), 110)

    assert "! Overrun" in shown and "! Calls without a known price: 1" in shown


@pytest.mark.parametrize("width", [40, 60, 80, 110, 200])
def test_no_line_is_wider_than_the_terminal_and_no_figure_is_cut(width: int) -> None:
    report = run(60, Budget("$1000", max_total_tokens=10**9), agent="研究者 with a long name " * 5).report()
    lines = text.plain(report, width).splitlines()

    assert max(map(text.cells, lines)) <= max(width, 60)
    (row,) = [line for line in lines if line.startswith("  large")]
    assert f"{report.breakdown.llm.by_model['large'].total:.4f}" in row


def test_names_stand_first_and_the_least_important_column_goes_first() -> None:
    report = run(3).report()
    makers = (view._by_model, view._by_agent, view._by_tool, view._by_task, view._by_run)
    shown = {
        table.title: [
            f"{column.heading}{' (name)' if column.is_name else ''} {column.dropped or ''}".strip()
            for column in table.columns
        ]
        for table in (make(report) for make in makers)
    }
    figures = ["Calls", "Input 1", "Cached 3", "Output 2", "Reasoning 4", "Dollars", "A call 5"]
    assert shown == {
        "By model": ["Model (name)", *figures],
        "By agent": ["Agent (name)", "Model or tool (name)", *figures],
        "By tool": ["Tool (name)", "Calls", "Dollars", "A call 1"],
        "By task": ["Task (name)", "Runs", "Model calls 1", "Tool calls 2", "Dollars"],
        "By run": ["Run (name)", "Task (name) 2", "Dollars", "Remaining 1", "Stopped by (name) 3"],
    }


def test_a_column_is_left_out_only_where_it_does_not_fit() -> None:
    report = run(60, Budget("$1000", max_total_tokens=10**9), agent="a long name indeed").report()
    wider: dict[str, list[tuple[int, int]]] = {}
    for table in view.tables(report):
        shown = [(width, len(text._fitting(table, width))) for width in range(20, 140)]
        wider[table.title] = [now for before, now in pairwise(shown) if now[1] != before[1]]
    assert wider == {
        "By model": [(35, 4), (43, 5), (51, 6), (62, 7), (73, 8)],
        "By agent": [(51, 5), (59, 6), (67, 7), (78, 8), (89, 9)],
        "By tool": [(32, 4)],
    }


def test_an_agent_is_named_once() -> None:
    shown = text.plain(run(12).report(), 110)
    assert len([line for line in shown.splitlines() if line.startswith("  writer")]) == 1


def test_what_nobody_is_named_for_is_told_beside_the_agents() -> None:
    opened = run(4)
    opened.charge("search", "0.05")

    assert "(no agent)  search" in text.plain(opened.report(), 110)


def test_many_names_are_cut_to_the_dearest() -> None:
    opened = session("$5")
    for number in range(50):
        opened.charge(f"tool {number:02}", f"0.0{number:02}")
    shown = text.plain(opened.report(), 80)

    assert "tool 49" in shown and "tool 01" not in shown and "and 30 more" in shown


def test_a_terminal_that_knows_no_unicode_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "takes_unicode", lambda: False)
    assert text.plain(run(40, agent="a" * 200).report(), 60).isascii()


def test_the_table_is_text_in_a_file_and_in_a_console() -> None:
    table = run(4).report().table()
    assert isinstance(table, str) and repr(table) == table and "\x1b" not in table


def test_a_table_is_text_in_another_process() -> None:
    table = run(4).report().table()
    copied = pickle.loads(pickle.dumps(table))
    assert type(copied) is str and copied == table


def test_names_steer_no_terminal() -> None:
    table = run(12, agent=EVIL).report().table()
    assert table.replace("\n", "").isprintable()


def test_a_table_without_rich_is_the_same_text() -> None:
    code = (
        "import sys; sys.modules['rich'] = None\n"
        "from unittest import mock; from budget_guard import Budget\n"
        "report = Budget('$5').session().report()\n"
        "with mock.patch('sys.stdout.isatty', lambda: True, create=True): table = report.table()\n"
        "print(table)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Limits" in result.stdout, result.stderr


def test_rich_shows_a_report_and_its_table_in_colour_and_as_wide_as_it_is() -> None:
    console = pytest.importorskip("rich.console")
    report = run(40, agent="[red]name[/]").report()
    for shown in (report, report.table()):
        out = console.Console(file=io.StringIO(), width=70, force_terminal=True, color_system="standard")
        out.print(shown)
        written = out.file.getvalue()
        plain = console.Console(file=io.StringIO(), width=70)
        plain.print(shown)
        assert "\x1b[" in written
        assert plain.file.getvalue().rstrip() == text.plain(report, 70)
        assert "[red]name[/]" in plain.file.getvalue()


@pytest.mark.parametrize("width", [12, 30, 70])
def test_a_console_that_is_too_narrow_cuts_lines_and_breaks_none(width: int) -> None:
    console = pytest.importorskip("rich.console")
    out = console.Console(file=io.StringIO(), width=width)
    report = run(40).report()
    out.print(report)
    lines = text.plain(report, max(20, width)).splitlines()
    assert [line.rstrip() for line in out.file.getvalue().splitlines()] == [line[:width].rstrip() for line in lines]


class Terminal(io.StringIO):
    """A file that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "codes"),
    [
        ({"TERM": "xterm-256color"}, {"1", "32", "33", "36", "90"}),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, {"1"}),
        ({"TERM": "dumb"}, set[str]()),
    ],
    ids=["colours", "no colours", "no codes"],
)
def test_a_terminal_is_shown_what_it_takes(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], codes: set[str]
) -> None:
    pytest.importorskip("rich.console")
    for name in ("COLORTERM", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (environment | {"COLUMNS": "70"}).items():
        monkeypatch.setenv(name, value)
    report = run(40).report()
    shown = text.table(report, Terminal())
    used = {code for found in re.findall(r"\x1b\[([0-9;]*)m", shown) for code in found.split(";")} - {"0"}
    assert used == codes
    written = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()]
    assert written == text.plain(report, 70).splitlines()
    assert text.table(report, io.StringIO()) == text.plain(report, 70)


# --- Markdown


def test_markdown_has_every_table() -> None:
    markdown = run(40).report().to_markdown()
    for words in ("**By model**", "**By agent**", "**By tool**", "**By task**", "| Limit |", "| `large` | 20 |"):
        assert words in markdown
    for line in markdown.splitlines():
        assert line.startswith("|") == line.endswith("|")


def test_names_are_code_in_markdown() -> None:
    report = run(8, agent=EVIL, run_id="@everyone #1").report()
    markdown = report.to_markdown()
    (row,) = [line for line in markdown.splitlines() if line.startswith("| ``") and "| `large`" in line]

    assert "`Run @everyone #1, write`" in markdown
    assert row.count("|") - row.count("\\|") == 10  # as many cells as there are columns
    assert max(map(len, markdown.splitlines())) < 300


# --- CSV


def test_the_rows_of_the_file_add_up_to_the_total(tmp_path: Path) -> None:
    opened = run(40)
    opened.charge("search", "0.05")
    report = opened.report()
    found = rows(report, tmp_path / "spend.csv")

    assert tuple(found[0]) == CSV_COLUMNS
    assert sum(Decimal(row["cost_usd"]) for row in found) == report.total_spent
    assert sum(int(row["input_tokens"]) for row in found) == report.input_tokens
    assert sum(int(row["calls"]) for row in found if row["kind"] == "model") == report.breakdown.llm.calls


def test_no_name_is_a_formula(tmp_path: Path) -> None:
    opened = session("$5", run_id="+1")
    for name in (FORMULA, "-1+1", "@SUM(1)", "\t=1", "\r=1", "\uff1d1", EVIL):
        opened.charge(name, "0.01", agent=name)
    found = rows(opened.report(), tmp_path / "spend.csv")

    assert len(found) == 7
    for row in found:
        for value in (row["run"], row["agent"], row["name"]):
            assert value[0] not in "=+-@\t\r\n\uff1d" and value.isprintable()


# --- sums


def test_totals_add_up_and_budgets_are_listed() -> None:
    first, second = run(8, run_id="a").report(), run(4, Budget("$5", task="read"), run_id="b", agent="reader").report()
    both = first + second

    assert both.total_spent == first.total_spent + second.total_spent
    assert both.breakdown.llm.calls == 9 and both.breakdown.tools.by_tool["search"].calls == 3
    assert list(both.by_agent) == ["writer", "reader"]
    assert [(one.session_id, one.budget["max_cost_usd"]) for one in both.runs] == [("a", "1000"), ("b", "5")]
    assert both.remaining == (first.remaining or 0) + (second.remaining or 0)
    assert {name: task.runs for name, task in both.by_task.items()} == {"write": 1, "read": 1}
    assert both.over_time[-1].cost == first.over_time[-1].cost + second.over_time[-1].cost
    assert [each.scope for each in both.limits] == ["run:a", "run:b"]
    assert BudgetReport.model_validate_json(both.model_dump_json()) == both
    assert repr(both) == "<BudgetReport 2 runs: $0.0650, 9 model calls>"
    assert "By run" in both.table() and both.to_markdown() and str(both)


def test_reports_are_summed_up() -> None:
    reports = [run(4, run_id=str(number)).report() for number in range(5)]
    whole = sum(reports)
    for other in (1, "a report"):
        with pytest.raises(TypeError):
            other + reports[0]
    assert isinstance(whole, BudgetReport)
    assert (len(whole.runs), whole.total_spent) == (5, sum(report.total_spent for report in reports))


def test_sessions_of_one_run_share_its_total() -> None:
    ledger = MemoryLedger()
    workers = [session("$5", ledger=ledger, run_id="r1") for _ in range(3)]
    for worker in workers:
        worker.charge("search", "0.10")
    one, two, three = [worker.report() for worker in workers]
    whole = one + two + three

    assert (whole.total_spent, whole.remaining) == (Decimal("0.30"), Decimal("4.70"))
    assert whole.breakdown.tools.calls == 3 and whole.spent_elsewhere == 0
    assert whole.runs == [] and whole.session_id == "r1" and len(whole.limits) == 1


def test_the_same_calls_are_not_added_twice() -> None:
    report = run(4, run_id="r1").report()
    with pytest.raises(ValueError, match="same calls of r1"):
        report + report
    with pytest.raises(TypeError):
        report + 1  # type: ignore[operator]


def test_runs_that_began_at_other_times_are_laid_out_in_time() -> None:
    clock = FakeClock()
    first = session("$5", clock=clock, run_id="a")
    first.charge("search", "0.10")
    clock.advance(100)
    second = session("$5", clock=clock, run_id="b")
    second.charge("search", "0.10")
    second.authorize(call("large", tokens=10**7))

    both = second.report() + first.report()

    assert both.started_at == first.report().started_at
    assert [(point.at_s, point.cost) for point in both.over_time] == [(0, 10**8), (100, 2 * 10**8)]
    assert [event["at_s"] for event in both.marks] == [100]
    assert both.duration_seconds == 100
    assert both.terminated_by == "max_cost_usd"
