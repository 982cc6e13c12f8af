"""Rate cards: the known prices of one model, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from fractions import Fraction
from typing import NamedTuple, TypeAlias

from budget_guard.units.usage import Usage

BUCKETS = Usage._fields[:-1]
"""The buckets of `Usage` that are counts, in its order."""

RateCard: TypeAlias = "Mapping[str, Sequence[tuple[int, Fraction]]]"
"""Unit -> its steps (above, nano-dollars per unit), lowest first.

A step holds for the *whole* call once the call has more than `above` input tokens."""

ALWAYS = -1
"""The `above` of a step that needs no input."""


def to_utc(at: datetime) -> datetime:
    """*at* in UTC.

    Raises:
        ValueError: If it has no time zone: a price by the hour cannot guess one.
    """
    if at.tzinfo is None:
        raise ValueError(f"at={at!r} has no time zone: use datetime.now(timezone.utc)")
    return at.astimezone(timezone.utc)


class PriceHours(NamedTuple):
    """A part of the UTC week with its own prices, such as peak hours."""

    start: int
    """Second of the day at which it opens."""
    end: int
    """Second of the day at which it closes; before `start` where it spans midnight."""
    days: frozenset[int]
    """Days of the week, 0 for Monday."""
    card: RateCard

    def is_open(self, at: datetime) -> bool:
        utc = to_utc(at)
        second = utc.hour * 3600 + utc.minute * 60 + utc.second
        if self.start <= self.end:
            return utc.weekday() in self.days and self.start <= second < self.end
        opened = utc.weekday() if second >= self.start else (utc.weekday() - 1) % 7
        return opened in self.days and not self.end <= second < self.start


class PricedModel(NamedTuple):
    """All that is known of one model's price."""

    model: str
    """The model as it was asked for."""
    provider: str | None
    """The provider whose prices they are; None for prices that only the user knows."""
    card: RateCard
    """The prices outside every window."""
    windows: Sequence[PriceHours] = ()
    """Parts of the week with prices of their own; the first that is open counts."""
    next_day: Sequence[RateCard] = ()
    """Prices that may be in force before the call ends. They count in `ModelPrice.worst` only."""
    max_output: int | None = None
    context_window: int | None = None
    capabilities: frozenset[str] | None = None
    assumed_alias: bool = False
