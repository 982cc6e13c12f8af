"""One client of the simulation: where it stands, and what the observer at the ledger saw of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from budget_guard.ledger.history import NO_LABELS, Labels, UsageLine
from budget_guard.units.amounts import NOTHING, Amounts
from budget_guard.units.scope import Scope


@dataclass(eq=False)
class Call:
    """One client with one call, or one charge, or one adjustment."""

    id: str
    scopes: tuple[Scope, ...]
    held: Amounts
    suspend: bool = True
    fails_open: bool = False
    ttl_s: float = 25
    verb: str = "commit"
    """By which it books what it cost."""
    state: str = "reserving"
    deadline: float = 0
    outbox: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    """What it has to tell the ledger yet; it survives a crash."""
    billed: Amounts = NOTHING
    """The provider's invoice, or what a charge or adjustment books."""
    sent: bool = False
    admitted: bool = False
    """What the observer at the ledger saw, this and what follows."""
    forwarded: bool = False
    in_flight: bool = False
    settled: bool = False
    freed: bool = False
    booked: Amounts | None = None
    expires: float = 0
    windows: dict[Scope, datetime | None] | None = None
    """The window of each scope in which the ledger heard of it first; None before it did."""
    unrecorded: bool = False
    """Whether the ledger had forgotten it before its charge came."""

    @property
    def labels(self) -> Labels:
        """What the history has it under. Every fourth call does not say, and no adjustment."""
        number = int(self.id.rpartition("-")[2])
        if self.verb == "adjust" or number % 4 == 0:
            return NO_LABELS
        return Labels(feature=f"f{number % 2}", model=f"m{number % 3}")

    def lines(self, amounts: Amounts) -> tuple[UsageLine, ...]:
        """How it tells what *amounts* are for."""
        return (UsageLine(self.labels, amounts),) if self.labels != NO_LABELS else ()
