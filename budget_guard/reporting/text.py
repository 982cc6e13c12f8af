"""A report as lines of text: plain, or in colour where rich is installed and they go to a terminal."""

from __future__ import annotations

import io
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TextIO

from budget_guard.reporting import view
from budget_guard.reporting.spend import SpendValues
from budget_guard.units.printable import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

_MOST_WIDTH = 110
_MOST_ROWS = 20
_MOST_LIMITS = 12
_WIDEST_NAME = 40
_NARROWEST_NAME = 8
_WIDEST_BAR, _NARROWEST_BAR = 24, 6


_STYLES = {
    "title": "bold cyan",
    "dim": "bright_black",
    "strong": "bold",
    "ok": "green",
    "warn": "yellow",
    "stop": "bold red",
}
"""The styles of rich."""


class Part(NamedTuple):
    """A part of a line."""

    text: str
    style: str = ""
    """What it is, for colours: ``title``, ``dim``, ``strong``, ``ok``, ``warn``, ``stop``."""


class ReportTable(str):
    """The tables of a report: plain text, which rich shows in colour."""

    __slots__ = ("_report",)
    _report: SpendValues

    @classmethod
    def of(cls, report: SpendValues, text: str) -> ReportTable:
        """The tables of *report*, of which *text* is the plain form."""
        made = cls(text)
        made._report = report
        return made

    def __repr__(self) -> str:  # so that a console that shows the last value shows the table
        return str(self)

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str.__str__(self),)  # elsewhere it is text

    def __rich__(self) -> RenderableType:
        return renderable(self._report)


def table(report: SpendValues, file: TextIO | None = None) -> ReportTable:
    """The tables of *report*, as wide as the terminal.

    Args:
        report: The report.
        file: Where it is printed; standard output by default.
    """
    file = sys.stdout if file is None else file
    width = max(20, min(shutil.get_terminal_size((_MOST_WIDTH, 24)).columns, _MOST_WIDTH))
    if file is not None and file.isatty():
        try:
            return ReportTable.of(report, _for_terminal(report, width, file))
        except ImportError:
            pass  # rich is an extra: plain text says the same
    return ReportTable.of(report, plain(report, width))


def renderable(report: SpendValues) -> RenderableType:
    """*report* for a console of rich, as wide as that is."""
    return _Styled(report)


def _for_terminal(report: SpendValues, width: int, file: TextIO) -> str:
    """*report* as text, in the colours that the terminal takes.

    Raises:
        ImportError: If rich is not installed.
    """
    from rich.console import Console

    out = io.StringIO()
    terminal = Console(file=file)  # it looks at the terminal, and at what the environment asks for
    console = Console(
        file=out,
        width=width,
        height=25,  # any will do: without one a dumb terminal is taken for 80 columns wide
        force_terminal=True,
        no_color=terminal.no_color,
        color_system="auto" if terminal.color_system else None,
        legacy_windows=False,
    )
    console.print(_Styled(report))
    return out.getvalue().rstrip("\n")


class _Styled:
    def __init__(self, report: SpendValues) -> None:
        self._report = report

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        for line in lines(self._report, max(20, min(options.max_width, _MOST_WIDTH))):
            parts = [(part.text, _STYLES.get(part.style, "")) for part in line]
            yield Text.assemble(*parts, no_wrap=True, overflow="crop")


def plain(report: SpendValues, width: int) -> str:
    """The tables of *report* as text of *width* columns."""
    return "\n".join("".join(part.text for part in line).rstrip() for line in lines(report, width))


def headline(report: SpendValues) -> str:
    """Which run it is, in a few words."""
    if report.runs:
        return f"{len(report.runs):,} runs"
    task = next(iter(report.by_task), None)
    return f"Run {printable(report.session_id)}" + ("" if task is None else f", {printable(task)}")


def lines(report: SpendValues, width: int) -> Iterator[Sequence[Part]]:
    """The report, line by line, each at most *width* columns wide."""
    yield [Part(cut(headline(report), width), "title")]
    yield from _facts(report, width)
    for each in view.cautions(report):
        words = f"{'! ' if each.is_warning else '  '}{each.words}: {printable(each.value)}"
        for line in textwrap.wrap(words, width, subsequent_indent="  ", break_on_hyphens=False):
            yield [Part(line, "warn" if each.is_warning else "dim")]
    yield from _limits(report, width)
    for table in view.tables(report):
        yield []
        yield from _table(table, width)


def _facts(report: SpendValues, width: int) -> Iterator[Sequence[Part]]:
    line: list[Part] = []
    taken = 0
    for each in view.facts(report):
        size = len(each.words) + 1 + len(each.value)
        if line and taken + size + 3 > width:
            yield line
            line, taken = [], 0
        if line:
            line.append(Part(" | ", "dim"))
            taken += 3
        line += [Part(f"{each.words} ", "dim"), Part(each.value, "strong")]
        taken += size
    yield line


def _limits(report: SpendValues, width: int) -> Iterator[Sequence[Part]]:
    limits = view.limits(report)
    if not limits:
        return
    yield []
    yield [Part("Limits", "title")]
    shown = limits[:_MOST_LIMITS]
    names = [each.words + (f" ({printable(each.scope)})" if each.scope else "") for each in shown]
    rest = 2 + 2 + 2 + 5 + 2 + max(len(each.used) for each in shown)
    room = max(_NARROWEST_NAME, min(max(map(cells, names)), width - rest - _NARROWEST_BAR))
    bar = max(_NARROWEST_BAR, min(_WIDEST_BAR, width - rest - room))
    soft_limit = report.budget.get("soft_limit") or 1
    for name, each in zip(names, shown, strict=True):
        style = "stop" if each.is_reached else "warn" if each.spent >= soft_limit else "ok"
        spent, left = drawn(each, bar)
        note = f"  {each.note}" if each.note and rest + room + bar + len(each.note) + 2 <= width else ""
        yield [
            *(Part(f"  {fill(cut(name, room), room)}  "), Part(spent, style), Part(left, "dim")),
            *(Part(f"  {each.percent:>5}", style), Part(f"  {each.used}"), Part(note, "dim")),
        ]
    if len(limits) > len(shown):
        yield [Part(f"  and {len(limits) - len(shown):,} more", "dim")]


def drawn(limit: view.Limit, width: int) -> tuple[str, str]:
    """The bar of *limit*: what is spent; and what is held, and what is left."""
    full, held, empty = "█▒░" if takes_unicode() else "#=."
    spent_cells = min(width, round(limit.spent * width))
    held_cells = min(width - spent_cells, round(limit.held * width))
    return full * spent_cells, held * held_cells + empty * (width - spent_cells - held_cells)


def takes_unicode() -> bool:
    """Whether what is printed may be more than ASCII."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return encoding.lower().replace("-", "").startswith("utf")


def _table(table: view.Table, width: int) -> Iterator[Sequence[Part]]:
    shown = _fitting(table, width)
    widths = {i: _widest(table, i) for i in shown}
    names = [i for i in shown if table.columns[i].is_name]
    room = width - sum(widths[i] for i in shown if i not in names) - 2 * len(shown)
    for n, i in enumerate(sorted(names, key=lambda i: widths[i])):
        widths[i] = min(widths[i], _WIDEST_NAME, max(_NARROWEST_NAME, room // (len(names) - n)))
        room -= widths[i]

    def line(texts: Sequence[str]) -> str:
        return "".join(
            f"  {fill(cut(printable(texts[i]), widths[i]), widths[i], right=not table.columns[i].is_name)}"
            for i in shown
        )

    single = [row for row in table.rows if not row.is_total]
    yield [Part(table.title, "title")]
    yield [Part(line([column.heading for column in table.columns]), "dim")]
    for texts in _grouped(table, single[:_MOST_ROWS]):
        yield [Part(line(texts))]
    if len(single) > _MOST_ROWS:
        yield [Part(f"  and {len(single) - _MOST_ROWS:,} more", "dim")]
    for row in table.rows:
        if row.is_total:
            yield [Part(line(row.cells), "strong")]


def _fitting(table: view.Table, width: int) -> list[int]:
    """The columns of *table* that fit into *width*, least important ones left out first."""
    shown = list(range(len(table.columns)))
    while True:
        rest = [i for i in shown if table.columns[i].dropped]
        least = sum(2 + (min(12, _widest(table, i)) if table.columns[i].is_name else _widest(table, i)) for i in shown)
        if not rest or least <= width:
            return shown
        shown.remove(max(rest, key=lambda i: table.columns[i].dropped))


def _widest(table: view.Table, column: int) -> int:
    """The width of the widest cell of one column."""
    texts = [row.cells[column] for row in table.rows[:_MOST_ROWS] + table.rows[-1:]]
    return max(map(cells, map(printable, [table.columns[column].heading, *texts])))


def _grouped(table: view.Table, rows: Sequence[view.Row]) -> Iterator[Sequence[str]]:
    """The cells of *rows*, without a first name that is that of the row above where a second one follows it."""
    above = ""
    for row in rows:
        first, *rest = row.cells
        yield ["" if first == above and table.columns[1].is_name else first, *rest]
        above = first


def cells(text: str) -> int:
    """How many columns *text* takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def cut(text: str, width: int) -> str:
    """*text*, the end of it left out where it is wider than *width*."""
    if cells(text) <= width:
        return text
    while cells(text) > width - 1:
        text = text[:-1]
    return f"{text}{'…' if takes_unicode() else '~'}"


def fill(text: str, width: int, *, right: bool = False) -> str:
    """*text* with spaces to *width*."""
    spaces = " " * (width - cells(text))
    return spaces + text if right else text + spaces
