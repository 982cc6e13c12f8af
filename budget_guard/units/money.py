"""Money is an integer number of nano-dollars inside, and a `Decimal` number of dollars at the edge.

Nano-dollars are the coarsest unit that holds real prices: one token of a cheap model costs less than a
micro-dollar, and rounding each call up to micro-dollars overstates such a bill by about 1%.
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import TypeAlias

NANO_PER_USD = 1_000_000_000
NANO_PER_CENT = NANO_PER_USD // 100
_EXACT = Context(prec=40, rounding=ROUND_HALF_EVEN, Emin=-999_999, Emax=999_999, capitals=1, clamp=0, traps=[])
"""Enough digits for any amount: the caller's own decimal context may have fewer, and raise where one is rounded."""
_READING = Context(prec=40, traps=[InvalidOperation])
"""For texts: what is none of a number raises, also where the caller's context makes it NaN."""
_GROUPED = re.compile(r"\d{1,3}(,\d{3})+(\.\d*)?")
_MOST_PLACES = 1_100
"""More than any float has."""
_LONGEST_SHOWN = 80
MAX_NANO = 2**62
"""The largest limit a ledger accepts, in nano-dollars: about $4.6 billion."""

Usd: TypeAlias = Decimal
UsdLike: TypeAlias = "str | int | float | Decimal"
"""Dollars as users write them: "$5.00", "5", 5, 1.5 or Decimal("5")."""

_REMEDY = 'use dollars such as "$5.00", 5, 1.5 or Decimal("5")'


def parse_usd(value: UsdLike, field: str) -> Decimal:
    """Read *value* as a finite, non-negative number of dollars.

    A float is read by its shortest decimal form: ``0.1`` is ten cents, not 0.1000000000000000055.

    Args:
        value: Dollars, for example ``"$5.00"``, ``5``, ``1.5`` or ``Decimal("5")``.
        field: The name that an error message should give.

    Raises:
        ValueError: If *value* is a bool, not a number, NaN, infinite, negative, beyond `MAX_NANO`, or of more places
            than a float can have.
    """
    # Callers without a type checker pass anything; a bool is an int to Python and never a price.
    raw: object = value
    if isinstance(raw, bool) or not isinstance(raw, (str, int, float, Decimal)):
        raise ValueError(f"{field}={raw!r} is not an amount of money: {_REMEDY}")
    try:
        # a float by its shortest form, which is what the caller typed
        amount = Decimal(_text(raw) if isinstance(raw, str) else str(raw) if isinstance(raw, float) else raw, _READING)
    except InvalidOperation:
        raise ValueError(f"{field}={raw!r} is not an amount of money: {_REMEDY}") from None
    if not amount.is_finite():
        raise ValueError(f"{field}={raw!r} is not a finite amount: {_REMEDY}")
    if amount.is_signed() and amount:
        raise ValueError(f"{field}={raw!r} is negative: {_REMEDY}")
    if amount.adjusted() < -_MOST_PLACES or (isinstance(raw, (str, Decimal)) and len(str(raw)) > _MOST_PLACES):
        # as a fraction it would take for ever
        raise ValueError(f"{field}={_short(raw)} has more places than an amount of money can have: {_REMEDY}")
    if amount.adjusted() > 10 or cost_nano(amount) > MAX_NANO:
        raise ValueError(f"{field}={_short(raw)} is more than a ledger can hold (${MAX_NANO / NANO_PER_USD:,.0f})")
    return amount


def _text(value: str) -> str:
    """The number in *value*. Commas may group thousands and nothing else: "1,5" is not fifteen."""
    text = value.strip().removeprefix("$").strip()
    return text.replace(",", "") if _GROUPED.fullmatch(text) else text


def _short(value: object) -> str:
    if isinstance(value, int) and abs(value) > 10**1000:
        return "a number of thousands of digits"
    written = repr(value)
    return written if len(written) <= _LONGEST_SHOWN else f"{written[:_LONGEST_SHOWN]}..."


def limit_nano(amount: Decimal) -> int:
    """A ceiling in nano-dollars, rounded down: a ceiling never grows by conversion."""
    part, whole = amount.as_integer_ratio()
    return part * NANO_PER_USD // whole


def cost_nano(amount: Decimal) -> int:
    """A cost in nano-dollars, rounded up: a cost never shrinks by conversion."""
    part, whole = amount.as_integer_ratio()
    return -(-part * NANO_PER_USD // whole)


def nano_of(value: UsdLike, field: str) -> int:
    """A cost as users write it, in nano-dollars, rounded up.

    Raises:
        ValueError: As `parse_usd`.
    """
    return cost_nano(parse_usd(value, field))


def to_usd(nano: int) -> Decimal:
    """Exact dollars of *nano* nano-dollars, whatever precision the caller's decimal context has."""
    return _EXACT.divide(Decimal(nano), NANO_PER_USD)


def usd_text(nano: int) -> str:
    """Exact dollars of *nano* nano-dollars as plain text: `to_usd` without an exponent, in half the time."""
    whole, part = divmod(abs(nano), NANO_PER_USD)
    text = f"{whole}.{part:09d}".rstrip("0").rstrip(".") if part else str(whole)
    return f"-{text}" if nano < 0 else text


def format_usd(nano: int) -> str:
    """*nano* for people: cents where they say it all, more digits where the amount is smaller.

    ``$3.42``, ``$0.30``, ``$0.0149``, ``$0.00000135``, ``-$0.05``.
    """
    sign, size = ("-", -nano) if nano < 0 else ("", nano)
    if size >= NANO_PER_USD or size % NANO_PER_CENT == 0:
        digits = 2
    elif size >= 100_000:
        digits = 4
    else:
        return f"{sign}${usd_text(size)}"
    unit = NANO_PER_USD // 10**digits
    rounded, rest = divmod(size, unit)  # by hand: how a Decimal is rounded depends on the caller's context
    if 2 * rest > unit or (2 * rest == unit and rounded % 2):
        rounded += 1
    whole, part = divmod(rounded, 10**digits)
    return f"{sign}${whole:,}.{part:0{digits}d}"
