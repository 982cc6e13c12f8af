"""Postings: what is recorded for one call."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from budget_guard.units.amounts import NOTHING, Amounts
from budget_guard.units.usage import Usage

Source: TypeAlias = Literal["price", "provider", "estimate"]
"""Where a cost comes from: usage at a known price, the provider's own figure, or an estimate."""


class Posting(NamedTuple):
    """The record of one booked call."""

    at_s: float
    """Seconds since the session started."""
    id: str
    """The id of its decision, which is its hold's."""
    name: str
    """The model, or the tool."""
    amounts: Amounts
    overrun: int
    """Nano-dollars that it cost above what was held for it."""
    uncertain: bool
    """Whether it is an estimate."""
    unpriced: bool
    """Whether a part of it has no known price."""
    violation: bool
    """Whether it is more tokens than the estimate said there could be."""
    source: Source = "price"
    agent: str | None = None
    """Whom it is attributed to."""
    usage: Usage | None = None
    """What it was made of, where that is known: what was cached, and what was reasoning."""

    def negative(self) -> Posting:
        """The posting that takes it out of a sum again, but for its usage."""
        return self._replace(amounts=NOTHING.minus(self.amounts), overrun=-self.overrun)
