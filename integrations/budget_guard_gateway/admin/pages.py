"""The pages for operators, as HTML: made on the server, with a few lines of script that keep the figures live.

They load nothing from anywhere, and do without the script: then they are loaded anew. Whatever comes from outside is
text: names, reasons, models.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from budget_guard import BudgetReport, ScopeSnapshot
from budget_guard.reporting import view
from budget_guard.reporting.html.markup import Markup, joined, tag
from budget_guard.reporting.html.page import bar, limits_section, sections, sorting, style, where_section
from budget_guard.reporting.spend import LimitUse
from budget_guard.session.usage import UsageRow

HOME = "/budget/"
_FOLDER = Path(__file__).parent
_PERIODS = {"today": "Today", "week": "7 days", "month": "30 days", "all": "All time"}
PERIODS = tuple(_PERIODS)
"""The periods that spend is shown of."""
_MANY = {"user": "Users", "key": "Keys", "team": "Teams", "agent": "Agents", "run": "Runs"}
_WINDOWS = {"none": "", "minute": "this minute", "hour": "this hour", "day": "today", "week": "this week"}
_NEAR = 0.9
"""The part of a limit from which on it is nearly used up."""
_DONE = {"revoked": "Every further call is refused.", "restored": "It may call again."}


@cache
def _file(name: str) -> Markup:
    return Markup((_FOLDER / name).read_text(encoding="utf-8").strip())


class Frame(NamedTuple):
    """What all pages of one browser have."""

    nonce: str
    """What its style and its scripts are known by."""
    form_token: str
    """What its forms carry."""
    can_leave: bool
    """Whether there is a log-in to end."""


class Spender(NamedTuple):
    """One who spends."""

    id: str
    spent: Decimal
    calls: int
    snapshot: ScopeSnapshot


class Overview(NamedTuple):
    """What the first page shows."""

    at: datetime
    mode: str
    kinds: Sequence[str]
    kind: str
    period: str
    find: str
    number: int
    """Which page of the list, from 1."""
    last: int
    total: int
    """How many are in the list."""
    spenders: Sequence[Spender]
    today: UsageRow | None
    month: UsageRow | None
    held: Decimal
    under_way: int
    refused_today: str
    refusals: Sequence[Mapping[str, Any]]


def security_policy(nonce: str) -> str:
    """What a page may load and run: its own style and scripts, and itself again."""
    return (
        f"default-src 'none'; style-src 'nonce-{nonce}'; style-src-attr 'unsafe-inline'; script-src 'nonce-{nonce}'; "
        "connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def _page(frame: Frame, title: str, *body: object, refresh_s: int | None = None, scripts: Sequence[Markup] = ()) -> str:
    again = None if refresh_s is None else tag("meta", http_equiv="refresh", content=refresh_s)
    head = (
        tag("meta", charset="utf-8"),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("link", rel="icon", href="data:,"),
        tag("noscript", again) if again is not None and scripts else again,
        tag("title", f"{title} - budget_guard"),
        tag("style", style(), Markup("\n"), _file("page.css"), nonce=frame.nonce),
    )
    run = [tag("script", script, nonce=frame.nonce) for script in scripts]
    whole = tag("html", tag("head", *head), tag("body", *body, *run), lang="en")
    return f"<!doctype html>\n{whole}\n"


def _main(*children: object) -> Markup:
    skip = tag("a", "Skip to the content", href="#content", class_="skip")
    foot = tag("footer", tag("b", "budget_guard"), " Exact to the nano-dollar. Times are UTC.")
    return tag("main", skip, *children, foot, class_="bg-report bg-page")


def _leave(frame: Frame) -> Markup | None:
    if not frame.can_leave:
        return None
    return _form(frame, "/budget/logout", tag("button", "Log out", type="submit", class_="do quiet"))


def _form(frame: Frame, action: str, *children: object, **attributes: object) -> Markup:
    token = tag("input", type="hidden", name_="form_token", value=Markup(frame.form_token))
    return tag("form", token, *children, method="post", action=action, **attributes)


def _address(path: str, **query: object) -> Markup:
    """An address of ours, however long: never cut, as a text would be."""
    given = {name: value for name, value in query.items() if value not in (None, "")}
    return Markup(html.escape(f"{path}?{urlencode(given)}" if given else path))


def _to(kind: str, id: str) -> Markup:
    return tag("a", id, href=_address("/budget/view", kind=kind, id=id), title=id)


# The first page


def overview(frame: Frame, shown: Overview) -> str:
    """Who spends, what is left to them, and what was refused last."""
    state = (
        tag("span", "watching", class_="state warn")
        if shown.mode == "advisory_estimate"
        else tag("span", "holding", class_="state ok")
    )
    header = tag(
        "header",
        tag(
            "div",
            tag("div", tag("h1", "Budgets"), state),
            tag("p", tag("span", shown.mode), tag("span", f"{shown.at:%Y-%m-%d %H:%M:%S} UTC"), id="at", data_live=""),
        ),
        _leave(frame),
    )
    body = _main(
        header,
        _overview_facts(shown),
        _who(shown),
        _refusals("Latest refusals", shown.refusals, more="/budget/refusals", id_="refusals"),
    )
    return _page(frame, "Budgets", body, refresh_s=15, scripts=[_file("live.js")])


def _overview_facts(shown: Overview) -> Markup:
    today, month = shown.today, shown.month
    return _facts(
        ("Spent today", _usd(today.cost_usd if today else Decimal(0))),
        ("In 30 days", _usd(month.cost_usd if month else Decimal(0))),
        ("Calls today", f"{today.calls if today else 0:,}"),
        ("Uncertain today", _usd(today.uncertain_usd if today else Decimal(0))),
        ("Held now", _usd(shown.held)),
        ("Under way", f"{shown.under_way:,}"),
        ("Refused today", shown.refused_today),
    )


def _facts(*facts: tuple[str, str]) -> Markup:
    tiles = [tag("div", tag("dt", words), tag("dd", value)) for words, value in facts]
    return tag("dl", *tiles, class_="facts", id="facts", data_live="")


def _who(shown: Overview) -> Markup:
    kinds = [
        tag(
            "a",
            _many(kind),
            href=_address(HOME, kind=kind, period=shown.period),
            aria_current="page" if kind == shown.kind else None,
        )
        for kind in shown.kinds
    ]
    periods = [
        tag(
            "a",
            words,
            href=_address(HOME, kind=shown.kind, period=period, find=shown.find),
            aria_current="true" if period == shown.period else None,
        )
        for period, words in _PERIODS.items()
    ]
    many = _many(shown.kind).lower()
    find = tag(
        "form",
        tag("input", type="hidden", name_="kind", value=shown.kind),
        tag("input", type="hidden", name_="period", value=shown.period),
        tag(
            "input",
            type="search",
            name_="find",
            value=shown.find or None,
            placeholder=f"Find {many}",
            aria_label=f"Find {many} by how their name begins",
            maxlength=200,
        ),
        method="get",
        action=HOME,
        class_="find",
        role="search",
    )
    tools = tag(
        "div",
        tag("nav", *kinds, class_="tabs", aria_label="Kind"),
        tag("nav", *periods, class_="tabs", aria_label="Period"),
        find,
        class_="tools",
    )
    return tag("section", tag("h2", "Who spends", id="content"), tools, _spenders(shown), id="who")


def _spenders(shown: Overview) -> Markup:
    if not shown.spenders:
        when = {"today": " today", "week": " in 7 days", "month": " in 30 days", "all": ""}[shown.period]
        words = f"No {shown.kind} is known whose name begins so." if shown.find else f"No {shown.kind} has spent{when}."
        return tag("p", words, class_="empty", id="spenders", data_live="")
    heads = tag(
        "tr",
        tag("th", shown.kind.capitalize(), scope="col"),
        tag("th", "Spent", scope="col", class_="n"),
        tag("th", "Calls", scope="col", class_="n many"),
        tag("th", "Left", scope="col", class_="left"),
    )
    rows = [_spender(shown.kind, each) for each in shown.spenders]
    table = tag("table", tag("thead", heads), tag("tbody", *rows), class_="who")
    pages: list[object] = []
    if shown.last > 1:
        given = {"kind": shown.kind, "period": shown.period, "find": shown.find}
        if shown.number > 1:
            pages.append(tag("a", "Previous", href=_address(HOME, **given, page=shown.number - 1), rel="prev"))
        pages.append(
            tag("span", f"Page {shown.number:,} of {shown.last:,}, {shown.total:,} {_many(shown.kind).lower()}")
        )
        if shown.number < shown.last:
            pages.append(tag("a", "Next", href=_address(HOME, **given, page=shown.number + 1), rel="next"))
    below = tag("nav", *pages, class_="pages", aria_label="Pages") if pages else None
    return tag("div", tag("div", table, class_="scroll"), below, id="spenders", data_live="")


def _spender(kind: str, spender: Spender) -> Markup:
    found = spender.snapshot
    revoked = tag("em", "revoked", class_="stop", title=found.revoked_reason) if found.revoked else None
    limits = _limits_of(found)
    left: list[object] = []
    if limits:
        tightest = max(limits, key=lambda each: each.spent + each.held)
        left = [tag("span", _left_words(found)), bar(tightest, _NEAR)]
    return tag(
        "tr",
        tag("td", _to(kind, spender.id), revoked),
        tag("td", _usd(spender.spent), class_="n"),
        tag("td", f"{spender.calls:,}", class_="n many"),
        tag("td", *left, class_="left") if left else tag("td", tag("small", "no limit"), class_="left"),
    )


def _left_words(found: ScopeSnapshot) -> str:
    """What is left, of the tightest window; of dollars where these are limited."""
    found = next(each for each in (found, *found.windows) if each.limits)
    name = "max_cost_usd" if "max_cost_usd" in found.limits else next(iter(found.limits))
    limit, left = found.limits[name], max(found.limits[name] * 0, found.remaining[name])
    unit = "" if name == "max_cost_usd" else f" {view.limit_words(name).lower()}"
    return f"{_amount(name, left)} of {_amount(name, limit)}{unit} {_window(found.window)}".strip()


# One principal, or run


class One(NamedTuple):
    """What the page of a principal or a run shows."""

    snapshot: ScopeSnapshot
    by: Sequence[tuple[str, Sequence[tuple[str, Decimal, int]]]]
    """What it spent in 30 days, by several criteria."""
    decisions: Sequence[Mapping[str, Any]]
    report: BudgetReport | None
    """Of a run."""
    done: str | None
    """What was done just now."""


def one(frame: Frame, shown: One) -> str:
    """What one has spent, what limits it, what was decided, and the means to cut it off."""
    found = shown.snapshot
    about = [tag("span", found.kind)]
    if found.plan:
        about.append(tag("span", f"plan {found.plan}"))
    if shown.report is not None:
        about += [_tagged(kind, name) for kind, name in shown.report.tags.items()]
    header = tag(
        "header",
        tag(
            "div",
            tag("p", tag("a", "Budgets", href=_address(HOME, kind=found.kind)), class_="crumb"),
            tag("div", tag("h1", found.id, title=found.id, id="content"), _state(found)),
            tag("p", *about),
        ),
        _leave(frame),
    )
    said = _DONE.get(shown.done or "")
    # of decisions there are many; what one can do comes before them
    body = _main(
        header,
        tag("p", said, class_="said", role="status") if said else None,
        sections(shown.report) if shown.report is not None else _principal(shown),
        _act(frame, found),
        _decisions(found, shown.decisions),
    )
    scripts = [_file("live.js")] if shown.report is None else [sorting()]
    return _page(frame, f"{found.kind} {found.id}", body, scripts=scripts)


def _tagged(kind: str, name: str) -> Markup:
    return tag("span", f"{kind} ", name if kind == "feature" else _to(kind, name))


def _state(found: ScopeSnapshot) -> Markup | None:
    limits = _limits_of(found, holding=True)
    if found.revoked:
        return tag("span", "revoked", class_="state stop")
    if any(each.is_reached for each in limits):
        return tag("span", "limit used up", class_="state stop")
    if any(each.spent >= _NEAR for each in limits):
        return tag("span", "near a limit", class_="state warn")
    return tag("span", "within budget", class_="state ok") if limits else None


def _principal(shown: One) -> Markup:
    found = shown.snapshot
    facts = [(f"Spent {_window(found.window)}".strip(), _usd(found.spent_usd)), ("Held", _usd(found.reserved_usd))]
    if found.remaining_usd is not None:
        facts.insert(1, ("Left", _usd(max(Decimal(0), found.remaining_usd))))
    facts += [("Model calls", f"{found.committed['max_requests']:,}"), ("Open holds", f"{found.open_holds:,}")]
    if found.live_runs is not None:
        facts.append(("Open runs", f"{found.live_runs:,}"))
    facts += [
        (f"Runs begun {_window(each.window)}".strip(), f"{each.runs:,}")
        for each in found.windows
        if each.runs is not None
    ]
    limits = _limits_of(found)
    empty = tag("section", tag("h2", "Limits"), tag("p", f"Nothing limits this {found.kind}.", class_="empty"))
    where = where_section("Where it went in 30 days", shown.by)
    nowhere = tag("section", tag("h2", "Where it went in 30 days"), tag("p", "Nothing was spent.", class_="empty"))
    return joined(
        _facts(*facts),
        tag("div", limits_section(limits, _NEAR) if limits else empty, id="limits", data_live=""),
        tag("div", where or nowhere, id="where", data_live=""),
    )


def _act(frame: Frame, found: ScopeSnapshot) -> Markup:
    """The form that cuts one off, or takes that back."""
    if found.revoked:
        words = tag(
            "p",
            *("Every call is refused since ", tag("b", f"{found.revoked_at:%Y-%m-%d %H:%M:%S} UTC"), ": "),
            found.revoked_reason,
        )
        return _acting(frame, found, "Restore", "do", words, is_required=False)
    words = tag("p", "Refuse every further call at once, in every process. Calls under way are booked as usual.")
    return _acting(frame, found, "Revoke", "do stop", words, is_required=True)


def _acting(frame: Frame, found: ScopeSnapshot, verb: str, kind: str, words: Markup, *, is_required: bool) -> Markup:
    told = "Reason, which is in every refusal" if is_required else "Reason, which is logged"
    field = tag(
        "input",
        type="text",
        name_="reason",
        id="reason",
        required="" if is_required else None,
        maxlength=1_000,
        autocomplete="off",
    )
    form = _form(
        frame,
        _address(f"/budget/{verb.lower()}", kind=found.kind, id=found.id),
        tag("label", told, for_="reason"),
        tag("div", tag("div", field, class_="reason"), tag("button", verb, type="submit", class_=kind), class_="row"),
    )
    return tag("section", tag("h2", verb), words, form, class_="act")


# Decisions


def refusals(frame: Frame, records: Sequence[Mapping[str, Any]], following: str | None) -> str:
    """What was refused, in parts."""
    header = tag(
        "header",
        tag(
            "div",
            tag("p", tag("a", "Budgets", href=HOME), class_="crumb"),
            tag("div", tag("h1", "Refusals", id="content")),
        ),
        _leave(frame),
    )
    older = tag("a", "Older", href=_address("/budget/refusals", before=following), rel="next") if following else None
    body = _main(
        header,
        _refusals("The latest first", records),
        tag("nav", older, class_="pages", aria_label="Pages") if older is not None else None,
    )
    return _page(frame, "Refusals", body)


def _refusals(
    title: str, records: Sequence[Mapping[str, Any]], *, more: str | None = None, id_: str | None = None
) -> Markup:
    heading = tag("h2", title, tag("small", tag("a", "all", href=more)) if more and records else None)
    live = "" if id_ else None
    if not records:
        return tag("section", heading, tag("p", "Nothing was refused.", class_="empty"), id=id_, data_live=live)
    rows = [
        tag(
            "tr",
            tag("td", _who_asked(record)),
            tag("td", _when(record), class_="when"),
            tag("td", _run(record)),
            tag("td", record["requested"], title=record["requested"], class_="n"),
            tag("td", record["reason"], class_="why"),
        )
        for record in records
    ]
    table = _table(("Who", "When", "Run", "Model", "Why"), rows)
    return tag("section", heading, table, id=id_, data_live=live)


def _decisions(found: ScopeSnapshot, records: Sequence[Mapping[str, Any]]) -> Markup:
    heading = tag("h2", "Latest decisions")
    if not records:
        none = tag("p", "No decision is kept.", class_="empty")
        return tag("section", heading, none, id="decisions", data_live="")
    rows = [
        tag(
            "tr",
            tag("td", tag("b", record["decision"], class_="stop" if record["decision"] == "block" else None)),
            tag("td", _when(record), class_="when"),
            tag("td", _who_asked(record) if found.kind == "run" else _run(record)),
            tag("td", record["selected"] or record["requested"], class_="n"),
            tag("td", _became(record), class_="why"),
        )
        for record in records
    ]
    heads = ("Decision", "When", "Who" if found.kind == "run" else "Run", "Model", "What became of it")
    return tag("section", heading, _table(heads, rows), id="decisions", data_live="")


def _became(record: Mapping[str, Any]) -> str:
    """What was booked for a call, or is held, and why it was decided so."""
    state = ""
    if record["cost_usd"] is not None:
        state = f"{_usd(Decimal(record['cost_usd']))}{' (an estimate)' if record['uncertain'] else ''}"
    elif record["state"] == "reserved":
        state = f"under way, holds {_usd(Decimal(record['estimate']['cost_usd']))}"
    elif record["state"] == "released":
        state = "given back"
    return ": ".join(filter(None, (state, record["reason"])))


def _table(heads: Sequence[str], rows: Sequence[Markup]) -> Markup:
    cells = [tag("th", head, scope="col", class_="n" if head == "Model" else None) for head in heads]
    made = tag("table", tag("thead", tag("tr", *cells)), tag("tbody", *rows), class_="what")
    return tag("div", made, class_="scroll")


def _who_asked(record: Mapping[str, Any]) -> Markup:
    principals: Mapping[str, str] = record["principals"]
    for kind in ("user", "key", "team"):
        if kind in principals:
            return _to(kind, principals[kind])
    return joined("")


def _run(record: Mapping[str, Any]) -> Markup:
    return joined("") if record["run_id"] is None else _to("run", record["run_id"])


def _when(record: Mapping[str, Any]) -> Markup:
    at = datetime.fromisoformat(record["time"])
    return tag("time", f"{at:%m-%d %H:%M:%S}", datetime=record["time"])


# Other pages


def log_in(frame: Frame, wrong: bool) -> str:
    """The form that asks for the token."""
    said = tag("p", "That is not the token.", class_="said stop", role="alert") if wrong else None
    field = tag(
        "input", type="password", name_="token", id="token", required="", autocomplete="current-password", autofocus=""
    )
    form = tag(
        "form",
        # a browser that remembers the token wants to know whose it is
        tag("input", type="text", name_="user", value="operator", autocomplete="username", hidden=""),
        tag("label", "The admin token", for_="token"),
        field,
        tag("button", "Log in", type="submit", class_="do"),
        method="post",
        action="/budget/login",
    )
    door = tag("div", tag("h1", "Budgets"), tag("section", said, form), class_="door")
    return _page(frame, "Log in", tag("main", door, class_="bg-report bg-page"))


def trouble(frame: Frame, title: str, words: str, *, refresh_s: int | None = None) -> str:
    """What went wrong."""
    back = tag("p", tag("a", "Budgets", href=HOME))
    door = tag("div", tag("h1", title), tag("section", tag("p", words), back), class_="door")
    return _page(frame, title, tag("main", door, class_="bg-report bg-page"), refresh_s=refresh_s)


# Words


def _limits_of(found: ScopeSnapshot, *, holding: bool = False) -> list[view.Limit]:
    """Every limit, and how much of it is used; those alone that refuse something, if they are to be *holding*."""
    limits: list[view.Limit] = []
    for window in found.windows:
        watching = window.mode == "advisory_estimate"
        if watching and holding:
            continue
        for name, limit in window.limits.items():
            use = LimitUse(
                scope="",
                name=name,
                limit=Decimal(limit),
                spent=Decimal(window.committed[name]),
                held=Decimal(window.reserved[name]),
                resets_at=window.resets_at,
            )
            words = filter(None, (_window(window.window), "refuses nothing" if watching else ""))
            limits.append(view.limit(use, ", ".join(words)))
    return limits


def _window(window: str) -> str:
    return _WINDOWS.get(window, f"this {window}")


def _amount(name: str, value: Decimal | int) -> str:
    return _usd(Decimal(value)) if name == "max_cost_usd" else f"{value:,}"


def _usd(amount: Decimal) -> str:
    return view.usd(amount)


def _many(kind: str) -> str:
    return _MANY.get(kind, f"{kind.capitalize()}s")
