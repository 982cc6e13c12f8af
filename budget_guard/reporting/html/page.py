"""The page of a report: one file that loads nothing, and a part of it for notebooks."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from budget_guard.reporting import view
from budget_guard.reporting.html import chart
from budget_guard.reporting.html.markup import Markup, joined, tag
from budget_guard.reporting.spend import ModelSpend, SpendValues, ToolSpend
from budget_guard.units.money import cost_nano, format_usd

_FOLDER = Path(__file__).parent
_MOST_BARS = 8


@cache
def _file(name: str) -> Markup:
    return Markup((_FOLDER / name).read_text(encoding="utf-8").strip())


def write_page(report: SpendValues, path: str | os.PathLike[str]) -> None:
    """Write the page of *report* to *path*.

    Raises:
        OSError: If it cannot be written.
    """
    Path(path).write_text(page(report), encoding="utf-8")


def page(report: SpendValues) -> str:
    """The whole page of *report*. It may load nothing and run nothing but its own script."""
    script = sorting()
    hashed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{hashed}'; img-src data:"
    head = (
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=Markup(policy)),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("link", rel="icon", href="data:,"),
        tag("title", f"{_title(report)}: {view.usd(report.total_spent)}"),
        tag("style", style()),
    )
    body = tag("main", _header(report), sections(report), _footer(), class_="bg-report bg-page")
    whole = tag("html", tag("head", *head), tag("body", body, tag("script", script)), lang="en")
    return f"<!doctype html>\n{whole}\n"


def style() -> Markup:
    """The style of what is in an element of the class ``bg-report``; one that is ``bg-page`` too is a whole page."""
    return _file("style.css")


def sorting() -> Markup:
    """The script that sorts a table of the class ``sortable`` by a click."""
    return _file("sort.js")


def sections(report: SpendValues) -> Markup:
    """What a page shows of *report* below its heading."""
    tables = [table for table in view.tables(report) if table.title != "By task" or len(table.rows) > 1]
    return joined(
        _facts(report),
        _cautions(report),
        _over_time(report),
        _limits(report),
        _where(report),
        _details(tables),
        _calls(report),
    )


def fragment(report: SpendValues) -> str:
    """The report as a notebook shows it: without a script, and in the notebook's own colours."""
    return tag(
        "div",
        tag("style", style()),
        _header(report),
        _facts(report),
        _cautions(report),
        _over_time(report),
        _limits(report),
        _where(report),
        class_="bg-report",
    )


def _title(report: SpendValues) -> str:
    return f"{len(report.runs):,} runs" if report.runs else next(iter(report.by_task), None) or "Spend of a run"


def _header(report: SpendValues) -> Markup:
    about: list[str] = []
    if not report.runs:
        about.append(report.session_id)
    about += [f"{kind} {name}" for kind, name in report.tags.items()]
    if report.started_at is not None:
        about.append(f"{report.started_at:%Y-%m-%d %H:%M:%S} UTC")
    state: Markup | None = None
    if report.terminated_by:
        state = tag("span", f"stopped by {report.terminated_by}", class_="state stop")
    elif any(each.spent >= 1 for each in view.limits(report)):
        state = tag("span", "limit used up", class_="state stop")
    elif any(each.spent >= (report.budget.get("soft_limit") or 1) for each in view.limits(report)):
        state = tag("span", "near a limit", class_="state warn")
    elif report.limits:
        state = tag("span", "within budget", class_="state ok")
    return tag(
        "header",
        tag("div", tag("h1", _title(report), title=_title(report)), state),
        tag("p", *(tag("span", each, title=each) for each in about)),
    )


def _facts(report: SpendValues) -> Markup:
    tiles: list[Markup] = []
    for n, each in enumerate(view.facts(report)):
        more = None
        if n == 0:
            limit = next((limit for limit in report.own_limits if limit.name == "max_cost_usd"), None)
            more = None if limit is None else tag("small", f"of {view.usd(limit.limit)}")
        elif each.words == "Tokens":
            more = tag("small", f"{view.compact(report.input_tokens)} in, {view.compact(report.output_tokens)} out")
        tiles.append(tag("div", tag("dt", each.words), tag("dd", each.value), more))
    return tag("dl", *tiles, class_="facts")


def _cautions(report: SpendValues) -> Markup | None:
    items = [
        tag("li", each.words, " ", tag("b", each.value), class_=None if each.is_warning else "note")
        for each in view.cautions(report)
        if each.words != "Stopped by"  # stands at the top
    ]
    return tag("ul", *items, class_="cautions") if items else None


def _over_time(report: SpendValues) -> Markup:
    heading = tag("h2", "Over time")
    if len(report.over_time) == 0:
        calls = report.breakdown.llm.calls + report.breakdown.tools.calls
        words = "When it was spent is not known here." if calls else "No call was paid for yet."
        return tag("section", heading, tag("p", words, class_="empty"))
    course, (marks, more) = chart.course_of(report), chart.marks_of(report)
    key = hashlib.sha256(report.session_id.encode("utf-8", "replace")).hexdigest()[:8]  # a notebook shows many
    return tag(
        "section",
        tag("h2", "Over time", tag("small", course.words)),
        tag("div", chart.draw(course, marks, width=1040, height=320, id_=f"bg-wide-{key}"), class_="wide"),
        tag("div", chart.draw(course, marks, width=380, height=260, id_=f"bg-narrow-{key}"), class_="narrow"),
        chart.legend(course, marks, more),
    )


def _limits(report: SpendValues) -> Markup | None:
    limits = view.limits(report)
    return limits_section(limits, report.budget.get("soft_limit")) if limits else None


def limits_section(limits: Sequence[view.Limit], soft_limit: float | None) -> Markup:
    """Each limit with a bar of how much of it is spent and held."""
    rows = [_limit(each, soft_limit) for each in limits]
    return tag("section", tag("h2", "Limits"), tag("div", *rows, class_="limits"))


def _limit(limit: view.Limit, soft_limit: float | None) -> Markup:
    kind = _kind(limit, soft_limit)
    whose = tag("small", limit.scope, title=limit.scope) if limit.scope else None
    return tag(
        "div",
        tag("span", limit.words, whose),
        bar(limit, soft_limit),
        tag("b", limit.percent, class_=kind),
        tag("span", limit.used, tag("small", limit.note) if limit.note else None),
    )


def bar(limit: view.Limit, soft_limit: float | None) -> Markup:
    """How much of *limit* is spent, and how much is held."""
    spent = min(1.0, limit.spent)
    held = min(1.0 - spent, limit.held)
    return tag(
        "div",
        tag("i", class_=_kind(limit, soft_limit), style=f"width:{spent:.2%}"),
        tag("i", class_="held", style=f"width:{held:.2%}") if held else None,
        tag("s", style=f"left:{soft_limit:.2%}") if soft_limit else None,
        class_="bar",
    )


def _kind(limit: view.Limit, soft_limit: float | None) -> str:
    """The colour of how much of *limit* is spent."""
    return "stop" if limit.is_reached else "warn" if limit.spent >= (soft_limit or 1) else "ok"


def _where(report: SpendValues) -> Markup | None:
    llm, tools = report.breakdown.llm, report.breakdown.tools
    panels = [
        ("By model", [(name, spend.total, spend.calls) for name, spend in llm.by_model.items()]),
        ("By agent", _agents(report)),
        ("By tool", [(name, spend.total, spend.calls) for name, spend in tools.by_tool.items()]),
    ]
    return where_section("Where it went", panels)


def where_section(title: str, panels: Sequence[tuple[str, Sequence[tuple[str, Decimal, int]]]]) -> Markup | None:
    """Bars of dollars by several criteria, each a name with its dollars and its calls."""
    drawn = [
        _panel(words, [(name, cost_nano(total), calls) for name, total, calls in spends])
        for words, spends in panels
        if spends
    ]
    return tag("section", tag("h2", title), tag("div", *drawn, class_="panels")) if drawn else None


def _agents(report: SpendValues) -> list[tuple[str, Decimal, int]]:
    """What each agent spent, and what nobody is named for, where anybody is."""
    if not report.by_agent:
        return []
    found: list[tuple[str, Decimal, int]] = []
    for name, models, tools in view.by_agent(report):
        spends: list[ModelSpend | ToolSpend] = [*models.values(), *tools.values()]
        found.append((name, sum((each.total for each in spends), Decimal(0)), sum(each.calls for each in spends)))
    return found


def _panel(title: str, spends: Sequence[tuple[str, int, int]]) -> Markup:
    """Bars of dollars, dearest first; of calls where nothing cost anything."""
    ordered = sorted(spends, key=lambda each: (-each[1], -each[2]))
    all_cost, all_calls = sum(cost for _, cost, _ in spends), sum(calls for _, _, calls in spends)
    shown = ordered[:_MOST_BARS]
    rest = ordered[_MOST_BARS:]
    if rest:
        shown.append((f"{len(rest):,} others", sum(cost for _, cost, _ in rest), sum(calls for _, _, calls in rest)))
    rows: list[Markup] = []
    for name, cost, calls in shown:
        share = cost / all_cost if all_cost else calls / all_calls if all_calls else 0.0
        figure = format_usd(cost) if all_cost else f"{calls:,} calls"
        part = tag("div", tag("i", style=f"width:{share:.2%}"), class_="bar")
        rows.append(tag("li", tag("span", name, title=name), tag("b", figure), part, tag("small", f"{share:.0%}")))
    return tag("div", tag("h3", title), tag("ul", *rows))


def _details(tables: Sequence[view.Table]) -> Markup | None:
    return tag("div", *map(_detail, tables), class_="details") if tables else None


def _detail(table: view.Table) -> Markup:
    heads = [tag("th", column.heading, class_=None if column.is_name else "n") for column in table.columns]
    rows = [
        tag(
            "tr",
            *(
                tag("td", cell, class_=None, title=cell) if column.is_name else tag("td", cell, class_="n")
                for column, cell in zip(table.columns, row.cells, strict=True)
            ),
            class_="total" if row.is_total else None,
        )
        for row in table.rows
    ]
    made = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows))
    return tag("details", tag("summary", table.title), tag("div", made, class_="scroll"))


class _Call(NamedTuple):
    """One call in the table."""

    at_s: float
    name: str
    agent: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost: int
    """Nano-dollars."""
    notes: tuple[str, ...]


def _latest_calls(report: SpendValues) -> list[_Call]:
    """The calls that the latest events tell of, in order; an estimate that was replaced is left out."""
    more: dict[str, list[str]] = {}
    for event in (*report.marks, *report.events):
        kind, id_ = event.get("event"), str(event.get("decision_id"))
        if kind == "AnswerCutOff":
            more.setdefault(id_, []).append("cut off")
        elif kind == "OverrunCharged":
            more.setdefault(id_, []).append("overrun")
        elif kind == "BoundViolated":
            more.setdefault(id_, []).append("above its estimate")
        elif kind == "ModelDowngraded":
            more.setdefault(id_, []).append(f"in place of {event.get('model')}")
    found: dict[str, _Call] = {}
    for event in report.events:
        if event.get("event") == "CallCommitted":
            id_ = str(event["decision_id"])
            found[id_] = _call(event, more.get(id_, ()))
    return list(found.values())


def _call(event: Mapping[str, Any], notes: Sequence[str]) -> _Call:
    own = [words for words, field in (("estimate", "uncertain"), ("no known price", "unpriced")) if event.get(field)]
    if event.get("source") == "provider":
        own.append("provider's figure")
    return _Call(
        at_s=event["at_s"],
        name=str(event["name"]),
        agent=str(event.get("agent") or ""),
        input_tokens=event.get("input_tokens", 0),
        cached_tokens=event.get("cached_tokens", 0),
        output_tokens=event.get("output_tokens", 0),
        reasoning_tokens=event.get("reasoning_tokens", 0),
        cost=round(float(event["cost_usd"]) * 1e9),
        notes=tuple(dict.fromkeys([*own, *notes])),
    )


def _calls(report: SpendValues) -> Markup | None:
    calls = _latest_calls(report)
    if not calls:
        return None
    total = report.breakdown.llm.calls + report.breakdown.tools.calls
    heads = ("Time", "Model or tool", "Agent", "Input", "Cached", "Output", "Reasoning", "Dollars", "Notes")
    names = ("Model or tool", "Agent", "Notes")
    cells = [
        tag("th", tag("button", head, type="button"), class_=None if head in names else "n", scope="col")
        for head in heads
    ]
    rows = [tag("tr", *_call_cells(call)) for call in calls]
    made = tag("table", tag("thead", tag("tr", *cells)), tag("tbody", *rows), class_="sortable")
    count = f"{len(calls):,}" if len(calls) >= total else f"the latest {len(calls):,} of {total:,}"
    return tag("section", tag("h2", "Calls", tag("small", count)), tag("div", made, class_="scroll calls"))


def _call_cells(call: _Call) -> Iterator[Markup]:
    yield tag("td", view.moment(call.at_s), class_="n", data_v=f"{call.at_s:.6f}")
    yield tag("td", call.name, title=call.name)
    yield tag("td", call.agent, title=call.agent or None)
    for count in (call.input_tokens, call.cached_tokens, call.output_tokens, call.reasoning_tokens):
        yield tag("td", f"{count:,}" if count else "", class_="n", data_v=str(count))
    yield tag("td", format_usd(call.cost), class_="n", data_v=str(call.cost))
    yield tag("td", *(tag("em", note) for note in call.notes))


def _footer() -> Markup:
    text = "Exact to the nano-dollar. Totals are of all calls; this page loads nothing from anywhere."
    return tag("footer", joined(tag("b", "budget_guard"), " ", text))
