"""Scopes: the holders of counters and ceilings, and the windows in which they count."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Literal, NamedTuple, TypeAlias

AGENT_IN_RUN = "agent_in_run"
"""The kind of scope that holds the cap of one agent by its name, within one run."""


class Scope(NamedTuple):
    """One holder of a ceiling: a run, a user, a key, a team."""

    kind: str
    """``run``, ``user``, ``key`` or ``team``; a `BudgetAuthority` has kinds of its own for what it keeps track of."""
    id: str
    """Any text; unique within its kind."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}"

    def in_window(self, window: Window) -> Scope:
        """The scope that counts for the same principal in a further window."""
        return Scope(f"{self.kind}@{window}", self.id)

    @property
    def principal(self) -> str:
        """``kind:id`` of whose ceiling it is, in whatever window it counts."""
        return f"{self.kind.partition('@')[0]}:{self.id}"


Window: TypeAlias = Literal["none", "minute", "hour", "day", "week", "month"]
"""Calendar windows in UTC; weeks begin on Monday. ``none`` never begins anew."""
LONGEST_FIRST: tuple[Window, ...] = ("none", "month", "week", "day", "hour", "minute")
"""The windows by their lengths."""


def window_start(window: Window, at: datetime) -> datetime | None:
    """The beginning of the window that *at* is in (UTC); None for ``none``."""
    if window == "none":
        return None
    minute = at.astimezone(timezone.utc).replace(second=0, microsecond=0)
    if window == "minute":
        return minute
    hour = minute.replace(minute=0)
    if window == "hour":
        return hour
    day = hour.replace(hour=0)
    if window == "day":
        return day
    if window == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1)


def window_end(window: Window, start: datetime) -> datetime:
    """The end of the window that began at *start*.

    Raises:
        ValueError: For ``none``, which never does.
    """
    if window == "none":
        raise ValueError("the window 'none' has no end")
    if window == "month":
        return (start + timedelta(days=31)).replace(day=1)
    lengths = {
        "minute": timedelta(minutes=1),
        "hour": timedelta(hours=1),
        "day": timedelta(days=1),
        "week": timedelta(weeks=1),
    }
    return start + lengths[window]
