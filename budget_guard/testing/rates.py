"""The rates of the local provider: list prices in exact fractions.

This module knows nothing of `budget_guard.pricing`, on purpose: it is the other side of the comparison, and a
bug that both sides share would stay hidden.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import TypeAlias

from budget_guard.units.usage import Usage

Price: TypeAlias = "str | int | float | Decimal"
"""Dollars, for example "2.50". A float is read by its shortest decimal form."""

_NANO_PER_TOKEN = 1_000
"""Nano-dollars a token of one dollar per million tokens."""
_NANO_PER_SEARCH = 1_000_000
"""Nano-dollars a search of one dollar per thousand searches."""


def _no_tiers() -> Mapping[str, Rates]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Prices of one model, in dollars per *million* tokens: ``Rates(input="2.50", output="10")``."""

    input: Price
    output: Price
    cache_read: Price | None = None
    """Input tokens read from the cache; None for the price of input."""
    cache_write: Price | None = None
    """Input tokens written to the cache; None for the price of input."""
    cache_write_1h: Price | None = None
    """Input tokens written to a one-hour cache; None if unknown, and then a call that does has no known cost."""
    reasoning: Price | None = None
    """Reasoning tokens; None for the price of output."""
    web_search: Price | None = None
    """Dollars per *thousand* searches; None if unknown, and then a call that searches has no known cost."""
    max_input: int | None = None
    """The most input tokens of a call that costs this; a longer one has no known cost. None for any."""
    tiers: Mapping[str, Rates] = field(default_factory=_no_tiers)
    """Prices of other service tiers, for example ``{"flex": Rates(...)}``; any other tier is unpriced."""

    def __post_init__(self) -> None:
        for name in ("input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning", "web_search"):
            value = getattr(self, name)
            if value is None and name not in ("input", "output"):
                continue
            try:
                valid = Fraction(str(value)) >= 0
            except ValueError:
                valid = False
            if not valid:
                raise ValueError(f'{name}={value!r} is not a price: use dollars such as "2.50", 10 or 0')

    def cost_nano(self, usage: Usage) -> int | None:
        """Cost of *usage* in nano-dollars: exact, rounded up once. None if a unit in it has no price."""
        unpriced = (
            (usage.web_search and self.web_search is None)
            or (usage.cache_write_1h and self.cache_write_1h is None)
            or (self.max_input is not None and usage.input_tokens > self.max_input)
        )
        if unpriced:
            return None
        per_token = (
            (usage.input, self.input),
            (usage.cache_read, self.input if self.cache_read is None else self.cache_read),
            (usage.cache_write_5m, self.input if self.cache_write is None else self.cache_write),
            (usage.cache_write_1h, self.cache_write_1h or 0),
            (usage.output, self.output),
            (usage.reasoning, self.output if self.reasoning is None else self.reasoning),
        )
        exact = sum((Fraction(str(price)) * tokens for tokens, price in per_token), start=Fraction())
        searches = Fraction(str(self.web_search or 0)) * usage.web_search
        return math.ceil(exact * _NANO_PER_TOKEN + searches * _NANO_PER_SEARCH)

    def for_tier(self, tier: str) -> Rates | None:
        """Prices of service tier *tier*, None if they are not known."""
        return self if tier == "default" else self.tiers.get(tier)


def _openai(input: str, cache_read: str, output: str) -> Rates:
    return Rates(input=input, cache_read=cache_read, output=output, web_search="10")


def _anthropic(input: str, cache_read: str, output: str, *, max_input: int | None = None) -> Rates:
    """Anthropic's cache writes cost 1.25 times the input, or twice as much for an hour."""
    return Rates(
        input=input,
        cache_read=cache_read,
        cache_write=Decimal(input) * Decimal("1.25"),
        cache_write_1h=Decimal(input) * 2,
        output=output,
        web_search="10",
        max_input=max_input,
    )


DEFAULT_RATES: Mapping[str, Rates] = {
    "claude-haiku-4-5": _anthropic("1", "0.10", "5"),
    "claude-haiku-5-5": _anthropic("0.10", "0.01", "0.50", max_input=100_000),
    "claude-opus-4-1": _anthropic("15", "1.50", "75"),
    "claude-opus-4-5": _anthropic("5", "0.50", "25"),
    "claude-opus-5": _anthropic("5", "0.50", "25"),
    "claude-opus-5-5": _anthropic("4", "0.20", "20"),
    "claude-sonnet-4": _anthropic("3", "0.30", "15"),
    "claude-sonnet-4-5": _anthropic("3", "0.30", "15", max_input=200_000),
    "claude-sonnet-4-6": _anthropic("3", "0.30", "15"),
    "claude-sonnet-5": _anthropic("2", "0.20", "10"),
    "claude-sonnet-5-5": _anthropic("2", "0.10", "10"),
    "gpt-4.1": _openai("2", "0.50", "8"),
    "gpt-4.1-mini": _openai("0.40", "0.10", "1.60"),
    "gpt-4.1-nano": _openai("0.10", "0.025", "0.40"),
    "gpt-4o": _openai("2.50", "1.25", "10"),
    "gpt-4o-mini": _openai("0.15", "0.075", "0.60"),
    "gpt-5": _openai("1.25", "0.125", "10"),
    "gpt-5-mini": _openai("0.25", "0.025", "2"),
    "gpt-5-nano": _openai("0.05", "0.005", "0.40"),
    "o4-mini": _openai("1.10", "0.275", "4.40"),
}
"""List prices of OpenAI (2025) and Anthropic (2026). `LocalProvider(prices=...)` adds to them and overrides them."""
