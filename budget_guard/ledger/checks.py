"""What a ledger refuses before it does anything else."""

from __future__ import annotations

import math
from operator import index

from budget_guard.dimension import Amounts, Limits
from budget_guard.ledger.base import MOST, MOST_LIMIT


def checked_amounts(amounts: Amounts, least: int = 0) -> Amounts:
    """*amounts* as plain integers.

    Raises:
        ValueError: If one is none, or is not from *least* to `MOST`.
    """
    try:
        checked = Amounts._make(map(index, amounts))
    except TypeError:  # a float, NaN included
        checked = None
    if checked is None or min(checked) < least or max(checked) > MOST:
        raise ValueError(f"{amounts} must be whole numbers from {least} to {MOST}")
    return checked


def check_limits(limits: Limits) -> None:
    """Check that *limits* are None or integers from 0 to `MOST_LIMIT`.

    Raises:
        ValueError: If one is not.
    """
    for name, limit in zip(Limits._fields, limits, strict=True):
        if limit is not None and not (isinstance(limit, int) and 0 <= limit <= MOST_LIMIT):
            raise ValueError(f"{name}={limit!r} must be None or a whole number from 0 to {MOST_LIMIT}")


def check_ttl(ttl_s: float) -> None:
    """Check that *ttl_s* is a time to live.

    Raises:
        ValueError: If it is not above 0, or has no end.
    """
    if not 0 < ttl_s < math.inf:
        raise ValueError(f"ttl_s={ttl_s!r} must be a number of seconds above 0")


def check_text(name: str, value: str) -> None:
    """Check that *value* can be stored.

    Raises:
        ValueError: If it is no text, or none that can be written as UTF-8.
    """
    try:
        value.encode()
    except (AttributeError, UnicodeEncodeError):
        raise ValueError(f"{name}={value!r} must be text that can be written as UTF-8") from None
