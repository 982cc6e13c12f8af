"""The commands on a ledger's URL: who has spent what, ceilings, revocations, and the care of the ledger itself."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any, get_args
from urllib.parse import unquote, urlsplit

from budget_guard.cli.answer import BAD_NEWS, WRONG_USE, Answer, Failure, columns
from budget_guard.ledger.base import Ledger, Suspended
from budget_guard.ledger.reconcile import reconcile
from budget_guard.ledger.url import open_ledger, shown_url
from budget_guard.policy.budget import Mode
from budget_guard.reporting.spend import as_plain
from budget_guard.reporting.view import limit_words
from budget_guard.session.authority import BudgetAuthority
from budget_guard.session.budget import Budget
from budget_guard.session.ceiling import CEILED, ScopeSnapshot
from budget_guard.units.amounts import Amounts
from budget_guard.units.money import cost_nano, format_usd
from budget_guard.units.printable import printable
from budget_guard.units.scope import Window

_URL = "a ledger, such as sqlite:///budget.db or redis://host:6379/0"
_KIND = "run, user, key, team, agent, or a kind of your own"


def add_to(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands."""

    def of_one(name: str, run: Callable[[argparse.Namespace], Answer], words: str) -> argparse.ArgumentParser:
        added = command(name, run, words)
        added.add_argument("url", metavar="URL", help=_URL)
        added.add_argument("kind", metavar="KIND", help=_KIND)
        added.add_argument("id", metavar="ID")
        return added

    def of_kind(name: str, run: Callable[[argparse.Namespace], Answer], words: str) -> argparse.ArgumentParser:
        added = command(name, run, words)
        added.add_argument("url", metavar="URL", help=_URL)
        added.add_argument("kind", metavar="KIND", help=_KIND)
        return added

    top = of_kind("top", _top, "who has spent most")
    top.add_argument("-n", type=int, default=20, metavar="N", help="how many (20)")
    top.add_argument("--since", type=_day, metavar="DAY", help="from that day on (UTC), such as 2026-11-01")
    top.add_argument("--until", type=_day, metavar="DAY", help="before that day")
    listed = of_kind("list", _list, "all whom the ledger knows")
    listed.add_argument("--prefix", default="", help="only those that begin with it")
    of_one("show", _show, "what one run, user, key or team has spent, and what is left")
    ceiling = of_one("set-ceiling", _set_ceiling, "give one user, key, team or agent a ceiling of its own")
    ceiling.add_argument("--usd", metavar="DOLLARS", help="such as 20 or '$20.00'")
    for name, field in (("tokens", "tokens"), ("requests", "model calls"), ("tool-calls", "tool calls")):
        ceiling.add_argument(f"--{name}", type=int, metavar="N", help=f"the most {field}")
    ceiling.add_argument("--max-runs", type=int, metavar="N", help="the most distinct runs in a window")
    ceiling.add_argument("--advisory", action="store_true", help="refuse nothing, and mark what would be refused")
    ceiling.add_argument("--window", choices=get_args(Window), default="none", help="when it begins anew (none)")
    ceiling.add_argument("--none", action="store_true", help="take its own ceiling away: that of its kind holds again")
    revoke = of_one("revoke", _revoke, "refuse every further call of a run, user, key, team or agent")
    revoke.add_argument("--reason", required=True, help="why: it is in every refusal")
    of_one("restore", _restore, "take a revoke back")
    audit = command("audit", _audit, "recount every scope from the records of its holds")
    audit.add_argument("url", metavar="URL", help=_URL)
    settle = command("reconcile", _reconcile, "settle the holds of processes that died")
    settle.add_argument("url", metavar="URL", help=_URL)
    settle.add_argument("--dry-run", action="store_true", help="show them, and change nothing")
    settle.add_argument("--most", type=int, default=1_000, metavar="N", help="how many to look at (1000)")


@contextmanager
def opened(url: str) -> Generator[Ledger, None, None]:
    """The ledger at *url*, which must be there already.

    Raises:
        Failure: If it is not.
    """
    parts = urlsplit(url) if "://" in url else None
    if parts is not None and parts.scheme == "memory":
        raise Failure(
            "memory:// is the memory of this very process, and nothing is in it: give the URL of a file or server"
        )
    if parts is not None and parts.scheme == "sqlite":
        path = Path(unquote(parts.path[1:]))
        if not path.is_file():
            raise Failure(f"{shown_url(url)} is not there: no such file as {path}")
    ledger = open_ledger(url)
    try:
        yield ledger
    finally:
        ledger.close()


def authority_of(ledger: Ledger, kind: str) -> BudgetAuthority:
    """An authority that knows *kind*, be it one of a user's own."""
    further = () if kind in (*CEILED, "run") else (kind,)
    return BudgetAuthority(ledger=ledger, kinds=further)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no day: write 2026-11-01") from None


def _top(given: argparse.Namespace) -> Answer:
    with opened(given.url) as ledger:
        found = authority_of(ledger, given.kind).top(given.kind, given.n, since=given.since, until=given.until)
    data = [
        {
            "id": row.id,
            "spent_usd": f"{row.spent_usd:f}",
            "uncertain_usd": f"{row.uncertain_usd:f}",
            "calls": row.calls,
            "tool_calls": row.tool_calls,
            "input_tokens": row.input_tokens,
            "output_tokens": row.output_tokens,
        }
        for row in found
    ]
    rows = [
        [
            *(row.id or "", format_usd(cost_nano(row.spent_usd)), f"{row.calls:,}", f"{row.tool_calls:,}"),
            *(f"{row.input_tokens:,}", f"{row.output_tokens:,}"),
        ]
        for row in found
    ]
    heads = [given.kind.capitalize(), "Dollars", "Calls", "Tool calls", "Input", "Output"]
    text = columns(heads, rows, shutil.get_terminal_size().columns) if rows else "nobody has spent anything"
    return Answer(data, text)


def _list(given: argparse.Namespace) -> Answer:
    with opened(given.url) as ledger:
        found = list(authority_of(ledger, given.kind).list(given.kind, prefix=given.prefix))
    return Answer(found, "\n".join(map(printable, found)))


def _show(given: argparse.Namespace) -> Answer:
    with opened(given.url) as ledger:
        found = authority_of(ledger, given.kind).snapshot(given.kind, given.id)
    return Answer(plain(found), _told(found), BAD_NEWS if found.revoked else 0)


def plain(found: ScopeSnapshot) -> dict[str, Any]:
    """A snapshot in JSON's own types."""
    values = asdict(found)
    values.pop("windows")
    for name in ("window_start", "revoked_at", "resets_at"):
        values[name] = None if values[name] is None else values[name].isoformat()
    return dict(as_plain(values))


def _told(found: ScopeSnapshot) -> str:
    def amount(name: str, value: object) -> str:
        return format_usd(cost_nano(value)) if name == "max_cost_usd" else f"{value:,}"  # type: ignore[arg-type]  # a Decimal there

    lines = [f"{found.kind}:{printable(found.id)}"]
    if found.revoked:
        lines.append(f"revoked at {found.revoked_at:%Y-%m-%d %H:%M:%S} UTC: {printable(found.revoked_reason)}")
    if found.plan:
        lines.append(f"plan: {printable(found.plan)}")
    rows: list[list[str]] = []
    for name, spent in found.committed.items():
        limit, held = found.limits.get(name), found.reserved.get(name, 0)
        if spent or held or limit is not None:
            left = "" if limit is None else amount(name, found.remaining[name])
            shown = "" if limit is None else amount(name, limit)
            rows.append([limit_words(name), amount(name, spent), amount(name, held), shown, left])
    if rows:
        width = shutil.get_terminal_size().columns
        lines.append(columns(["", "Spent", "Held", "Limit", "Left"], rows, width))
    else:
        lines.append("nothing is spent, and nothing is limited")
    if found.resets_at is not None:
        lines.append(f"of this {found.window}, until {found.resets_at:%Y-%m-%d %H:%M} UTC")
    if found.mode is not None:
        lines.append("this ceiling refuses nothing, and marks what it would refuse")
    if found.runs is not None:
        lines.append(f"{found.runs:,} distinct runs begun")
    if found.open_holds:
        lines.append(f"{found.open_holds:,} open holds")
    return "\n".join(lines)


def _set_ceiling(given: argparse.Namespace) -> Answer:
    limits = {
        "max_cost_usd": given.usd,
        "max_total_tokens": given.tokens,
        "max_requests": given.requests,
        "max_tool_calls": given.tool_calls,
        "max_runs": given.max_runs,
    }
    if given.none == any(value is not None for value in limits.values()):
        raise Failure("give a limit, such as --usd 20 --window day, or --none to take its own ceiling away", WRONG_USE)
    if given.kind == "run":
        raise Failure(
            "a run has the budget that it was started with: raise that with session.raise_limits()", WRONG_USE
        )
    mode: Mode = "advisory_estimate" if given.advisory else "hard_gate"
    budget = None if given.none else Budget(**limits, window=given.window, mode=mode)
    with opened(given.url) as ledger:
        authority = authority_of(ledger, given.kind)
        authority.set_ceiling(given.kind, given.id, budget)
        found = authority.snapshot(given.kind, given.id)
    return Answer(plain(found), _told(found))


def _revoke(given: argparse.Namespace) -> Answer:
    with opened(given.url) as ledger:
        authority = authority_of(ledger, given.kind)
        authority.revoke(given.kind, given.id, reason=given.reason)
        found = authority.snapshot(given.kind, given.id)
    text = f"{given.kind}:{printable(given.id)} is revoked: {printable(found.revoked_reason)}"
    other = found.revoked_reason != given.reason
    notes = ("it was revoked before, and the first reason stands",) if other else ()
    return Answer(plain(found), text, notes=notes)


def _restore(given: argparse.Namespace) -> Answer:
    with opened(given.url) as ledger:
        was = authority_of(ledger, given.kind).restore(given.kind, given.id)
    name = f"{given.kind}:{printable(given.id)}"
    text = f"{name} may call again" if was else f"{name} was not revoked"
    return Answer({"kind": given.kind, "id": given.id, "restored": was}, text, 0 if was else BAD_NEWS)


def _audit(given: argparse.Namespace) -> Answer:
    with opened(given.url) as ledger:
        found = [str(each) for each in ledger.audit()]
    text = "\n".join(map(printable, found)) or "every counter is what its holds add up to"
    return Answer({"differences": found}, text, BAD_NEWS if found else 0)


def _reconcile(given: argparse.Namespace) -> Answer:
    if given.most < 1:
        raise Failure(f"--most {given.most} looks at none: give a number from 1 on", WRONG_USE)
    with opened(given.url) as ledger:
        if given.dry_run:
            ledger.sweep(given.most)
            held: list[tuple[Suspended, Amounts | None]] = [(hold, None) for hold in ledger.suspended(given.most)]
        else:
            held = [(each.hold, each.charged) for each in reconcile(ledger, most=given.most)]
    rows = [
        [hold.hold_id, f"{hold.since:%Y-%m-%d %H:%M}", ", ".join(map(str, hold.scopes)), format_usd(hold.amounts.cost)]
        for hold, _ in held
    ]
    data = [
        {
            "hold_id": hold.hold_id,
            "since": hold.since.isoformat(),
            "scopes": [str(scope) for scope in hold.scopes],
            "held_usd": format_usd(hold.amounts.cost).removeprefix("$"),
            "booked": charged is not None,
        }
        for hold, charged in held
    ]
    if not held:
        return Answer(data, "no hold waits to be settled")
    width = shutil.get_terminal_size().columns
    table = columns(["Hold", "Since", "Scopes", "Held"], rows, width, names=3)
    booked = sum(charged is not None for _, charged in held)
    last = f"{len(held):,} wait to be settled" if given.dry_run else f"{booked:,} of {len(held):,} were booked as held"
    return Answer(data, f"{table}\n{last}", BAD_NEWS if given.dry_run else 0)
