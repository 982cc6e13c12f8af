"""What every view of a report shows, in words and figures: the terminal's table, Markdown and HTML are made of it.

Names stand here as they are. Who writes them somewhere makes them harmless there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple, TypeAlias, TypeVar

from budget_guard.reporting.spend import LimitUse, ModelSpend, SpendValues, ToolSpend
from budget_guard.units.money import cost_nano, format_usd, usd_text

S = TypeVar("S", ModelSpend, ToolSpend)

OfAgent: TypeAlias = tuple[str, Mapping[str, ModelSpend], Mapping[str, ToolSpend]]
"""An agent, and what it called."""
NO_AGENT = "(no agent)"
_WORDS = {
    "max_cost_usd": "Dollars",
    "max_total_tokens": "Tokens",
    "max_input_tokens": "Input tokens",
    "max_output_tokens": "Output tokens",
    "max_requests": "Model calls",
    "max_tool_calls": "Tool calls",
    "max_duration_s": "Seconds",
}


class Column(NamedTuple):
    """One column of a table."""

    heading: str
    is_name: bool = False
    """Whether it holds names from outside; else figures."""
    dropped: int = 0
    """Where there is little room, columns are left out from the highest number down; 0 never."""


class Row(NamedTuple):
    """One row of a table, or the last one with the sums."""

    cells: tuple[str, ...]
    cost: int = 0
    """Nano-dollars, to sort and to draw by."""
    is_total: bool = False


class Table(NamedTuple):
    """Spend by one criterion."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


class Limit(NamedTuple):
    """One limit, and how much of it is used."""

    scope: str
    """Whose it is; empty for the run's own."""
    words: str
    """What it limits."""
    used: str
    """How much of how much."""
    spent: float
    """The part that is spent, 1.0 for all of it; more after an overrun."""
    held: float
    """The part that is held for calls in flight."""
    note: str = ""
    """When it begins anew."""
    is_stop: bool = False
    """Whether it has stopped the run."""

    @property
    def percent(self) -> str:
        """The part that is spent; 100% for all of it alone."""
        return "<1%" if 0 < self.spent < 0.01 else f"{math.floor(self.spent * 100):,}%"

    @property
    def is_reached(self) -> bool:
        """Whether nothing more is to be had of it."""
        return self.is_stop or self.spent >= 1


class Fact(NamedTuple):
    """One figure with its words."""

    words: str
    value: str
    is_warning: bool = False
    is_name: bool = False
    """Whether the value is a name from outside, or from the program."""


def usd(amount: Decimal) -> str:
    """*amount* dollars for people."""
    return format_usd(cost_nano(amount))


def exact_usd(amount: Decimal) -> str:
    """*amount* dollars in full, for programs."""
    return usd_text(cost_nano(amount))


def seconds(value: float) -> str:
    """A duration for people."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def moment(at_s: float) -> str:
    """A time since the start, exact to the second from a minute on."""
    if at_s < 60:
        return f"{at_s:.1f} s"
    minutes, rest = divmod(int(at_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def limit_words(name: str) -> str:
    """What the limit *name* limits."""
    return _WORDS.get(name, name)


def facts(report: SpendValues) -> list[Fact]:
    """The figures at the top: what was spent, what is left, and what is not as sure as it looks."""
    llm, tools = report.breakdown.llm, report.breakdown.tools
    found = [Fact("Spent", usd(report.total_spent))]
    if report.remaining is not None:
        found.append(Fact("Remaining", usd(report.remaining)))
    if report.reserved:
        found.append(Fact("Held", usd(report.reserved)))
    found += [
        Fact("Models", usd(llm.total)),
        Fact("Tools", usd(tools.total)),
        Fact("Model calls", f"{llm.calls:,}"),
        Fact("Tokens", f"{report.input_tokens + report.output_tokens:,}"),
        Fact("Time", seconds(report.duration_seconds)),
    ]
    return found


def cautions(report: SpendValues) -> list[Fact]:
    """What a reader should know before trusting the total, and what stopped the run."""
    found: list[Fact] = []
    if report.terminated_by:
        found.append(Fact("Stopped by", report.terminated_by, True, True))
    for words, amount in (
        ("Uncertain (estimates, because the usage never came)", report.uncertain),
        ("Overrun (charged above what was held)", report.overrun),
        ("By the providers' own figures", report.from_provider),
        ("Spent by other sessions of the run", report.spent_elsewhere if report.spent_elsewhere > 0 else Decimal(0)),
    ):
        if amount:
            found.append(Fact(words, usd(amount), words.startswith(("Uncertain", "Overrun"))))
    if report.unpriced_calls:
        found.append(Fact("Calls without a known price", f"{report.unpriced_calls:,}", True))
    if report.bound_violations:
        found.append(Fact("Calls that used more than their estimate", f"{report.bound_violations:,}", True))
    return found


def limits(report: SpendValues) -> list[Limit]:
    """Every limit, the run's own first."""
    own = f"run:{report.session_id}"
    return [
        limit(
            each,
            "" if each.scope == own else each.scope,
            is_stop=report.terminated_by == each.name and each.scope == own,
        )
        for each in report.limits
    ]


def limit(use: LimitUse, scope: str, *, is_stop: bool = False) -> Limit:
    """How much of one limit is used.

    Args:
        use: The limit.
        scope: What to say of whose it is.
        is_stop: Whether it has stopped the run.
    """
    return Limit(
        scope=scope,
        words=limit_words(use.name),
        used=f"{amount(use, use.spent)} of {amount(use, use.limit)}",
        spent=use.fraction,
        held=float(use.held / use.limit) if use.limit else 0.0,
        is_stop=is_stop,
        note="" if use.resets_at is None else f"until {use.resets_at:%Y-%m-%d %H:%M} UTC",
    )


def amount(limit: LimitUse, value: Decimal) -> str:
    """*value* in the unit of *limit*."""
    if limit.name == "max_cost_usd":
        return usd(value)
    return f"{float(value):,.1f}" if limit.name == "max_duration_s" else f"{int(value):,}"


def compact(count: int) -> str:
    """*count* for where there is little room: ``322k``."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size * 10:
            return f"{count / size:.3g}{letter}"
    return f"{count:,}"


def tables(report: SpendValues) -> list[Table]:
    """The tables that have something to say, dearest rows first."""
    found = [_by_model(report), _by_agent(report), _by_tool(report), _by_task(report), _by_run(report)]
    return [table for table in found if table.rows]


_MODEL_COLUMNS = (
    Column("Calls"),
    Column("Input", dropped=1),
    Column("Cached", dropped=3),
    Column("Output", dropped=2),
    Column("Reasoning", dropped=4),
    Column("Dollars"),
    Column("A call", dropped=5),
)


def _by_model(report: SpendValues) -> Table:
    models = _dearest(report.breakdown.llm.by_model)
    rows = [_model_row((name,), spend) for name, spend in models]
    if len(models) > 1:
        rows.append(_sum_of(("All models",), [spend for _, spend in models]))
    return Table("By model", (Column("Model", True), *_MODEL_COLUMNS), tuple(rows))


def by_agent(report: SpendValues) -> list[OfAgent]:
    """What each agent called itself, dearest first; what nobody is named for is the last, under `NO_AGENT`."""
    named = sorted(report.by_agent.items(), key=lambda each: -each[1].total)
    agents: list[OfAgent] = [(name, spend.by_model, spend.by_tool) for name, spend in named]
    models, tools = report.breakdown.llm.by_model, report.breakdown.tools.by_tool
    rest_models = {
        name: _without(spend, [of_agent[name] for _, of_agent, _ in agents if name in of_agent])
        for name, spend in models.items()
    }
    rest_tools: dict[str, ToolSpend] = {}
    for name, spend in tools.items():
        taken = [of_agent[name] for _, _, of_agent in agents if name in of_agent]
        total, calls = sum(each.total for each in taken), sum(each.calls for each in taken)
        rest_tools[name] = ToolSpend(total=spend.total - total, calls=spend.calls - calls)
    left_models = {name: spend for name, spend in rest_models.items() if spend.calls or spend.total}
    left_tools = {name: spend for name, spend in rest_tools.items() if spend.calls or spend.total}
    return [*agents, (NO_AGENT, left_models, left_tools)] if left_models or left_tools else agents


def _by_agent(report: SpendValues) -> Table:
    """By agent and model; a tool's row has no tokens."""
    rows: list[Row] = []
    for agent, models, tools in by_agent(report) if report.by_agent else ():
        rows += [_model_row((agent, name), model) for name, model in _dearest(models)]
        rows += [
            Row((agent, name, f"{tool.calls:,}", "", "", "", "", usd(tool.total), _each(tool)), cost_nano(tool.total))
            for name, tool in _dearest(tools)
        ]
    return Table("By agent", (Column("Agent", True), Column("Model or tool", True), *_MODEL_COLUMNS), tuple(rows))


def _by_tool(report: SpendValues) -> Table:
    rows = [
        Row((name, f"{tool.calls:,}", usd(tool.total), _each(tool)), cost_nano(tool.total))
        for name, tool in _dearest(report.breakdown.tools.by_tool)
    ]
    columns = (Column("Tool", True), Column("Calls"), Column("Dollars"), Column("A call", dropped=1))
    return Table("By tool", columns, tuple(rows))


def _by_task(report: SpendValues) -> Table:
    rows = [
        Row((name, f"{task.runs:,}", f"{task.calls:,}", f"{task.tool_calls:,}", usd(task.total)), cost_nano(task.total))
        for name, task in sorted(report.by_task.items(), key=lambda each: -each[1].total)
    ]
    columns = (
        Column("Task", True),
        *(Column("Runs"), Column("Model calls", dropped=1), Column("Tool calls", dropped=2), Column("Dollars")),
    )
    return Table("By task", columns, tuple(rows))


def _by_run(report: SpendValues) -> Table:
    rows = [
        Row(
            (
                *(run.session_id, run.task or "", usd(run.total_spent)),
                *("" if run.remaining is None else usd(run.remaining), run.terminated_by or ""),
            ),
            cost_nano(run.total_spent),
        )
        for run in report.runs
    ]
    columns = (
        *(Column("Run", True), Column("Task", True, dropped=2), Column("Dollars"), Column("Remaining", dropped=1)),
        Column("Stopped by", True, dropped=3),
    )
    return Table("By run", columns, tuple(rows))


def _dearest(spends: Mapping[str, S]) -> list[tuple[str, S]]:
    return sorted(spends.items(), key=lambda each: -each[1].total)


def _model_row(names: tuple[str, ...], spend: ModelSpend, *, is_total: bool = False) -> Row:
    figures = (
        *(f"{spend.calls:,}", f"{spend.input_tokens:,}", f"{spend.cached_tokens:,}"),
        *(f"{spend.output_tokens:,}", f"{spend.reasoning_tokens:,}", usd(spend.total), _each(spend)),
    )
    return Row((*names, *figures), cost_nano(spend.total), is_total)


def _sum_of(names: tuple[str, ...], spends: Sequence[ModelSpend]) -> Row:
    return _model_row(names, added(spends), is_total=True)


_FIGURES = (
    *("total", "calls", "input_tokens", "output_tokens"),
    *("cached_tokens", "cache_written_tokens", "reasoning_tokens"),
)


def added(spends: Iterable[ModelSpend]) -> ModelSpend:
    """The sum of *spends*."""
    each = list(spends)
    sums: dict[str, Any] = {name: sum(getattr(one, name) for one in each) for name in _FIGURES}
    return ModelSpend(**sums)


def _without(whole: ModelSpend, parts: Sequence[ModelSpend]) -> ModelSpend:
    taken = added(parts)
    rest: dict[str, Any] = {name: getattr(whole, name) - getattr(taken, name) for name in _FIGURES}
    return ModelSpend(**rest)


def _each(spend: ModelSpend | ToolSpend) -> str:
    """Dollars a call."""
    return format_usd(-(-cost_nano(spend.total) // spend.calls)) if spend.calls else ""
