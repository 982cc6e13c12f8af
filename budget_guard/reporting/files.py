"""A report as Markdown, and as comma-separated values."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from budget_guard.reporting import view
from budget_guard.reporting.spend import SpendValues
from budget_guard.reporting.text import headline
from budget_guard.units.printable import no_formula, printable

_MOST_CHARACTERS = 80
"""Of a name in Markdown."""
CSV_COLUMNS = (
    *("run", "agent", "kind", "name", "calls", "input_tokens", "cached_tokens", "cache_written_tokens"),
    *("output_tokens", "reasoning_tokens", "cost_usd"),
)
"""The columns of the file that `to_csv` writes: a row for each agent and model, and for each agent and tool."""


def markdown(report: SpendValues) -> str:
    """*report* as GitHub's Markdown."""
    lines = [f"### {_code(headline(report))}", ""]
    lines.append(" · ".join(f"{each.words} **{each.value}**" for each in view.facts(report)))
    for caution in view.cautions(report):
        value = _code(caution.value) if caution.is_name else f"**{caution.value}**"
        lines += ["", f"> {caution.words}: {value}"]
    limits = view.limits(report)
    if limits:
        lines += ["", "| Limit | Used | |", "| :-- | :-- | --: |"]
        for each in limits:
            scope = f" {_code(each.scope)}" if each.scope else ""
            note = f" {each.note}" if each.note else ""
            lines.append(f"| {each.words}{scope} | {each.used}{note} | {each.percent} |")
    for table in view.tables(report):
        lines += ["", f"**{table.title}**", "", _row([column.heading for column in table.columns])]
        lines.append(_row([":--" if column.is_name else "--:" for column in table.columns]))
        for row in table.rows:
            cells = [
                _code(cell) if column.is_name and cell and not row.is_total else cell
                for column, cell in zip(table.columns, row.cells, strict=True)
            ]
            lines.append(_row([f"**{cell}**" if row.is_total and cell else cell for cell in cells]))
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(name: str) -> str:
    """*name* as code: nothing in it is markup, a link, or a mention of somebody."""
    shown = printable(name)
    if len(shown) > _MOST_CHARACTERS:
        shown = f"{shown[:_MOST_CHARACTERS]}…"
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    space = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{ticks}{space}{shown}{space}{ticks}".replace("|", "\\|")


def write_csv(report: SpendValues, path: str | os.PathLike[str]) -> None:
    """Write *report* to *path*.

    Raises:
        OSError: If it cannot be written.
    """
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(CSV_COLUMNS)
        rows.writerows(_csv_rows(report))


def _csv_rows(report: SpendValues) -> Iterator[Sequence[object]]:
    run = no_formula(printable(headline(report) if report.runs else report.session_id))
    for agent, models, tools in view.by_agent(report):
        who = "" if agent == view.NO_AGENT else no_formula(printable(agent))
        for name, spend in models.items():
            tokens = (spend.input_tokens, spend.cached_tokens, spend.cache_written_tokens)
            more = (spend.output_tokens, spend.reasoning_tokens, view.exact_usd(spend.total))
            yield run, who, "model", no_formula(printable(name)), spend.calls, *tokens, *more
        for name, tool in tools.items():
            shown = no_formula(printable(name))
            yield run, who, "tool", shown, tool.calls, 0, 0, 0, 0, 0, view.exact_usd(tool.total)
