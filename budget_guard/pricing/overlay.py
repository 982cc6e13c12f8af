"""Prices that users type: ``pricing={"my-model": (2.5e-6, 10e-6)}``."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, TypeAlias

from budget_guard.pricing.rate_card import ALWAYS, BUCKETS, UNIT_NAMES, RateCard, is_per_token
from budget_guard.units.money import NANO_PER_USD, parse_usd

PriceLike: TypeAlias = "tuple[float | str | Decimal, float | str | Decimal] | Mapping[str, Any] | str"
"""A price as users write it, in dollars per unit, or the name of the model whose price it is.

``(2.5e-6, 10e-6)`` is input and output, dollars per token. A mapping names buckets of `Usage` ("input",
"output", "cache_read", "cache_write_5m", "web_search", "requests", ...), and any unit of `Usage.other` under
"other". It may also give "max_output", "context_window" and "capabilities"; a mapping of these alone keeps
the known prices. ``"gpt-4o"`` is an alias: the whole card of that model, with its cached price, fees and limits.
Floats are read by their shortest form: ``2.5e-6`` is exactly that.
"""

CAPABILITIES = {"a": "audio", "j": "json_schema", "r": "reasoning", "t": "tools", "v": "vision"}
"""Letter in the bundled table -> what a model can do."""

_LIMITS = ("max_output", "context_window", "capabilities", "other")
_SHAPES = '(2.5e-6, 10e-6) for dollars per input and output token, or {"input": 2.5e-6, "output": 10e-6, ...}'
_SHAPES_PER_MILLION = '(2.5, 10) for dollars per million input and output tokens, or {"input": 2.5, "output": 10, ...}'
_MOST_A_TOKEN = NANO_PER_USD // 100
"""One cent. The dearest tokens that are sold cost less than a tenth of it, so more is a price per million."""
_LEAST_PER_MILLION = Fraction(NANO_PER_USD, 10_000 * 1_000_000)
"""A hundredth of a cent per million: no tokens are sold for less, so less is a price per token."""


@dataclass(frozen=True, slots=True)
class Alias:
    """A name that stands for another model."""

    target: str
    """The model whose card it has."""

    def fingerprint(self) -> list[Any]:
        """The same for equal aliases."""
        return ["alias", self.target]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """One model's prices and limits as the user gave them; None for what was not given."""

    card: RateCard | None
    max_output: int | None
    context_window: int | None
    capabilities: frozenset[str] | None

    def limits(self) -> dict[str, Any]:
        """The limits that were given."""
        every = {name: getattr(self, name) for name in ("max_output", "context_window", "capabilities")}
        return {name: value for name, value in every.items() if value is not None}

    def fingerprint(self) -> list[Any]:
        """The same for equal prices, however they were written."""
        card = None if self.card is None else [[u, str(steps[0][1])] for u, steps in sorted(self.card.items())]
        can = None if self.capabilities is None else sorted(self.capabilities)
        return [card, self.max_output, self.context_window, can]


def digest(overlays: Mapping[str, Overlay | Alias]) -> str:
    """Sixteen hexadecimal digits that name these overlays."""
    text = json.dumps({model: overlay.fingerprint() for model, overlay in overlays.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse_overlay(
    model: str, value: PriceLike, units: Collection[str], *, argument: str = "pricing"
) -> Overlay | Alias:
    """Read what the user gave as the price of *model*.

    Args:
        model: The name that the user gave the price for.
        value: The price, or the name of the model whose price it is.
        units: Names of billed units outside the buckets of `Usage` that need no "other".
        argument: The argument that it was given in: "pricing", in dollars per unit, or "per_million", in which the
            prices of tokens are dollars per million of them, and those of uses are dollars each.

    Raises:
        ValueError: If a price is not a finite, non-negative number of dollars, cannot be meant, or a key is not known.
    """
    raw: Any = value  # callers without a type checker pass anything
    field = f"{argument}[{model!r}]"
    if isinstance(raw, str):
        return Alias(raw)
    per_million = argument == "per_million"
    given: dict[str, Any]
    if isinstance(raw, Mapping):
        given = _named(raw)
    elif isinstance(raw, (tuple, list)) and len(value) == 2:
        given = _named(zip(("input", "output"), value, strict=True))
    else:
        raise ValueError(f"{field}={raw!r} is not a price: use {_SHAPES_PER_MILLION if per_million else _SHAPES}")
    known = {*BUCKETS, *units, *UNIT_NAMES, *_LIMITS}
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, sorted(known), n=1)
            named = f'put a unit of that name under "other": {{{key!r}: 0.01}}'
            hint = f"did you mean {near[0]!r}?" if near else named
            raise ValueError(f"{field} has an unknown key {key!r}={given[key]!r}: {hint}")
    other = given.get("other", {})
    if not isinstance(other, Mapping):
        raise ValueError(f'{field}["other"]={other!r} is not a mapping such as {{"code_runs": 0.03}}')
    prices = {key: price for key, price in given.items() if key not in _LIMITS} | _named(given.get("other", {}))
    card: dict[str, list[tuple[int, Fraction]]] = {}
    for unit, price in prices.items():
        nano = _nano(price, f"{field}[{unit!r}]")
        if is_per_token(unit):
            nano = _per_token(model, unit, price, nano, per_million)
        card[UNIT_NAMES.get(unit, unit)] = [(ALWAYS, nano)]
    return Overlay(
        card=card or None,
        max_output=_tokens(given, "max_output", field),
        context_window=_tokens(given, "context_window", field),
        capabilities=_capabilities(given.get("capabilities"), field),
    )


def _per_token(model: str, unit: str, price: Any, nano: Fraction, per_million: bool) -> Fraction:
    """The price of one token, if it can be meant as it was given."""
    argument = "per_million" if per_million else "pricing"
    field = f"{argument}[{model!r}][{unit!r}]={price!r}"
    if per_million:
        nano /= 1_000_000
        if 0 < nano < _LEAST_PER_MILLION:
            raise ValueError(
                f"{field} is less than $0.0001 per million tokens: if it is a price per token, give it in pricing="
            )
    if nano > _MOST_A_TOKEN:
        remedy = (
            "give dollars per million tokens, not per billion"
            if per_million
            else f"if it is a price per million tokens, give it in per_million={{{json.dumps(model)}: ...}}"
        )
        raise ValueError(f"{field} is more than $0.01 a token: {remedy}")
    return nano


def _named(items: Any) -> dict[str, Any]:
    return {str(name): item for name, item in dict(items).items()}


def _nano(price: Any, field: str) -> Fraction:
    return Fraction(parse_usd(price, field)) * NANO_PER_USD


def _tokens(given: Mapping[str, Any], key: str, field: str) -> int | None:
    value = given.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ValueError(f"{field}[{key!r}]={value!r} is not a number of tokens: use one such as 16_384")
    return value


def _capabilities(names: Iterable[str] | None, field: str) -> frozenset[str] | None:
    if names is None:
        return None
    given = {names} if isinstance(names, str) else set(names)
    if unknown := given - set(CAPABILITIES.values()):
        known = ", ".join(sorted(CAPABILITIES.values()))
        raise ValueError(f'{field}["capabilities"] has unknown {sorted(unknown)}: use any of {known}')
    return frozenset(given)
