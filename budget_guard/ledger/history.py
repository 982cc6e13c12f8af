"""The usage history of a ledger: what was spent in each scope, by hour and by what it was for.

Beside the counters of a scope, and in the same atomic step, a ledger keeps rows: one for each hour and each set of
`Labels`. A verb that books money says in `UsageLine`s what it was for. The rules:

1. What the history of a scope has for its present window is what is committed there, in every dimension. So a line
   that is left out, or lines that say less than is booked, leave a row without labels.
2. A booking belongs to the hour in which its id was made, but never to an hour of another window than the one in which
   it is counted. What replaces an estimate replaces it in the history as well.
3. Rows are few. After `Kept.hours` those of a day become one for each set of labels, after `Kept.days` all of them
   become one row without labels at `BEFORE`. In one scope and one hour there are no more than `MOST_LABELS` sets;
   what is booked with others is under `OTHERS`.

Hours are whole numbers: hours since 1970 began, in UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias, cast, get_args

from budget_guard.units.amounts import NOTHING, Amounts, Sums
from budget_guard.units.scope import AGENT_IN_RUN

MS_PER_HOUR = 3_600_000
DAY = 24
BEFORE = 0
"""The hour of the row that has all that is older than what is kept."""
MOST_LABELS = 200
"""Sets of labels in one scope and one hour, or day."""
MOST_ROWS = 20_000
"""Rows of one scope, about: beyond that all that is booked is under `OTHERS`."""
_LONGEST_LABEL = 200
_WITHOUT = frozenset((AGENT_IN_RUN, "live", "ceiling", "plan", "runs", "ran"))


class Labels(NamedTuple):
    """What money was spent for. Empty where it does not apply, or nobody said."""

    feature: str = ""
    agent: str = ""
    task: str = ""
    model: str = ""
    tool: str = ""


NO_LABELS = Labels()
OTHERS = Labels(*["(others)"] * len(Labels._fields))
"""Where what is booked is counted that has too many different labels."""


class UsageLine(NamedTuple):
    """One line of a booking: how much of it was spent for what."""

    labels: Labels
    amounts: Amounts
    uncertain: int = 0
    """The nano-dollars of it that are an estimate."""
    cached: int = 0
    """Input tokens read from the provider's cache."""
    cache_written: int = 0
    """Input tokens written to it."""
    reasoning: int = 0
    """Output tokens that were reasoning."""


class CheckedLines(tuple[UsageLine, ...]):
    """Lines with whole numbers, and with labels that went through `clean`. No ledger looks again.

    `ledger.checks` makes them, and code that has just looked by itself.
    """

    __slots__ = ()


NO_LINES = CheckedLines()


Quantities: TypeAlias = tuple[int, int, int, int, int, int, int, int, int, int]
"""What a row counts: `Amounts`, then the last four fields of a `UsageLine`."""
ZERO: Quantities = (0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
QUANTITIES = (*Amounts._fields, *UsageLine._fields[2:])
"""The names of `Quantities`."""


class Kept(NamedTuple):
    """For how long a ledger keeps the rows of its history."""

    hours: int = 7 * DAY
    """Hours after which the rows of a day become one."""
    days: int = 400
    """Days after which these become one for all that was before."""
    run_days: int = 30
    """The same for runs."""

    def check(self) -> Kept:
        """The same.

        Raises:
            ValueError: If a number makes no sense.
        """
        for name, value, least in (("hours", self.hours, DAY), ("days", self.days, 32), ("run_days", self.run_days, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 10**6:
                raise ValueError(f"Kept({name}={value!r}) must be a whole number from {least} on")
        if self.hours > DAY * min(self.days, self.run_days):
            raise ValueError(f"Kept(hours={self.hours}) must be no more than its days, and its run_days")
        return self

    def borders(self, now: int, kind: str) -> tuple[int, int]:
        """The hours before which the rows of a kind of scope become those of days, and one for all before."""
        return (now - self.hours) // DAY * DAY, (now // DAY - self.days_of(kind)) * DAY

    def days_of(self, kind: str) -> int:
        """The days that rows of a kind of scope are kept."""
        return self.run_days if kind == "run" else self.days


KEPT = Kept()
"""What a ledger that lasts keeps, if nothing else is said."""


By: TypeAlias = Literal["id", "hour", "day", "feature", "agent", "task", "model", "tool"]
"""What a ledger can sum up by."""
BY: tuple[By, ...] = get_args(By)
LABELS: tuple[By, ...] = BY[BY.index("feature") :]


class UsageQuery(NamedTuple):
    """A question to the history of a ledger."""

    kind: str
    """Of scopes of this kind,"""
    id: str | None
    """all or this one,"""
    since: int
    """the rows of this hour and later,"""
    until: int | None
    """before this hour, if there is one,"""
    by: tuple[By, ...]
    """one sum for each combination of these."""


class UsageSum(NamedTuple):
    """A part of the answer to a `UsageQuery`."""

    names: tuple[str | int, ...]
    """What it is the sum of, in the order of `UsageQuery.by`: texts, and the hour, also that at which a day begins."""
    quantities: Quantities


def keeps_history(kind: str) -> bool:
    """Whether scopes of a kind have a history: not what is counted besides, such as a user in a second window."""
    return kind not in _WITHOUT and "@" not in kind


def labels(*, feature: str | None, agent: str | None, task: str | None, model: str = "", tool: str = "") -> Labels:
    """Labels of texts that may be anything."""
    return clean(Labels(feature or "", agent or "", task or "", model, tool))


@lru_cache(maxsize=4_096)
def clean(labels: Labels) -> Labels:
    """*labels* as every ledger can keep them: no longer than others are, and text that can be written as UTF-8."""
    return Labels._make(
        text[:_LONGEST_LABEL].encode("utf-8", "replace").decode().replace("\0", "?") for text in map(str, labels)
    )


def completed(amounts: Sums, uncertain: bool, lines: Sequence[UsageLine]) -> Sequence[UsageLine]:
    """The lines of a booking: *lines*, and one without labels for what they leave out of *amounts*.

    Args:
        amounts: What is booked.
        uncertain: Whether all of it is an estimate.
        lines: What the caller says of it.
    """
    rest = Amounts._make(amounts)
    for line in lines:
        rest = rest.minus(line.amounts)
    told = [line._replace(uncertain=line.amounts.cost) for line in lines] if uncertain else list(lines)
    if rest != NOTHING:
        told.append(UsageLine(NO_LABELS, rest, rest.cost if uncertain else 0))
    return told


def quantities(line: UsageLine) -> Quantities:
    """What a line adds to a row."""
    _, (cost, read, written, total, requests, tool_calls), uncertain, cached, cache_written, reasoning = line
    return cost, read, written, total, requests, tool_calls, uncertain, cached, cache_written, reasoning


def line_of(labels: Labels, row: Sequence[int]) -> UsageLine:
    """The line of *labels* that adds *row*."""
    return UsageLine(labels, Amounts._make(row[: len(NOTHING)]), *row[len(NOTHING) :])


def as_row(numbers: Iterable[int]) -> Quantities:
    """The row of ten *numbers*."""
    return cast("Quantities", tuple(numbers))


def plus(row: Sequence[int], more: Sequence[int], sign: int = 1) -> Quantities:
    """The sum, quantity by quantity."""
    return as_row([a + sign * b for a, b in zip(row, more, strict=True)])


def difference(lines: Sequence[UsageLine], before: Sequence[UsageLine]) -> list[UsageLine]:
    """The lines that make *lines* of *before*."""
    sums: dict[Labels, Quantities] = {}
    for each, sign in ((lines, 1), (before, -1)):
        for line in each:
            sums[line.labels] = plus(sums.get(line.labels, ZERO), quantities(line), sign)
    return [line_of(labels, row) for labels, row in sums.items() if any(row)]


class RolledUp(NamedTuple):
    """What becomes of the rows of a scope."""

    gone: Sequence[tuple[int, Labels]]
    """The rows that are no more,"""
    rows: Mapping[tuple[int, Labels], Quantities]
    """and those that they are a part of now, each with what it has then."""


def rolled_up(rows: Mapping[tuple[int, Labels], Quantities], now: int, kept: Kept, kind: str) -> RolledUp:
    """Sum up the rows of one scope that are old enough. Done with the first booking of each day.

    Args:
        rows: All rows of the scope.
        now: The present hour.
        kept: For how long they are kept.
        kind: The kind of the scope.
    """
    from_hours, from_days = kept.borders(now, kind)
    gone: list[tuple[int, Labels]] = []
    sums: dict[tuple[int, Labels], Quantities] = {}
    many: dict[int, int] = {}
    for key in sorted(rows):
        hour, its = key
        if hour >= from_hours:
            break
        into = key
        if hour < from_days:
            into = (BEFORE, its if hour == BEFORE else NO_LABELS)
        else:
            day = hour // DAY * DAY
            into = (day, its)
            if into not in sums:
                many[day] = many.get(day, 0) + 1
                if many[day] > MOST_LABELS:
                    into = (day, OTHERS)
        if into != key:
            gone.append(key)
        sums[into] = plus(sums.get(into, ZERO), rows[key])
    return RolledUp(gone, {key: row for key, row in sums.items() if rows.get(key) != row})


def summed(
    sums: dict[tuple[str | int, ...], Quantities],
    by: Sequence[By],
    id: str,
    rows: Iterable[tuple[int, Labels, Sequence[int]]],
) -> None:
    """Add the rows of the scope *id* to the *sums* of a query."""
    for hour, its, row in rows:
        names = tuple([_name(by_name, id, hour, its) for by_name in by])
        before = sums.get(names)
        sums[names] = plus(before or ZERO, row)


def _name(by: By, id: str, hour: int, its: Labels) -> str | int:
    if by == "id":
        return id
    if by == "hour":
        return hour
    if by == "day":
        return hour // DAY * DAY
    name: str = getattr(its, by)
    return name


def present(sums: Mapping[tuple[str | int, ...], Quantities]) -> list[UsageSum]:
    """The *sums* of a query that are not nothing: where an estimate was replaced, nothing may be left."""
    return [UsageSum(names, row) for names, row in sums.items() if any(row)]


def total(rows: Iterable[Sequence[int]]) -> Amounts:
    """All that is booked in *rows*."""
    return Amounts._make(map(sum, zip(NOTHING, *(row[: len(NOTHING)] for row in rows), strict=True)))


class ScopeHistory:
    """The rows of one scope, in memory."""

    __slots__ = ("kind", "latest", "many", "rows")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.rows: dict[int, int] = {}
        """Rows, each in one whole number, by the hour and the number of the labels, in another one."""
        self.latest = -1
        """The latest hour that has a row."""
        self.many = 0
        """How many rows it has."""
