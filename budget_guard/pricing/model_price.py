"""The price of one model: the cost of its units, and the most that a call to it may cost."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Context, Decimal
from fractions import Fraction
from typing import NamedTuple

from budget_guard.errors import UnknownPriceError
from budget_guard.pricing.rate_card import ALWAYS, BUCKETS, UNIT_NAMES, PricedModel, RateCard, is_per_token, rate_at
from budget_guard.units.amounts import MOST, Amounts, Checked, unchecked
from budget_guard.units.money import NANO_PER_USD
from budget_guard.units.usage import UNEXPLAINED, Usage

UNLIMITED_OUTPUT = 2**62
"""The answer of `ModelPrice.affordable_output` where output is free: more tokens than any model writes."""

_NO_TOP = 2**62
_EXACT = Context(prec=28)
"""The caller's own decimal context may have fewer digits, or traps."""

KINDS: dict[str, tuple[str, ...]] = {
    "input_audio": ("input_audio", "cache_audio"),
    "input_image": ("input_image", "cache_image_read_tokens"),
    "input_video": ("input_video_tokens",),
    "output_audio": ("output_audio",),
    "output_image": ("output_image",),
    "output_video": ("output_video_tokens",),
}
"""What a call may carry beside text -> the units that it is billed in."""
TEXT_ONLY: frozenset[str] = frozenset()
"""The `kinds` of a call that carries nothing but text."""
_UNASKED = ("output_image", "output_video")  # models that draw do so unless they are told not to

_SHORT_INPUT = tuple(BUCKETS.index(b) for b in ("input", "cache_read", "cache_write_5m"))
_TEXT_INPUT = (*_SHORT_INPUT, BUCKETS.index("cache_write_1h"))
_TEXT_OUTPUT = tuple(BUCKETS.index(b) for b in ("output", "reasoning"))
_REQUESTS = BUCKETS.index("requests")
_TEXT = tuple(BUCKETS.index(b) for b in ("input", "cache_read", "output", "reasoning", "requests"))


class _Tier(NamedTuple):
    """The prices of calls with more than `above` input tokens, in parts of a nano-dollar."""

    above: int
    rates: tuple[int | None, ...]  # aligned to BUCKETS
    priced: dict[str, int]  # every unit that has a price, the buckets included

    def rate(self, unit: str) -> int | None:
        """The price of a unit by any of its names."""
        return self.priced.get(UNIT_NAMES.get(unit, unit))


class _Row(NamedTuple):
    """The dearest that tokens cost in one tier, in parts of a nano-dollar."""

    above: int
    top: int  # the most input tokens that the tier takes
    input: int
    output: int
    request: int

    def covers(self, row: _Row) -> bool:
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
        "_card",
        "_denominator",
        "_every",
        "_hours",
        "_per_prompt",
        "_rows",
        "_rows_by_kind",
        "_text",
        "_tiers",
        "_unpriced",
        "capabilities",
        "context_window",
        "max_output",
        "model",
        "own_tools",
        "provider",
    )

    def __init__(self, terms: PricedModel) -> None:
        self.model = terms.model
        """The model as it was asked for."""
        self.provider = terms.provider
        """The provider whose prices they are; None for the user's own, and for the dearest of several providers."""
        self.max_output = terms.max_output
        """The most output tokens of one call, None if no source has it."""
        self.context_window = terms.context_window
        """The most tokens of one call, which bounds its input as well; None if no source has it."""
        self.capabilities = terms.capabilities
        """Of "tools", "vision", "json_schema", "reasoning" and "audio", those it has; None if not known."""
        self.own_tools = terms.own_tools
        """Units that the model uses unasked, any number of times: "web_search" of a model for deep research."""
        self._per_prompt = terms.per_prompt
        self._card = terms.card
        cards = [terms.card, *(window.card for window in terms.windows), *terms.next_day]
        rates = (rate for card in cards for steps in card.values() for _, rate in steps)
        self._denominator = math.lcm(*(rate.denominator for rate in rates))
        # where pictures are known to be read and no other price is listed, they are billed as text
        sees = terms.capabilities is not None and "vision" in terms.capabilities
        tiers = [_tiers(card, self._denominator, sees) for card in cards]
        self._tiers = tiers[0]
        self._hours = list(zip(terms.windows, tiers[1:], strict=False))  # the next day's have no window
        text = [rate for i in _TEXT if (rate := self._tiers[-1].rates[i]) is not None]
        self._text = tuple(text) if len(text) == len(_TEXT) and len(self._tiers) == 1 and not self._hours else None
        """What text costs in parts of a nano-dollar, where that depends neither on the size nor on the hour."""
        self._unpriced = [name for name in ("input", "output") if any(name not in card for card in cards)]
        self._every = tiers
        self._rows_by_kind: dict[tuple[bool, frozenset[str]], tuple[_Row, ...]] = {}
        self._rows = tuple(self._dearest_rows(hourly, KINDS) for hourly in (False, True))

    def __repr__(self) -> str:
        units = ("input", "output")
        text = [f"{unit}={_dollars(rate)}" for unit in units if (rate := rate_at(self._card, unit, ALWAYS)) is not None]
        return f"ModelPrice({', '.join([f'model={self.model!r}', f'provider={self.provider!r}', *text])})"

    def text_price(self) -> tuple[str, str] | None:
        """The price of an input and an output token of a small call, in dollars, as users type it; None if unknown."""
        prices = [rate_at(self._card, unit, ALWAYS) for unit in ("input", "output")]
        first, second = prices
        return None if first is None or second is None else (_dollars(first), _dollars(second))

    def listed(self) -> list[tuple[int, dict[str, int]]]:
        """The prices as a list shows them: nano-dollars for a million tokens, and for one of other units, rounded up.

        Returns:
            For each tier, the input tokens above which it holds, 0 for the first one, and its prices by unit.
        """
        starts = sorted({above for steps in self._card.values() for above, _ in steps})
        tiers: list[tuple[int, dict[str, int]]] = []
        for above in starts:
            million: dict[str, int] = {}
            for unit in (*self._card, "cache_read"):
                rate = rate_at(self._card, unit, above)
                if rate is not None:
                    million[unit] = math.ceil(rate * (10**6 if is_per_token(unit) else 1))
            tiers.append((max(above, 0), million))
        return tiers

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
        if self._per_prompt:
            usage = self._once_a_request(usage)
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

    def _once_a_request(self, usage: Usage) -> Usage:
        """*usage* with what is billed by the prompt counted at most once for each request."""
        most = max(usage.requests, 1)
        other = tuple(
            (unit, min(n, most) if UNIT_NAMES.get(unit, unit) in self._per_prompt else n) for unit, n in usage.other
        )
        searches = min(usage.web_search, most) if "web_search" in self._per_prompt else usage.web_search
        return usage._replace(web_search=searches, other=other)

    def _bill(self, tiers: Sequence[_Tier], usage: Usage) -> int:
        tier = tiers[-1]
        if len(tiers) > 1:
            size = usage.input_tokens
            tier = next((tier for tier in tiers if size > tier.above), tier)  # less than none is refused below
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
                rate = tier.rate(name)
                if rate is None or quantity < 0:
                    raise self._refusal(usage, tier)
                total += quantity * rate
        return -(-total // self._denominator)

    def _refusal(self, usage: Usage, tier: _Tier) -> Exception:
        counts = [*zip(BUCKETS, usage[:-1], tier.rates, strict=True)]
        counts += [(name, quantity, tier.rate(name)) for name, quantity in usage.other]
        for name, quantity, rate in counts:
            if quantity < 0:
                return ValueError(f"{name}={quantity} of {self.model!r}: a quantity is never negative")
            if quantity and rate is None:
                return self._no_price(name)
        raise AssertionError("called with a usage that is priced")

    def _no_price(self, unit: str) -> UnknownPriceError:
        return UnknownPriceError(
            model=self.model, provider=self.provider, missing=unit, remedy=lambda: self._remedy_for(unit)
        )

    def _remedy_for(self, unit: str) -> str:
        """The line that gives *unit* a price and keeps all the others; each is named once."""
        # one price for calls of every size: the dearest
        known = {name: _dollars(max(nano for _, nano in steps)) for name, steps in self._card.items()}
        known.setdefault("input", "2.5e-6")
        known.setdefault("output", "10e-6")
        known[unit] = "1e-5" if is_per_token(unit) else "0.01"
        named = [f"{json.dumps(name)}: {price}" for name, price in known.items() if name in BUCKETS]
        others = [f"{json.dumps(name)}: {price}" for name, price in known.items() if name not in BUCKETS]
        if others:
            named.append(f'"other": {{{", ".join(others)}}}')
        return (
            "give every price that it has, dollars per unit: "
            f"pricing={{{json.dumps(self.model)}: {{{', '.join(named)}}}}}"
        )

    def _dearest_rows(self, hourly: bool, kinds: Iterable[str]) -> tuple[_Row, ...]:
        inputs = _TEXT_INPUT if hourly else _SHORT_INPUT
        more = [unit for kind in (*kinds, *_UNASKED) for unit in KINDS[kind]]
        return _dearest(row for tiers in self._every for row in _token_rows(tiers, inputs, more))

    def _rows_of(self, hourly: bool, kinds: frozenset[str] | None) -> tuple[_Row, ...]:
        """The rows of a call that carries *kinds* beside text."""
        if kinds is None:
            return self._rows[hourly]
        rows = self._rows_by_kind.get((hourly, kinds))
        if rows is None:
            for kind in sorted(kinds):
                if kind not in KINDS:
                    raise ValueError(f"kinds has {kind!r}: use any of {', '.join(KINDS)}")
                first = KINDS[kind][0]
                if any(tier.rate(first) is None for tiers in self._every for tier in tiers):
                    raise self._no_price(first)
            rows = self._rows_by_kind[hourly, kinds] = self._dearest_rows(hourly, kinds)
        return rows

    def worst(
        self,
        input_tokens: int,
        output_tokens: int,
        requests: int = 1,
        *,
        hour_cache: bool = True,
        kinds: frozenset[str] | None = None,
    ) -> int:
        """The most that a call with at most so many tokens may cost, in nano-dollars. Fees of tools are not in it.

        Never below `cost` of any usage within the bounds, at any hour: the input may be written to the
        dearest cache there is, the output may all be reasoning, the size may fall into any tier up to the
        bound, and the call may end on the next day.

        Args:
            input_tokens: The most input tokens.
            output_tokens: The most output tokens.
            requests: The most requests.
            hour_cache: Whether input may be written to a one-hour cache.
            kinds: What the call may carry beside text, of `KINDS`; `TEXT_ONLY` for nothing. None takes the dearest
                that the model has a price for. Pictures that a model draws unasked always count.

        Raises:
            UnknownPriceError: If text input or output, or one of *kinds*, has no price.
        """
        if self._unpriced:
            self._check_text(input_tokens, output_tokens)
        most = 0
        rows = self._rows[hour_cache] if kinds is None else self._rows_of(hour_cache, kinds)
        for above, top, per_input, per_output, per_request in rows:
            if input_tokens > above:
                reach = input_tokens if input_tokens < top else top
                cost = reach * per_input + output_tokens * per_output + requests * per_request
                if cost > most:
                    most = cost
        return -(-most // self._denominator)

    def worst_line(
        self, output_tokens: int, *, hour_cache: bool = True, kinds: frozenset[str] | None = None
    ) -> tuple[int, int, int] | None:
        """`worst` for so many output tokens as a line over the input: *slope*, *start* and *scale*.

        Returns:
            ``worst(n, output_tokens) == (n * slope + start) // scale`` for every ``n``; None where it has bends.

        Raises:
            UnknownPriceError: If text input or output, or one of *kinds*, has no price.
        """
        self._check_text(1, output_tokens)
        rows = self._rows_of(hour_cache, kinds)
        if len(rows) != 1:
            return None
        _, _, per_input, per_output, per_request = rows[0]
        scale = self._denominator
        return per_input, output_tokens * per_output + per_request + scale - 1, scale  # which rounds up

    def affordable_output(
        self,
        nano: int,
        input_tokens: int,
        requests: int = 1,
        *,
        hour_cache: bool = True,
        kinds: frozenset[str] | None = None,
    ) -> int:
        """The most output tokens that *nano* nano-dollars are sure to pay for.

        Returns:
            The largest ``n >= 0`` with ``worst(input_tokens, n, requests, ...) <= nano``; -1 if not even 0 fits;
            `UNLIMITED_OUTPUT` if output is free.

        Raises:
            UnknownPriceError: If text input or output, or one of *kinds*, has no price.
        """
        self._check_text(input_tokens, 1)
        most = UNLIMITED_OUTPUT
        for above, top, per_input, per_output, per_request in self._rows_of(hour_cache, kinds):
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


def _tiers(card: RateCard, denominator: int, sees: bool) -> tuple[_Tier, ...]:
    """The tiers of a rate card, that of the largest calls first."""
    starts = sorted({ALWAYS} | {above for steps in card.values() for above, _ in steps}, reverse=True)

    def rate(unit: str, start: int) -> int | None:
        nano = rate_at(card, unit, start)
        if nano is None and unit == "cache_image_read_tokens":
            return rate("input_image", start)  # a cached picture never costs more than one that is not
        if nano is None and unit == "input_image" and sees:
            return rate("input", start)
        return None if nano is None else int(nano * denominator)

    every = dict.fromkeys((*BUCKETS, "cache_image_read_tokens", *card))
    tiers: list[_Tier] = []
    for start in starts:
        priced = {unit: nano for unit in every if (nano := rate(unit, start)) is not None}
        text = [priced[unit] for unit in ("input", "output") if unit in priced]
        if len(text) == 2:  # of few models input is the dearer of the two
            priced[UNEXPLAINED] = max(*text, priced.get("reasoning", 0))
        # most providers charge nothing for the request itself
        rates = tuple(priced.get(bucket, 0 if bucket == "requests" else None) for bucket in BUCKETS)
        tiers.append(_Tier(start, rates, priced))
    return tuple(tiers)


def _token_rows(tiers: Sequence[_Tier], inputs: Sequence[int], more: Sequence[str]) -> Iterator[_Row]:
    """The dearest of text, and of the units in *more* that have a price, in each tier."""
    top = _NO_TOP
    for above, rates, priced in tiers:
        read, written = ([priced.get(unit, 0) for unit in more if _is_output(unit) is out] for out in (False, True))
        per_input = max((rates[i] or 0 for i in inputs), default=0)
        per_output = max((rates[i] or 0 for i in _TEXT_OUTPUT), default=0)
        yield _Row(above, top, max([per_input, *read]), max([per_output, *written]), rates[_REQUESTS] or 0)
        top = above


def _is_output(unit: str) -> bool:
    return unit.startswith("output_")


def _dollars(nano: Fraction) -> str:
    """A price as users type it: ``2.5e-6``, ``0.01``."""
    usd = _EXACT.divide(Decimal(nano.numerator), Decimal(nano.denominator) * NANO_PER_USD).normalize(_EXACT)
    if not usd or usd >= Decimal("0.001"):
        return format(usd, "f")
    sign, digits, exponent = usd.as_tuple()
    del sign
    mantissa = f"{digits[0]}.{''.join(map(str, digits[1:]))}".rstrip(".")
    return f"{mantissa}e{int(exponent) + len(digits) - 1}"


def _dearest(rows: Iterable[_Row]) -> tuple[_Row, ...]:
    """The rows that can be the dearest."""
    unique = sorted(set(rows), reverse=True)
    return tuple(row for row in unique if not any(other is not row and other.covers(row) for other in unique))
