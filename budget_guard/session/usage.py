"""Usage of an authority: its ledger's history as operators ask for it, in dollars and calendar time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Literal, TypeAlias, get_args

from budget_guard.ledger.base import Balance
from budget_guard.ledger.flow import Flow
from budget_guard.ledger.history import BEFORE, Labels, Quantities, UsageQuery, UsageSum, line_of, plus
from budget_guard.ledger.history import BY as LEDGER_BY
from budget_guard.ledger.history import By as LedgerBy
from budget_guard.session.ceiling import ScopeSnapshot, snapshot_of
from budget_guard.units.amounts import NOTHING
from budget_guard.units.money import to_usd
from budget_guard.units.scope import window_start

By: TypeAlias = Literal["id", "hour", "day", "month", "feature", "agent", "task", "model", "tool"]
"""What usage can be summed up by."""
BY: tuple[By, ...] = get_args(By)
When: TypeAlias = datetime | date
"""A moment with a time zone, or a day in UTC."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """What was spent, for one combination of the names that were asked for; the others are None, and so is what nobody
    said: the tool of model calls, for example."""

    id: str | None = None
    """The user, key or whatever kind was asked for."""
    hour: datetime | None = None
    """When the hour began (UTC); of old rows, when their day did. None for what is older than what is kept."""
    day: date | None = None
    """The day in UTC; None for what is older than what is kept."""
    month: date | None = None
    """The first day of the month."""
    feature: str | None = None
    agent: str | None = None
    task: str | None = None
    model: str | None = None
    tool: str | None = None
    cost_usd: Decimal
    """Dollars."""
    uncertain_usd: Decimal
    """The part of them that is an estimate."""
    calls: int
    """Model calls."""
    tool_calls: int
    input_tokens: int
    """Cached ones included."""
    output_tokens: int
    """Reasoning included."""
    cached_tokens: int
    """Input read from the provider's cache."""
    cache_written_tokens: int
    """Input written to it."""
    reasoning_tokens: int

    @property
    def spent_usd(self) -> Decimal:
        """As `cost_usd`."""
        return self.cost_usd

    @property
    def total_tokens(self) -> int:
        """Input and output."""
        return self.input_tokens + self.output_tokens


def usage_of(
    kind: str, id: str | None, since: When | None, until: When | None, by: Sequence[str]
) -> Flow[list[UsageRow]]:
    """The usage of a kind of principals, or of one of them, by what is asked for.

    Raises:
        ValueError: If *by* has what is not known, or a time has no time zone, or is before the other one.
    """
    if isinstance(by, str):
        raise ValueError(f"by={by!r} is a text: give a tuple, such as by=({by!r},)")
    for name in by:
        if name not in BY:
            raise ValueError(f"by={tuple(by)!r}: {name!r} is not known: use some of {', '.join(map(repr, BY))}")
    first, end = 0 if since is None else _hour("since", since), None if until is None else _hour("until", until, 1)
    if end is not None and end < first:
        raise ValueError(f"until={until!r} is before since={since!r}: give the earlier one as since=")
    time: tuple[LedgerBy, ...] = ("hour",) if "hour" in by else ("day",) if {"day", "month"} & set(by) else ()
    labels: list[LedgerBy] = [name for name in LEDGER_BY if name in by and name not in ("hour", "day")]
    answer: Sequence[UsageSum] = yield "usage", (UsageQuery(kind, id, first, end, (*time, *labels)),)
    sums: dict[tuple[object, ...], Quantities] = {}
    for names, row in answer:
        given: dict[str, object] = {name: value or None for name, value in zip((*time, *labels), names, strict=True)}
        if time:
            at = given[time[0]]
            given.update(_calendar(at if isinstance(at, int) else BEFORE))
        key = tuple(given[name] for name in by)
        before = sums.get(key)
        sums[key] = row if before is None else plus(before, row)
    rows = [_row(dict(zip(by, key, strict=True)), row) for key, row in sums.items()]
    return sorted(rows, key=lambda row: [_sortable(getattr(row, name)) for name in by])


def top_of(kind: str, n: int, since: When | None, until: When | None) -> Flow[list[UsageRow]]:
    """The *n* principals of a kind that have spent most, the dearest first.

    Raises:
        ValueError: As `usage_of`, and if *n* is no number of rows.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"n={n!r} must be a whole number from 1 on")
    rows = yield from usage_of(kind, None, since, until, ("id",))
    return sorted(rows, key=lambda row: (-row.cost_usd, row.id or ""))[:n]


def past_snapshot(balances: Sequence[Balance], back: int, now: datetime, plan: str | None) -> Flow[ScopeSnapshot]:
    """The counters of one principal as they were at the end of an earlier window.

    Args:
        balances: Those of each of its windows, its own scope first.
        back: How many windows ago.
        now: The time, for one that was never opened.
        plan: Its plan.

    Raises:
        ValueError: If it has no window that the history can tell of.
    """
    own = balances[0].scope
    windowed = [each for each in balances if each.window not in ("none", "minute")]
    if not windowed:
        raise ValueError(
            f"window={-back}: {own} has no window that begins anew by the hour, day, week or month, so there is no "
            "earlier one"
        )
    earlier: list[Balance] = []
    for each in windowed:
        start = end = each.since or window_start(each.window, now) or now
        for _ in range(back):
            end = start
            start = window_start(each.window, end - _HOUR) or end
        query = UsageQuery(own.kind, own.id, (start - _EPOCH) // _HOUR, (end - _EPOCH) // _HOUR, ())
        sums: Sequence[UsageSum] = yield "usage", (query,)
        spent = line_of(Labels(), sums[0].quantities).amounts if sums else NOTHING
        earlier.append(each._replace(committed=spent, reserved=NOTHING, open_holds=0, revoked=None, since=start))
    return snapshot_of(earlier, None, plan)


def window_back(window: int) -> int:
    """How many windows ago *window* is: 0, -1 for the last one, and so on.

    Raises:
        ValueError: If it is none of these.
    """
    if isinstance(window, bool) or not isinstance(window, int) or not -10_000 <= window <= 0:
        raise ValueError(f"window={window!r} must be 0 for the present window, -1 for the last one, and so on")
    return -window


def _hour(field: str, when: When, up: int = 0) -> int:
    """The hour that *when* is in; the next one where that has begun, if *up* is 1."""
    given: object = when
    if isinstance(given, datetime):
        if given.tzinfo is None:
            raise ValueError(f"{field}={given!r} has no time zone: use datetime(..., tzinfo=timezone.utc)")
        moment = given.astimezone(timezone.utc)
    elif isinstance(given, date):
        moment = datetime(given.year, given.month, given.day, tzinfo=timezone.utc)
    else:
        raise ValueError(f"{field}={given!r} is no time: use a date, or a datetime with a time zone")
    hours, rest = divmod(moment - _EPOCH, _HOUR)
    return max(0, hours + (up if rest else 0))


def _calendar(hour: int) -> Mapping[str, object]:
    if hour == BEFORE:
        return {"hour": None, "day": None, "month": None}
    at = _EPOCH + hour * _HOUR
    return {"hour": at, "day": at.date(), "month": at.date().replace(day=1)}


def _row(names: Mapping[str, object], row: Quantities) -> UsageRow:
    cost, read, written, _, requests, tools, uncertain, cached, cache_written, reasoning = row
    given: dict[str, object] = dict(names)
    return UsageRow(
        **given,  # type: ignore[arg-type]  # each is of the type of its field
        cost_usd=to_usd(cost),
        uncertain_usd=to_usd(uncertain),
        calls=requests,
        tool_calls=tools,
        input_tokens=read,
        output_tokens=written,
        cached_tokens=cached,
        cache_written_tokens=cache_written,
        reasoning_tokens=reasoning,
    )


def _sortable(name: object) -> tuple[bool, str]:
    """None first, then texts and times in their order."""
    return name is not None, name.isoformat() if isinstance(name, date) else str(name or "")
