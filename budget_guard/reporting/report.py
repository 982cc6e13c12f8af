"""Reports: the spend of a run, and the ways to read it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from budget_guard.reporting.spend import SpendValues
from budget_guard.units.money import cost_nano, format_usd
from budget_guard.units.printable import printable

if TYPE_CHECKING:
    from decimal import Decimal

    from rich.console import RenderableType

    from budget_guard.reporting.text import ReportTable

_TOKENS = {"max_total_tokens": "Tokens", "max_input_tokens": "Input tokens", "max_output_tokens": "Output tokens"}


class BudgetReport(SpendValues):
    """The spend of a run, exact to the nano-dollar. ``print(report)`` gives one line.

    ``report.table()`` tells more, and so do `to_markdown`, `to_csv` and `to_html`; a notebook shows it by itself. Two
    reports can be added, and many with ``sum(reports)``: totals add up, budgets are listed.
    """

    def __str__(self) -> str:
        parts = [f"Total spend: {_usd(self.total_spent)}"]
        if self.remaining is not None:
            parts.append(f"Remaining: {_usd(self.remaining)}")
        llm, tools = self.breakdown.llm, self.breakdown.tools
        parts += [f"LLM: {_usd(llm.total)}", f"Tools: {_usd(tools.total)}", f"Calls: {llm.calls}"]
        parts += [
            f"{_TOKENS[each.name]}: {each.spent:,} of {each.limit:,}"
            for each in self.own_limits
            if each.name in _TOKENS
        ]
        for words, amount in (("Held", self.reserved), ("Uncertain", self.uncertain), ("Overrun", self.overrun)):
            if amount:
                parts.append(f"{words}: {_usd(amount)}")
        if self.unpriced_calls:
            parts.append(f"Unpriced calls: {self.unpriced_calls}")
        if self.terminated_by:
            parts.append(f"Stopped by: {self.terminated_by}")
        return " | ".join(parts)

    def __repr__(self) -> str:
        limit = next((each for each in self.own_limits if each.name == "max_cost_usd"), None)
        of = "" if limit is None else f" of {_usd(limit.limit)}"
        stopped = f", stopped by {self.terminated_by}" if self.terminated_by else ""
        calls = self.breakdown.llm.calls
        words = f"{_usd(self.total_spent)}{of}, {calls:,} model call{'' if calls == 1 else 's'}{stopped}"
        return f"<{type(self).__name__} {printable(self.session_id)}: {words}>"

    def table(self) -> ReportTable:
        """All of it as tables: limits, models, agents, tools, tasks, and what is uncertain.

        It is text. Printed on a terminal it has colours, where rich is installed.
        """
        from budget_guard.reporting.text import table

        return table(self)

    def to_markdown(self) -> str:
        """All of it as Markdown, for a comment or a chat."""
        from budget_guard.reporting.files import markdown

        return markdown(self)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the spend to *path* as comma-separated values: a row for each agent and model, or agent and tool.

        Raises:
            OSError: If it cannot be written.
        """
        from budget_guard.reporting.files import write_csv

        write_csv(self, path)

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write a page to *path*: one file that loads nothing from anywhere.

        It shows the spend over time against the limit, where the money went, and the latest calls.

        Raises:
            OSError: If it cannot be written.
        """
        from budget_guard.reporting.html.page import write_page

        write_page(self, path)

    def __add__(self, other: BudgetReport) -> BudgetReport:
        if not isinstance(other, BudgetReport):
            return NotImplemented
        from budget_guard.reporting.summing import summed

        return type(self)(**summed(self, other))

    def __radd__(self, other: object) -> BudgetReport:
        return self if other == 0 else NotImplemented  # as `sum` begins

    def __rich__(self) -> RenderableType:
        from budget_guard.reporting.text import renderable

        return renderable(self)

    def _repr_html_(self) -> str:
        from budget_guard.reporting.html.page import fragment

        return fragment(self)


def _usd(amount: Decimal) -> str:
    return format_usd(cost_nano(amount))
