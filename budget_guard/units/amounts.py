"""Amounts: quantities in every dimension that a ledger counts.

Each dimension carries the name of the `Budget` field that limits it.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, cast

from budget_guard.units.money import to_usd

T = TypeVar("T", bound="tuple[Any, ...]")


class _Unchecked(Protocol):
    def __call__(self, cls: type[T], fields: tuple[object, ...], /) -> T: ...


unchecked = cast(_Unchecked, cast(Any, tuple).__new__)
"""``unchecked(Amounts, (...))`` is ``Amounts(...)`` in half the time. It checks nothing, nor the number of fields."""

DIMENSIONS = (
    "max_cost_usd",
    "max_input_tokens",
    "max_output_tokens",
    "max_total_tokens",
    "max_requests",
    "max_tool_calls",
)
"""The names of the dimensions, in the order of `Amounts` and `Limits`."""

MOST = 2**53 - 1
"""The largest amount that a ledger takes at once in one dimension; limits and sums may be larger."""


class Amounts(NamedTuple):
    """A quantity in every dimension, as non-negative integers."""

    cost: int = 0
    """Nano-dollars."""
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    requests: int = 0
    """Model calls."""
    tool_calls: int = 0

    def plus(self, other: Sums) -> Amounts:
        """The sum, dimension by dimension."""
        cost, read, written, total, requests, tools = self
        cost2, read2, written2, total2, requests2, tools2 = other
        return unchecked(
            Amounts,
            (cost + cost2, read + read2, written + written2, total + total2, requests + requests2, tools + tools2),
        )

    def minus(self, other: Amounts) -> Amounts:
        """The difference, dimension by dimension."""
        cost, read, written, total, requests, tools = self
        cost2, read2, written2, total2, requests2, tools2 = other
        return unchecked(
            Amounts,
            (cost - cost2, read - read2, written - written2, total - total2, requests - requests2, tools - tools2),
        )


NOTHING = Amounts()


class Checked(Amounts):
    """Amounts that are known to be whole numbers from 0 to `MOST`, and so is the room that is asked for them.

    No ledger looks again. `ledger.checks` makes them, and with ``unchecked`` code that has just looked by itself.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(Amounts._make(self))  # who looked is nothing to tell users


Sums: TypeAlias = tuple[int, int, int, int, int, int]
"""A quantity in every dimension, in the order of `Amounts`: for counters, because a plain tuple is made and taken apart
in half the time."""


class Limits(NamedTuple):
    """A ceiling in every dimension; None where there is none."""

    cost: int | None = None
    """Nano-dollars."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    requests: int | None = None
    tool_calls: int | None = None


def in_unit(dimension: int, quantity: int) -> Decimal | int:
    """*quantity* in the unit that users see: dollars for the cost, a count for everything else."""
    return to_usd(quantity) if dimension == 0 else quantity
