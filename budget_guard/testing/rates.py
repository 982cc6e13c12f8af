"""The rates of the local provider: list prices in exact fractions.

This module knows nothing of `budget_guard.pricing`, on purpose: it is the other side of the comparison, and a
bug that both sides share would stay hidden.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import TypeAlias

from budget_guard.units.usage import Usage

Price: TypeAlias = "str | int | float | Decimal"
"""Dollars, for example "2.50". A float is read by its shortest decimal form."""

_NANO_PER_TOKEN = 1_000
"""Nano-dollars a token of one dollar per million tokens."""
_NANO_PER_EVENT = 1_000_000
"""Nano-dollars an event of one dollar per thousand events."""
_PRICES = (
    "input",
    "output",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "reasoning",
    "input_audio",
    "cache_audio",
    "input_image",
    "output_audio",
    "output_image",
    "web_search",
    "search_call",
    "request",
)
_SNAPSHOT_DATE = re.compile(r"[-@]\d{4}-?\d{2}-?\d{2}$")
_GLOBAL_BEDROCK = re.compile(r"global\.anthropic\.(.+)-v\d+:\d+")


def _no_tiers() -> Mapping[str, Rates]:
    return {}


def _no_fees() -> Mapping[str, Price]:
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
    input_audio: Price | None = None
    """Input tokens of sound; None if unknown, and then a call that has any has no known cost. So with the next four."""
    cache_audio: Price | None = None
    input_image: Price | None = None
    output_audio: Price | None = None
    output_image: Price | None = None
    web_search: Price | None = None
    """Dollars per *thousand* searches; None if unknown, and then a call that searches has no known cost."""
    search_call: Price | None = None
    """Dollars per *thousand* calls that search, however often, in place of `web_search`."""
    request: Price = 0
    """Dollars per *thousand* calls."""
    fees: Mapping[str, Price] = field(default_factory=_no_fees)
    """Dollars per *thousand* other events by `HostedCall.kind`; a call with one that is not there has no known cost."""
    max_input: int | None = None
    """The most input tokens of a call that costs this; a longer one has no known cost. None for any."""
    tiers: Mapping[str, Rates] = field(default_factory=_no_tiers)
    """Prices of other service tiers, for example ``{"flex": Rates(...)}``; any other tier is unpriced."""

    def __post_init__(self) -> None:
        prices = {name: getattr(self, name) for name in _PRICES}
        prices |= {f"fees[{kind!r}]": price for kind, price in self.fees.items()}
        for name, value in prices.items():
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
        if self.max_input is not None and usage.input_tokens > self.max_input:
            return None
        by_token = (
            (usage.input, self.input),
            (usage.cache_read, self.input if self.cache_read is None else self.cache_read),
            (usage.cache_write_5m, self.input if self.cache_write is None else self.cache_write),
            (usage.cache_write_1h, self.cache_write_1h),
            (usage.input_audio, self.input_audio),
            (usage.cache_audio, self.cache_audio),
            (usage.input_image, self.input_image),
            (usage.output, self.output),
            (usage.reasoning, self.output if self.reasoning is None else self.reasoning),
            (usage.output_audio, self.output_audio),
            (usage.output_image, self.output_image),
        )
        by_event = (
            (usage.requests, self.request),
            (usage.web_search, self.web_search)
            if self.search_call is None
            else (min(usage.web_search, 1), self.search_call),
            *((quantity, self.fees.get(kind)) for kind, quantity in usage.other),
        )
        tokens, events = _sum(by_token), _sum(by_event)
        if tokens is None or events is None:
            return None
        return math.ceil(tokens * _NANO_PER_TOKEN + events * _NANO_PER_EVENT)

    def for_tier(self, tier: str) -> Rates | None:
        """Prices of service tier *tier*, None if they are not known."""
        return self if tier == "default" else self.tiers.get(tier)


def rates_of(rates: Mapping[str, Rates], model: str) -> Rates | None:
    """Rates of *model*, or of the model whose dated snapshot it is; None if there are none.

    Claude on Bedrock's global endpoint costs what it costs at Anthropic; other regions have prices of their own.
    """
    bedrock = _GLOBAL_BEDROCK.fullmatch(model)
    plain = bedrock.group(1) if bedrock else model
    return rates.get(model) or rates.get(_SNAPSHOT_DATE.sub("", plain))


def _sum(priced: Iterable[tuple[int, Price | None]]) -> Fraction | None:
    """Quantities times prices; None if a price is missing where there is a quantity."""
    total = Fraction()
    for quantity, price in priced:
        if quantity and price is None:
            return None
        total += Fraction(str(price or 0)) * quantity
    return total


def _openai(input: str, cache_read: str, output: str) -> Rates:
    fees = {"file_search": "2.50", "code_interpreter": "30"}
    return Rates(input=input, cache_read=cache_read, output=output, web_search="10", fees=fees)


def _google(input: str, cache_read: str, output: str, *, audio: str | None, max_input: int | None = None) -> Rates:
    """Grounding with Google Search costs Gemini 2.5 once a call, however many queries it takes."""
    return Rates(
        input=input,
        cache_read=cache_read,
        output=output,
        input_audio=audio,
        search_call="35",
        max_input=max_input,
    )


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
    "amazon.nova-lite-v1:0": Rates(input="0.06", cache_read="0.015", output="0.24"),
    "amazon.nova-pro-v1:0": Rates(input="0.80", cache_read="0.20", output="3.20"),
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
    "command-a-03-2025": Rates(input="2.50", output="10"),
    "command-r-08-2024": Rates(input="0.15", output="0.60"),
    "gemini-2.5-flash": _google("0.30", "0.03", "2.50", audio="1"),
    "gemini-2.5-flash-lite": _google("0.10", "0.01", "0.40", audio="0.30"),
    "gemini-2.5-pro": _google("1.25", "0.125", "10", audio=None, max_input=200_000),
    "gpt-3.5-turbo-instruct": Rates(input="1.50", output="2"),
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
"""List prices of OpenAI and Google (2025), Amazon, Anthropic and Cohere (2026).

`LocalProvider(prices=...)` adds to them and overrides them."""
