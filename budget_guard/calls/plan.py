"""Plans: the model that takes a call, the terms it is made on, and what is held for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from budget_guard.pricing.model_price import ModelPrice
from budget_guard.units.amounts import Amounts, Limits


@dataclass(frozen=True, slots=True)
class Rung:
    """A model that may take the call."""

    model: str
    """The model, or the tool."""
    price: ModelPrice | None
    """None for an unpriced model that the budget allows, and for a tool."""
    why: str = ""
    """Why it takes the place of the model asked for, if it does."""
    exact: bool = True
    """Whether the price is that of this model, as it is asked for. Else it is the dearest of all that may answer."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of a call on one rung."""

    rung: Rung
    output_cap: int | None
    """The output cap to send; None to send none."""
    clamped: bool
    """Whether the session chose a lower cap than the caller and the model would have had."""
    bounded: bool
    """Whether what is held is a bound."""


Plan: TypeAlias = tuple[Terms, Amounts]
"""The terms of a call, and the amounts to hold for it."""


class Space(NamedTuple):
    """The room that there is for a call."""

    left: Limits
    """What is left now in every dimension."""
    later: Limits | None
    """What will be left when the other calls in flight are over, if they turn out to cost nothing. Not those that this
    call runs inside of: they are not over before it is. None where nobody has looked."""
    may_wait: bool
    """Whether the call can wait for them."""
    crowded: bool = False
    """Whether others wait for room as well."""


class Fit(NamedTuple):
    """How a call fits into a `Space`."""

    plan: Plan
    """What to ask the ledger for."""
    waits: bool
    """Whether the plan is what the call wants once others are over, and is not to be had now."""
