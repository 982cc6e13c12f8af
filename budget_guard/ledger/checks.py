"""Checks of arguments: what a ledger refuses before it does anything else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import index

from budget_guard.ledger.base import MOST_LIMIT
from budget_guard.ledger.history import BY, NO_LINES, CheckedLines, UsageLine, UsageQuery, clean
from budget_guard.ledger.hold_id import MOST_LENGTH, made_ms
from budget_guard.units.amounts import MOST, Amounts, Checked, Limits, Sums, unchecked


def checked_amounts(amounts: Sums) -> Checked:
    """*amounts* as plain integers, which need not be checked again.

    Raises:
        ValueError: If one is none, or is not from 0 to `MOST`.
    """
    return amounts if type(amounts) is Checked else unchecked(Checked, _in_range(amounts, 0))


def checked_room(room: Sums) -> Checked:
    """*room* as plain integers, which need not be checked again. Its cost may be negative.

    Raises:
        ValueError: If one is none, or is not from 0 to `MOST`, or a cost not from -`MOST` on.
    """
    cost = room[0]
    if type(cost) is int and cost < 0:
        checked_amounts((-cost, *room[1:]))
        return unchecked(Checked, room)
    return checked_amounts(room)


def checked_change(change: Sums) -> Amounts:
    """*change* as plain integers, which may be negative.

    Raises:
        ValueError: If one is none, or is not from -`MOST` to `MOST`.
    """
    return Amounts._make(_in_range(change, -MOST))


def _in_range(amounts: Sums, least: int) -> Sums:
    try:
        cost, input_tokens, output_tokens, total_tokens, requests, tool_calls = amounts
        bits = cost | input_tokens | output_tokens | total_tokens | requests | tool_calls
        if type(bits) is int and 0 <= bits <= MOST:  # MOST is all ones, so no part of it is larger
            return amounts
        plain = Amounts._make(map(index, amounts))
        if least <= min(plain) and max(plain) <= MOST:
            return plain
    except TypeError:
        pass  # a float, NaN included
    raise ValueError(f"{amounts} must be whole numbers from {least} to {MOST}")


def checked_lines(lines: Sequence[UsageLine]) -> CheckedLines:
    """*lines* with labels that can be kept.

    Raises:
        ValueError: If a quantity is no whole number, or beyond what a ledger takes.
    """
    if type(lines) is CheckedLines:
        return lines
    checked: list[UsageLine] = []
    for line in lines:
        labels, amounts, *kinds = line
        if any(type(quantity) is not int or not -MOST <= quantity <= MOST for quantity in (*amounts, *kinds)):
            raise ValueError(f"{line} must have whole numbers of at most {MOST}")
        checked.append(line._replace(labels=clean(labels)))
    return CheckedLines(checked) if checked else NO_LINES


def check_query(query: UsageQuery) -> None:
    """Check that *query* can be answered.

    Raises:
        ValueError: If it sums up by what no history has.
    """
    unknown = [name for name in query.by if name not in BY]
    if unknown:
        raise ValueError(f"by={query.by!r}: {unknown[0]!r} is not known: use some of {', '.join(map(repr, BY))}")


def check_limits(limits: Limits) -> None:
    """Check that *limits* are None or integers from 0 to `MOST_LIMIT`.

    Raises:
        ValueError: If one is not.
    """
    for name, limit in zip(Limits._fields, limits, strict=True):
        if limit is not None and not (isinstance(limit, int) and 0 <= limit <= MOST_LIMIT):
            raise ValueError(f"{name}={limit!r} must be None or a whole number from 0 to {MOST_LIMIT}")


def check_place(name: str) -> None:
    """Check that a text can be kept under *name*.

    Raises:
        ValueError: If it cannot.
    """
    if not isinstance(name, str) or not 0 < len(name) <= MOST_LENGTH:
        raise ValueError(f"name={name!r:.60} must be a text of 1 to {MOST_LENGTH} characters")


def check_ttl(ttl_s: float) -> None:
    """Check that *ttl_s* is a time to live.

    Raises:
        ValueError: If it is not above 0, or has no end.
    """
    if not 0 < ttl_s < math.inf:
        raise ValueError(f"ttl_s={ttl_s!r} must be a number of seconds above 0")


def check_id(hold_id: str) -> None:
    """Check that *hold_id* is one, and can be stored.

    Raises:
        ValueError: If it is not.
    """
    check_text("hold_id", hold_id)
    made_ms(hold_id)


def check_text(name: str, value: str) -> None:
    """Check that *value* can be stored.

    Raises:
        ValueError: If it is no text, or none that can be written as UTF-8.
    """
    try:
        value.encode()
    except (AttributeError, UnicodeEncodeError):
        raise ValueError(f"{name}={value!r} must be text that can be written as UTF-8") from None
