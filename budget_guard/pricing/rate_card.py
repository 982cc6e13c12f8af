"""Rate cards: the known prices of one model, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from fractions import Fraction
from typing import NamedTuple, TypeAlias

from budget_guard.units.usage import Usage

BUCKETS = Usage._fields[:-1]
"""The buckets of `Usage` that are counts, in its order."""

UNIT_NAMES = {
    "collections_search": "file_search",
    "google_search": "web_search",
    "hosted_shell": "code_interpreter",
    "storage_searches": "file_search",
    "web_search_requests": "web_search",
}
"""Other names of billed units -> the name that rate cards have them under."""

RateCard: TypeAlias = "Mapping[str, Sequence[tuple[int, Fraction]]]"
"""Unit -> its steps (above, nano-dollars per unit), lowest first.

A step holds for the *whole* call once the call has more than `above` input tokens."""

ALWAYS = -1
"""The `above` of a step that needs no input."""

FALLBACKS = {"cache_audio": "input_audio", "cache_read": "input", "reasoning": "output"}
"""Unit -> the unit whose price it has where it has none of its own, because that is never lower.

There are no others: cache writes, sound, pictures and fees have a price of their own or none."""


def is_per_token(unit: str) -> bool:
    """Whether *unit* counts tokens: what a region makes dearer, and what may be priced per million."""
    return unit.endswith("_tokens") or (unit in BUCKETS and unit not in ("web_search", "requests"))


def rate_at(card: RateCard, unit: str, size: int) -> Fraction | None:
    """The price of *unit* in the tier of calls with more than *size* input tokens; None if it has none."""
    steps = card.get(unit) or card.get(FALLBACKS.get(unit, ""))
    return None if steps is None else max(step for step in steps if step[0] <= size)[1]


def raised(card: RateCard, factor: Fraction) -> RateCard:
    """*card* with every price of a token times *factor*."""
    return {
        unit: [(above, nano * factor) for above, nano in steps] if is_per_token(unit) else steps
        for unit, steps in card.items()
    }


def dearest(cards: Sequence[RateCard]) -> RateCard:
    """A card that is never below any of *cards*: the highest price of each unit at each size of a call."""
    units = {unit: None for card in cards for unit in card}  # in their order
    starts = sorted({ALWAYS} | {above for card in cards for steps in card.values() for above, _ in steps})
    return {
        unit: [
            (above, max(rate for card in cards if (rate := rate_at(card, unit, above)) is not None)) for above in starts
        ]
        for unit in units
    }


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
    per_prompt: frozenset[str] = frozenset()
    """Units that are billed once for each request, however often they are used."""
    own_tools: tuple[str, ...] = ()
    """Billed units that the model uses unasked, any number of times, as deep research searches."""


def dearest_of(models: Sequence[PricedModel]) -> PricedModel:
    """What is never below any of *models*, of which any may answer: by its prices, and by how much it may write."""
    first = models[0]
    if len(models) == 1:
        return first
    able, per_prompt = first.capabilities, first.per_prompt
    for each in models[1:]:
        able = None if able is None or each.capabilities is None else able & each.capabilities
        per_prompt &= each.per_prompt
    return PricedModel(
        model=first.model,
        provider=None,
        card=dearest([card for each in models for card in (each.card, *(window.card for window in each.windows))]),
        next_day=[card for each in models for card in each.next_day],
        max_output=_most([each.max_output for each in models]),
        context_window=_most([each.context_window for each in models]),
        capabilities=able,
        per_prompt=per_prompt,
        own_tools=tuple(dict.fromkeys(tool for each in models for tool in each.own_tools)),
    )


def _most(limits: Sequence[int | None]) -> int | None:
    """The highest of *limits*; None if any is not known."""
    known = [limit for limit in limits if limit is not None]
    return max(known) if len(known) == len(limits) else None
