"""The price of one model: the cost of its units, and the most that a call to it may cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from budget_guard.errors import UnknownPriceError
from budget_guard.pricing.rate_card import ALWAYS, BUCKETS, PricedModel, RateCard
from budget_guard.units.amounts import MOST, Amounts, Checked, unchecked
from budget_guard.units.usage import Usage

UNLIMITED_OUTPUT = 2**62
"""The answer of `ModelPrice.affordable_output` where output is free: more tokens than any model writes."""

_NO_TOP = 2**62

# The only fallbacks there are, each to a price that is never lower. Cache writes, audio and fees have none.
_FALLBACKS = {
    "cache_audio": "input_audio",
    "cache_read": "input",
    "input_image": "input",
    "reasoning": "output",
}
_SHORT_INPUT = tuple(BUCKETS.index(b) for b in ("input", "cache_read", "cache_write_5m"))
_TEXT_INPUT = (*_SHORT_INPUT, BUCKETS.index("cache_write_1h"))
_TEXT_OUTPUT = tuple(BUCKETS.index(b) for b in ("output", "reasoning"))
_REQUESTS = BUCKETS.index("requests")
_TEXT = tuple(BUCKETS.index(b) for b in ("input", "cache_read", "output", "reasoning", "requests"))


class _Tier(NamedTuple):
    """The prices of calls with more than `above` input tokens, in parts of a nano-dollar."""

    above: int
    rates: tuple[int | None, ...]  # aligned to BUCKETS
    other: dict[str, int]


class _TextRow(NamedTuple):
    """The dearest that text costs in one tier, in parts of a nano-dollar."""

    above: int
    top: int  # the most input tokens that the tier takes
    input: int
    output: int
    request: int

    def covers(self, row: _TextRow) -> bool:
        """Whether this row is never below *row*."""
        return (
            self.above <= row.above
            and self.top >= row.top
            and self.input >= row.input
            and self.output >= row.output
            and self.request >= row.request
        )


class ModelPrice:
    """The prices of one model at one provider, in one service tier, on one day. Not changed once it is made.

    Sums are exact integers over a common denominator and are rounded up to a nano-dollar once per call.
    """

    __slots__ = (
        "_denominator",
        "_hours",
        "_rows",
        "_text",
        "_tiers",
        "_unpriced",
        "assumed_alias",
        "capabilities",
        "context_window",
        "max_output",
        "model",
        "provider",
    )

    def __init__(self, terms: PricedModel) -> None:
        self.model = terms.model
        """The model as it was asked for."""
        self.provider = terms.provider
        """The provider whose prices they are; None for prices that only the user knows."""
        self.max_output = terms.max_output
        """The most output tokens of one call, None if no source has it."""
        self.context_window = terms.context_window
        """The most tokens of one call, None if no source has it."""
        self.capabilities = terms.capabilities
        """Of "tools", "vision", "json_schema", "reasoning" and "audio", those it has; None if not known."""
        self.assumed_alias = terms.assumed_alias
        """Whether the name is one that moves from model to model, as "-latest" does."""
        cards = [terms.card, *(window.card for window in terms.windows), *terms.next_day]
        rates = (rate for card in cards for steps in card.values() for _, rate in steps)
        self._denominator = math.lcm(*(rate.denominator for rate in rates))
        tiers = [_tiers(card, self._denominator) for card in cards]
        self._tiers = tiers[0]
        self._hours = list(zip(terms.windows, tiers[1:]))  # noqa: B905 (the next day's have no window)
        text = [rate for i in _TEXT if (rate := self._tiers[-1].rates[i]) is not None]
        self._text = tuple(text) if len(text) == len(_TEXT) and len(self._tiers) == 1 and not self._hours else None
        """What text costs in parts of a nano-dollar, where that depends neither on the size nor on the hour."""
        self._unpriced = [name for name in ("input", "output") if any(name not in card for card in cards)]
        self._rows = tuple(
            _dearest(row for each in tiers for row in _text_rows(each, kinds)) for kinds in (_SHORT_INPUT, _TEXT_INPUT)
        )

    def __repr__(self) -> str:
        return f"ModelPrice(model={self.model!r}, provider={self.provider!r})"

    @property
    def varies_by_hour(self) -> bool:
        """Whether the price depends on the time of day."""
        return bool(self._hours)

    def cost(self, usage: Usage, at: datetime | None = None) -> int:
        """The cost of *usage*, in nano-dollars, rounded up once.

        Args:
            usage: What one call used.
            at: When, with a time zone. None takes the dearest hour of the day where prices depend on it.

        Raises:
            UnknownPriceError: If a unit that was used has no price.
            ValueError: If a quantity is negative.
        """
        if not self._hours:
            return self._bill(self._tiers, usage)
        if at is None:
            return max(self._bill(tiers, usage) for tiers in (self._tiers, *(t for _, t in self._hours)))
        tiers = next((tiers for window, tiers in self._hours if window.is_open(at)), self._tiers)
        return self._bill(tiers, usage)

    def bill_text(self, usage: Usage) -> Amounts | None:
        """The amounts to book for *usage*; None if it takes a closer look.

        As `cost`, in a third of the time, for what nearly every call is: text, at a price that does not depend on its
        size or on the hour.
        """
        rates = self._text
        plain, read, w5, w1, audio, heard, image, written, thought, said, drawn, searches, requests, other = usage
        if rates is None or w5 or w1 or audio or heard or image or said or drawn or searches or other:
            return None
        if plain < 0 or read < 0 or written < 0 or thought < 0 or requests < 0:
            return None
        per_plain, per_read, per_written, per_thought, per_request = rates
        priced = plain * per_plain + read * per_read + written * per_written + thought * per_thought
        scale = self._denominator
        cost = (priced + requests * per_request + scale - 1) // scale  # rounded up
        taken, made = plain + read, written + thought
        total = taken + made
        every = cost + total + requests
        if type(every) is not int or every > MOST:  # so is none of them
            return None
        return unchecked(Checked, (cost, taken, made, total, requests or 1, 0))

    def _bill(self, tiers: Sequence[_Tier], usage: Usage) -> int:
        tier = tiers[-1]
        if len(tiers) > 1:
            size = usage.input_tokens
            tier = next(tier for tier in tiers if size > tier.above)
        counts: tuple[int, ...] = usage[:-1]
        total = 0
        # most buckets of most calls are empty, and a sum over all of them takes longer than to look
        for rate, quantity in zip(tier.rates, counts, strict=True):
            if quantity:
                if rate is None or quantity < 0:
                    raise self._refusal(usage, tier)
                total += quantity * rate
        for name, quantity in usage.other:
            if quantity:
                if name not in tier.other or quantity < 0:
                    raise self._refusal(usage, tier)
                total += quantity * tier.other[name]
        return -(-total // self._denominator)

    def _refusal(self, usage: Usage, tier: _Tier) -> Exception:
        counts = [*zip(BUCKETS, usage[:-1], tier.rates, strict=True)]
        counts += [(name, quantity, tier.other.get(name)) for name, quantity in usage.other]
        for name, quantity, rate in counts:
            if quantity < 0:
                return ValueError(f"{name}={quantity} of {self.model!r}: a quantity is never negative")
            if quantity and rate is None:
                return self._no_price(name)
        raise AssertionError("called with a usage that is priced")

    def _no_price(self, unit: str) -> UnknownPriceError:
        example = f'"{unit}": 1e-5' if unit in BUCKETS else f'"other": {{"{unit}": 1e-5}}'
        return UnknownPriceError(
            model=self.model,
            provider=self.provider,
            missing=unit,
            remedy="give every price that it has, dollars per unit: "
            f'pricing={{"{self.model}": {{"input": 2.5e-6, "output": 10e-6, {example}}}}}',
        )

    def worst(self, input_tokens: int, output_tokens: int, requests: int = 1, *, hour_cache: bool = True) -> int:
        """The most that a call with at most so many text tokens may cost, in nano-dollars.

        Never below `cost` of any text usage within the bounds, at any hour: the input may be written to the
        dearest cache there is, the output may all be reasoning, the size may fall into any tier up to the
        bound, and the call may end on the next day.

        Args:
            input_tokens: The most input tokens.
            output_tokens: The most output tokens.
            requests: The most requests.
            hour_cache: Whether input may be written to a one-hour cache.

        Raises:
            UnknownPriceError: If text input or output has no price.
        """
        if self._unpriced:
            self._check_text(input_tokens, output_tokens)
        most = 0
        for above, top, per_input, per_output, per_request in self._rows[hour_cache]:
            if input_tokens > above:
                reach = input_tokens if input_tokens < top else top
                cost = reach * per_input + output_tokens * per_output + requests * per_request
                if cost > most:
                    most = cost
        return -(-most // self._denominator)

    def worst_line(self, output_tokens: int, *, hour_cache: bool = True) -> tuple[int, int, int] | None:
        """`worst` for so many output tokens as a line over the input: *slope*, *start* and *scale*.

        Returns:
            ``worst(n, output_tokens) == (n * slope + start) // scale`` for every ``n``; None where it has bends.

        Raises:
            UnknownPriceError: If text input or output has no price.
        """
        self._check_text(1, output_tokens)
        rows = self._rows[hour_cache]
        if len(rows) != 1:
            return None
        _, _, per_input, per_output, per_request = rows[0]
        scale = self._denominator
        return per_input, output_tokens * per_output + per_request + scale - 1, scale  # which rounds up

    def affordable_output(self, nano: int, input_tokens: int, requests: int = 1, *, hour_cache: bool = True) -> int:
        """The most output tokens that *nano* nano-dollars are sure to pay for.

        Returns:
            The largest ``n >= 0`` with ``worst(input_tokens, n, requests, ...) <= nano``; -1 if not even 0 fits;
            `UNLIMITED_OUTPUT` if output is free.

        Raises:
            UnknownPriceError: If text input or output has no price.
        """
        self._check_text(input_tokens, 1)
        most = UNLIMITED_OUTPUT
        for above, top, per_input, per_output, per_request in self._rows[hour_cache]:
            if input_tokens > above:
                reach = min(input_tokens, top)
                left = nano * self._denominator - reach * per_input - requests * per_request
                if left < 0:
                    return -1
                if per_output:
                    most = min(most, left // per_output)
        return most

    def _check_text(self, input_tokens: int, output_tokens: int) -> None:
        if self._unpriced:
            for name, tokens in (("input", input_tokens), ("output", output_tokens)):
                if tokens and name in self._unpriced:
                    raise self._no_price(name)


def _tiers(card: RateCard, denominator: int) -> tuple[_Tier, ...]:
    """The tiers of a rate card, that of the largest calls first."""
    starts = sorted({ALWAYS} | {above for steps in card.values() for above, _ in steps}, reverse=True)

    def rate(unit: str, start: int) -> int | None:
        steps = card.get(unit) or card.get(_FALLBACKS.get(unit, ""))
        if steps is None:
            return 0 if unit == "requests" else None  # most providers charge nothing for the request itself
        _, nano = max(step for step in steps if step[0] <= start)
        return int(nano * denominator)

    others = [unit for unit in card if unit not in BUCKETS]

    return tuple(
        _Tier(start, tuple(rate(b, start) for b in BUCKETS), {u: rate(u, start) or 0 for u in others})
        for start in starts
    )


def _text_rows(tiers: Sequence[_Tier], inputs: Sequence[int]) -> Iterator[_TextRow]:
    top = _NO_TOP
    for above, rates, _ in tiers:
        dearest = [max(rates[i] or 0 for i in part) for part in (inputs, _TEXT_OUTPUT)]
        yield _TextRow(above, top, dearest[0], dearest[1], rates[_REQUESTS] or 0)
        top = above


def _dearest(rows: Iterable[_TextRow]) -> tuple[_TextRow, ...]:
    """The rows that can be the dearest."""
    unique = sorted(set(rows), reverse=True)
    return tuple(row for row in unique if not any(other is not row and other.covers(row) for other in unique))
